package dump_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"imgward/xenstore/dump"
	"imgward/xenstore/xenstoretest"
)

// allBytes is every byte value, as xenstore-ls of Xen 4.17 prints it.
func allBytes() (value, printed string) {
	var v, p strings.Builder
	for i := range 256 {
		c := byte(i)
		v.WriteByte(c)
		switch {
		case c == '\t':
			p.WriteString(`\t`)
		case c == '\n':
			p.WriteString(`\n`)
		case c == '\r':
			p.WriteString(`\r`)
		case c == '\\':
			p.WriteString(`\\`)
		case c < 8:
			fmt.Fprintf(&p, `\%03o`, c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&p, `\x%02x`, c)
		default:
			p.WriteByte(c)
		}
	}
	return v.String(), p.String()
}

func TestParse(t *testing.T) {
	all, printed := allBytes()
	for _, c := range []struct {
		line string
		want dump.Node
	}{
		{`/local/domain/0/domid = "0"   (n0,r1)`, dump.Node{Path: "/local/domain/0/domid", Value: "0", Perms: "n0,r1"}},
		{`/local = ""`, dump.Node{Path: "/local"}},
		{`/local = ""   (n0)`, dump.Node{Path: "/local", Perms: "n0"}},
		{`/@introduceDomain = ""   (n0)`, dump.Node{Path: "/@introduceDomain", Perms: "n0"}},
		{`/error = "mounted,\nand so"   (n0)`, dump.Node{Path: "/error", Value: "mounted,\nand so", Perms: "n0"}},
		{`/all = "` + printed + `"`, dump.Node{Path: "/all", Value: all}},
		{`/dig = "\0012\0013\007x\0009\\"z" (n0)"`, dump.Node{Path: "/dig", Value: "\x012\x013\ax\x009\\\"z\" (n0)"}},
		{`/q = "x"y\n"   (n0)`, dump.Node{Path: "/q", Value: "x\"y\n", Perms: "n0"}},
		{`/q = "x\"y"`, dump.Node{Path: "/q", Value: `x"y`}},
		{`/eq = "a = "b""`, dump.Node{Path: "/eq", Value: `a = "b"`}},
		{`/secret:`, dump.Node{Path: "/secret", Unreadable: true}},
		{"/crlf = \"1\"   (n0)\r", dump.Node{Path: "/crlf", Value: "1", Perms: "n0"}},
	} {
		got, err := dump.Parse(strings.NewReader("\n" + c.line + "\n\n"))
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%s\n got %+v, %v\nwant %+v", c.line, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{
		`local = "x"`,
		` b = "x"`,
		`/a`,
		`/a = x`,
		`/a = "x`,
		`/a = "x"   n0`,
		`/a = "x"   (n0`,
		`/a = "x"   n0)`,
		`/a = "x"   (`,
		`/a.b = "x"`,
		`/a/ = "x"`,
		`/a: "x"`,
		`/a = "\"`,
		`/a = "\q"`,
		`/a = "\x1"`,
		`/a = "\xZZ"`,
		`/a = "\400"`,
		`/a = "\18"`,
	} {
		_, err := dump.Parse(strings.NewReader("/ok = \"1\"\n" + line + "\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, want an error that names line 2", line, err)
		}
	}
	_, err := dump.Parse(strings.NewReader(`/a = "0123\..."`))
	if err == nil || !strings.Contains(err.Error(), "cut") {
		t.Errorf("a cut value: %v", err)
	}
	if _, err := dump.Parse(iotest.ErrReader(iotest.ErrTimeout)); err == nil {
		t.Error("a read error was lost")
	}
}

// FuzzParse says that a dump that is taken holds only paths and values that
// come back from a Server that loads it.
func FuzzParse(f *testing.F) {
	f.Add("/local/domain/0/domid = \"0\"   (n0,r1)\n/a:\n")
	f.Add(`/dig = "\0012\0013\007x\x7f\\"z" (n0)"`)
	f.Add(`/a = "0123\..."`)
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := dump.Parse(strings.NewReader(text))
		if err != nil {
			if nodes != nil {
				t.Fatalf("both nodes and %v", err)
			}
			return
		}
		for _, n := range nodes {
			if !strings.HasPrefix(n.Path, "/") || strings.Contains(n.Path, "//") {
				t.Fatalf("path %q", n.Path)
			}
			if len(n.Value) > len(text) || n.Unreadable && n.Value != "" {
				t.Fatalf("node %+v", n)
			}
		}
		var again strings.Builder
		for _, n := range nodes {
			again.WriteString(n.String() + "\n")
		}
		if back, err := dump.Parse(strings.NewReader(again.String())); err != nil || !slices.Equal(back, nodes) {
			t.Fatalf("printed and read again: %+v, %v", back, err)
		}
		s := xenstoretest.NewServer()
		defer s.Close()
		if err := s.Load(strings.NewReader(text)); err != nil {
			t.Fatalf("parsed but not loaded: %v", err)
		}
	})
}
