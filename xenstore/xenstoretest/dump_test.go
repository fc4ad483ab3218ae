package xenstoretest_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

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

func TestParseDump(t *testing.T) {
	all, printed := allBytes()
	for _, c := range []struct {
		line string
		want xenstoretest.Node
	}{
		{`/local/domain/0/domid = "0"   (n0,r1)`, xenstoretest.Node{Path: "/local/domain/0/domid", Value: "0", Perms: "n0,r1"}},
		{`/local = ""`, xenstoretest.Node{Path: "/local"}},
		{`/local = ""   (n0)`, xenstoretest.Node{Path: "/local", Perms: "n0"}},
		{`/@introduceDomain = ""   (n0)`, xenstoretest.Node{Path: "/@introduceDomain", Perms: "n0"}},
		{`/error = "mounted,\nand so"   (n0)`, xenstoretest.Node{Path: "/error", Value: "mounted,\nand so", Perms: "n0"}},
		{`/all = "` + printed + `"`, xenstoretest.Node{Path: "/all", Value: all}},
		{`/dig = "\0012\0013\007x\0009\\"z" (n0)"`, xenstoretest.Node{Path: "/dig", Value: "\x012\x013\ax\x009\\\"z\" (n0)"}},
		{`/q = "x"y\n"   (n0)`, xenstoretest.Node{Path: "/q", Value: "x\"y\n", Perms: "n0"}},
		{`/q = "x\"y"`, xenstoretest.Node{Path: "/q", Value: `x"y`}},
		{`/eq = "a = "b""`, xenstoretest.Node{Path: "/eq", Value: `a = "b"`}},
		{`/secret:`, xenstoretest.Node{Path: "/secret", Unreadable: true}},
		{"/crlf = \"1\"   (n0)\r", xenstoretest.Node{Path: "/crlf", Value: "1", Perms: "n0"}},
	} {
		got, err := xenstoretest.ParseDump(strings.NewReader("\n" + c.line + "\n\n"))
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%s\n got %+v, %v\nwant %+v", c.line, got, err, c.want)
		}
	}
}

func TestParseDumpRefuses(t *testing.T) {
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
		_, err := xenstoretest.ParseDump(strings.NewReader("/ok = \"1\"\n" + line + "\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, want an error that names line 2", line, err)
		}
	}
	_, err := xenstoretest.ParseDump(strings.NewReader(`/a = "0123\..."`))
	if err == nil || !strings.Contains(err.Error(), "cut") {
		t.Errorf("a cut value: %v", err)
	}
	if _, err := xenstoretest.ParseDump(iotest.ErrReader(iotest.ErrTimeout)); err == nil {
		t.Error("a read error was lost")
	}
}

// FuzzParseDump says that a dump that is taken holds only paths and values that
// come back from a Server that loads it.
func FuzzParseDump(f *testing.F) {
	f.Add("/local/domain/0/domid = \"0\"   (n0,r1)\n/a:\n")
	f.Add(`/dig = "\0012\0013\007x\x7f\\"z" (n0)"`)
	f.Add(`/a = "0123\..."`)
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := xenstoretest.ParseDump(strings.NewReader(text))
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
		s := xenstoretest.NewServer()
		defer s.Close()
		if err := s.Load(strings.NewReader(text)); err != nil {
			t.Fatalf("parsed but not loaded: %v", err)
		}
	})
}
