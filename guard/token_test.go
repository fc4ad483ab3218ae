package guard

import (
	"bytes"
	"context"
	"fmt"
	"testing"
)

// A token fires once: every write makes it another, also one of equal bytes.
func TestToken(t *testing.T) {
	b := newPlace(t)
	token := func() string {
		target, _, err := b.guard.Check(t.Context(), b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		tok, err := b.guard.Token(t.Context(), target)
		if err != nil || len(tok) != 8 {
			t.Fatalf("token %q, %v", tok, err)
		}
		return tok
	}
	first := token()
	if again := token(); again != first {
		t.Errorf("%s became %s though nothing was written", first, again)
	}
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		if inside, err := p.Token(); inside != first || err != nil {
			t.Errorf("in the permit it is %s, %v, want %s", inside, err, first)
		}
		return b.fill(b.content)(ctx, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantContent(b.path, b.content)
	if token() == first {
		t.Error("the token did not change with a write of equal bytes")
	}
}

// Everything that a token is over changes it; what it does not sample need not.
func TestTokenOf(t *testing.T) {
	size := int64(10<<20 + 512)
	target := &Target{Path: "x", ID: imageID, Size: size}
	content := make([]byte, size)
	of := func(target *Target, writes uint64) string {
		tok, err := tokenOf(target, writes, bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	first := of(target, 1)
	seen := map[string]string{first: "the first"}
	note := func(what, tok string) {
		if other, ok := seen[tok]; ok {
			t.Errorf("%s and %s have one token", what, other)
		}
		seen[tok] = what
	}
	for _, off := range []int64{0, 1<<20 - 1, 1 << 20, size - 1<<20, size - 1} {
		content[off]++
		note(fmt.Sprintf("a byte at %d", off), of(target, 1))
		content[off]--
	}
	note("another write", of(target, 2))
	for i, id := range []ID{{}, devID("8:1"), FileID(imageID.Dev, 101), FileID(1, 100)} {
		other := *target
		other.ID = id
		note(fmt.Sprintf("identity %d", i), of(&other, 1))
	}
	for _, n := range []int64{0, 1, 512, 1 << 20, 1<<20 + 1, 2 << 20, 2<<20 + 1, size - 1} {
		other := *target
		other.Size = n
		note(fmt.Sprintf("%d bytes", n), of(&other, 1))
	}
	if of(target, 1) != first {
		t.Error("the token is not stable")
	}
	// A target that is shorter than it was has no token.
	longer := *target
	longer.Size++
	if tok, err := tokenOf(&longer, 1, bytes.NewReader(content)); err == nil {
		t.Errorf("beyond the end: %q", tok)
	}
}
