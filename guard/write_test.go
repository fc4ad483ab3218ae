package guard

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"imgward/guard/hostfs"
)

func TestWrite(t *testing.T) {
	b := newPlace(t)
	want := bytes.Repeat([]byte("new!"), 4096)
	err := b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		b.wantMarks(0)
		if p.Target().ID.Kind != KindFile || p.Target().Size != int64(len(b.content)) {
			t.Errorf("target %+v", p.Target())
		}
		got := make([]byte, 9)
		if _, err := p.ReadAt(got, 3); err != nil || string(got) != " old old " {
			t.Errorf("read %q, %v", got, err)
		}
		f, err := p.File()
		if err != nil {
			return err
		}
		b.wantMarks(1)
		if again, err := p.File(); again != f || err != nil {
			t.Errorf("another descriptor, %v", err)
		}
		return overwriteWith(f, want)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantContent(b.path, want)
	b.wantMarks(0)
}

// The real list of collectors lets a file through that nobody uses: no look of
// ours is taken for somebody else's.
func TestWriteWithAllCollectors(t *testing.T) {
	b := newPlace(t)
	b.guard.Collectors = nil
	b.guard.Host.Patience = time.Millisecond
	_, v, err := b.guard.Check(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Because {
		if !strings.HasPrefix(string(f.Code), "blind.") {
			t.Errorf("%s", f.sentence())
		}
	}
	if v.Decision == Proceed {
		want := bytes.Repeat([]byte("new!"), 4096)
		if err := b.guard.Write(t.Context(), b.path, b.fill(want)); err != nil {
			t.Fatal(err)
		}
		b.wantContent(b.path, want)
	}
	// Without a list it is this one, and not none.
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) {
		t.Errorf("a file that is open for writing: %v", err)
	}
}

// What is refused is not even opened for writing.
func TestRefusedIsNotTouched(t *testing.T) {
	b := newPlace(t)
	b.guard.Collectors = []Collector{says(Finding{Code: XenConnected, Key: "web1.7"})}
	untouched := b.watched(b.path)
	err := b.guard.Write(t.Context(), b.path, unexpected)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Verdict.Because[0].Code != XenConnected {
		t.Errorf("%v", err)
	}
	if !untouched() {
		t.Error("it was opened for writing")
	}
	b.wantContent(b.path, b.content)
	b.wantMarks(0)
}

// Who comes between the two looks is seen by the second.
func TestTwoLooks(t *testing.T) {
	for _, code := range []Code{XenConnected, MountRW, "blind.xen", FDRead, LeaseTaken} {
		b := newPlace(t)
		var looks atomic.Int32
		b.guard.Collectors = append(b.guard.Collectors, stub{"xen", func(_ context.Context, _ *Target, s *Sheet) {
			if looks.Add(1) == 2 {
				s.Found(Finding{Code: code, Key: "newcomer"})
			}
		}})
		var refused *RefusedError
		if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), code) {
			t.Errorf("%s: %v", code, err)
		}
		if looks.Load() != 2 {
			t.Errorf("%s: %d looks", code, looks.Load())
		}
		b.wantContent(b.path, b.content)
		b.wantMarks(0)
	}
}

// Real openers between the looks: each changes what the kernel answers.
func TestOpenerBetweenLooks(t *testing.T) {
	for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
		b := newPlace(t)
		var looks atomic.Int32
		b.guard.Collectors = append(b.guard.Collectors, stub{"xen", func(_ context.Context, _ *Target, s *Sheet) {
			if looks.Add(1) == 1 {
				f, err := os.OpenFile(b.path, flags, 0)
				if err != nil {
					t.Error(err)
				}
				t.Cleanup(func() { f.Close() })
			}
		}})
		b.guard.Collectors = slices.DeleteFunc(b.guard.Collectors, func(c Collector) bool { return c == lease{} })
		b.guard.Collectors = append(b.guard.Collectors, secondLook{lease{}})
		var refused *RefusedError
		if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) || refused.Verdict.Because[0].Code != LeaseRefused {
			t.Errorf("flags %d: %v", flags, err)
		}
		b.wantContent(b.path, b.content)
	}
}

// A secondLook is a collector that looks only when something is held.
type secondLook struct{ Collector }

func (c secondLook) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.held != nil {
		c.Collector.Collect(ctx, host, t, s)
	}
}

// Readers that the operator named do not turn into writers because we hold the
// file open for writing ourselves.
func TestWriteBesideNamedReader(t *testing.T) {
	b := newPlace(t)
	f, err := os.Open(b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) || refused.Verdict.Because[0].Code != LeaseReaders {
		t.Fatalf("%v", err)
	}
	b.guard.Policy.Override = refused.Verdict.Overrides()
	if err := b.guard.Write(t.Context(), b.path, b.fill(b.content)); err != nil {
		t.Errorf("with %v: %v", b.guard.Policy.Override, err)
	}
}

func TestWriteWhatIsNotThere(t *testing.T) {
	b := newPlace(t)
	for name, want := range map[string]error{
		"gone.img":   fs.ErrNotExist,
		"gone/x.img": fs.ErrNotExist,
		"web1.img/x": syscall.ENOTDIR,
	} {
		if err := b.guard.Write(t.Context(), filepath.Join(b.dir, name), unexpected); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	var typ *TypeError
	if err := b.guard.Write(t.Context(), b.dir, unexpected); !errors.As(err, &typ) || typ.Type != hostfs.Directory {
		t.Errorf("a directory: %v", err)
	}
	if err := b.guard.Write(t.Context(), "/dev/null", unexpected); !errors.As(err, &typ) || typ.Type != hostfs.CharDevice {
		t.Errorf("a character device: %v", err)
	}
	for _, name := range []string{"", "a\x00b"} {
		if err := b.guard.Write(t.Context(), name, unexpected); err == nil || strings.Contains(err.Error(), "work was called") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// What did not finish is recorded with its command, is a note to whoever
// overwrites it, no source for anybody, and forgotten when it is whole.
func TestFailedWriteIsRemembered(t *testing.T) {
	b := newPlace(t)
	fault := errors.New("the source broke")
	err := b.guard.Write(t.Context(), b.path, func(_ context.Context, p *Permit) error {
		f, err := p.File()
		if err != nil {
			return err
		}
		return errors.Join(overwriteWith(f, []byte("half")), fault)
	})
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) || !errors.Is(err, fault) || incomplete.Path != b.path {
		t.Fatalf("%v", err)
	}
	b.wantMarks(1)
	var refused *RefusedError
	if err := b.guard.Write(t.Context(), b.path, unexpected); !errors.As(err, &refused) || refused.Verdict.Because[0].Code != SelfWriting {
		t.Errorf("while its process runs: %v", err)
	}
	b.ended()
	target, v, err := b.guard.Check(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	i := slices.IndexFunc(v.Context, func(f Finding) bool { return f.Code == SelfIncomplete })
	if v.Decision != Proceed || i < 0 || !strings.Contains(v.Context[i].Source, "imgward overwrite golden.img "+b.path) {
		t.Errorf("%s: %+v", v.Decision, v.Context)
	}
	reader := *b.guard
	reader.Policy.Operation = Read
	if _, err := reader.Open(t.Context(), b.path); !errors.As(err, &refused) || refused.Verdict.Because[0].Code != SelfIncomplete {
		t.Errorf("as a source: %v", err)
	}
	if err := b.guard.Write(t.Context(), b.path, b.fill(b.content)); err != nil {
		t.Fatal(err)
	}
	b.wantMarks(0)
}

// ended makes the marks those of a process that has ended.

// What work left untouched is what it was: whole, or as incomplete as before.
func TestUntouched(t *testing.T) {
	b := newPlace(t)
	fault := errors.New("the source cannot be read")
	work := func(_ context.Context, p *Permit) error {
		if _, err := p.File(); err != nil {
			return err
		}
		p.Untouched()
		return fault
	}
	var incomplete *IncompleteError
	if err := b.guard.Write(t.Context(), b.path, work); !errors.Is(err, fault) || errors.As(err, &incomplete) {
		t.Errorf("%v", err)
	}
	b.wantMarks(0)
	b.wantContent(b.path, b.content)

	if err := b.guard.Write(t.Context(), b.path, func(_ context.Context, p *Permit) error {
		_, err := p.File()
		return errors.Join(err, errors.New("half"))
	}); !errors.As(err, &incomplete) {
		t.Fatal(err)
	}
	b.ended()
	if err := b.guard.Write(t.Context(), b.path, work); !errors.Is(err, fault) || errors.As(err, &incomplete) {
		t.Errorf("%v", err)
	}
	b.wantMarks(1)
}

// Without a record of its beginning, nothing is written.
func TestNoRecordNoWrite(t *testing.T) {
	b := newPlace(t)
	b.put(b.guard.Host.State, nil) // where a directory should be
	b.guard.Collectors = []Collector{lease{}}
	err := b.guard.Write(t.Context(), b.path, b.fill([]byte("new")))
	if !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v", err)
	}
	b.wantContent(b.path, b.content)
}

// Who only asks for the permit leaves no trace.
func TestPermitThatIsNotUsed(t *testing.T) {
	b := newPlace(t)
	fault := errors.New("not confirmed")
	if err := b.guard.Write(t.Context(), b.path, func(context.Context, *Permit) error { return fault }); !errors.Is(err, fault) {
		t.Errorf("%v", err)
	}
	b.wantMarks(0)
	b.wantContent(b.path, b.content)
}
