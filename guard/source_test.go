package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// reader is the place's guard for reading.
func (b *place) reader() *Guard {
	g := *b.guard
	g.Policy.Operation = Read
	return &g
}

func TestSource(t *testing.T) {
	b := newPlace(t)
	src, err := b.reader().Open(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if err := src.Changed(t.Context()); err != nil {
		t.Errorf("nobody touched it: %v", err)
	}
	if src.Target.Size != int64(len(b.content)) || src.Verdict.Decision != Proceed {
		t.Errorf("%+v, %s", src.Target, src.Verdict.Decision)
	}
	if n, err := src.File.WriteAt(got, 0); err == nil {
		t.Errorf("%d bytes were written to a source", n)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	b.wantContent(b.path, b.content)
}

// A source that was written to meanwhile, however little, is said to be changed.
func TestSourceChanges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(b *place) error
	}{
		{"written to", func(b *place) error {
			f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(b.content[:1], 7)
			return errors.Join(err, f.Close())
		}},
		{"truncated", func(b *place) error { return os.Truncate(b.path, 5) }},
		{"grown", func(b *place) error { return os.Truncate(b.path, int64(len(b.content))+1) }},
		{"a new time", func(b *place) error { return os.Chtimes(b.path, time.Time{}, time.Unix(1, 0)) }},
	} {
		b := newPlace(t)
		// Its last write is long ago, so that no clock is too coarse.
		if err := os.Chtimes(b.path, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		src, err := b.reader().Open(t.Context(), b.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := tt.change(b); err != nil {
			t.Fatal(err)
		}
		if src.Changed(t.Context()) == nil {
			t.Errorf("%s: not noticed", tt.name)
		}
		src.Close()
	}
}

// Who comes while a source is read makes the copy fail; who was known does not.
func TestSourceComesIntoUse(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second []Finding
		overridden    int  // how many of the first the operator named
		want          bool // whether it is said to have changed
	}{
		{"nobody", nil, nil, 0, false},
		{"a writer", nil, []Finding{{Code: FDWrite, Key: "x.1"}}, 0, true},
		{"a reader", nil, []Finding{{Code: FDRead, Key: "x.1"}}, 0, false},
		{"a reader that writes now", []Finding{{Code: FDRead, Key: "x.1"}}, []Finding{{Code: FDWrite, Key: "x.1"}}, 0, true},
		{"a domain", nil, []Finding{{Code: XenConnected, Key: "web1.7"}}, 0, true},
		{"a place that cannot be looked at any more", nil, []Finding{{Code: "blind.xen", Key: "xenstore"}}, 0, true},
		{"a known one that stays", []Finding{{Code: FDWrite, Key: "x.1"}}, []Finding{{Code: FDWrite, Key: "x.1"}}, 1, false},
		{"another beside a known one", []Finding{{Code: FDWrite, Key: "x.1"}}, []Finding{{Code: FDWrite, Key: "x.1"}, {Code: FDWrite, Key: "x.2"}}, 1, true},
	} {
		b := newPlace(t)
		g := b.reader()
		var looks atomic.Int32
		g.Collectors = []Collector{stub{"procfd", func(_ context.Context, _ *Target, s *Sheet) {
			fs := tt.first
			if looks.Add(1) > 1 {
				fs = tt.second
			}
			for _, f := range fs {
				s.Found(f)
			}
		}}}
		for _, f := range tt.first[:tt.overridden] {
			g.Policy.Override = append(g.Policy.Override, Override{SourceUsed, f.Key})
		}
		src, err := g.Open(t.Context(), b.path)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := src.Changed(t.Context()); (got != nil) != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		src.Close()
	}
}

// A look that was late, because the host is slow or we were stopped in it, is made
// once more before a whole copy is said to be torn.
func TestSourceLooksOnceMore(t *testing.T) {
	late, writer := Finding{Code: "blind.procfd", Key: "procfd"}, Finding{Code: FDWrite, Key: "x.1"}
	for _, tt := range []struct {
		name  string
		looks [][]Finding // the first, and those at the end
		want  bool        // whether it is said to have changed
	}{
		{"late once", [][]Finding{nil, {late}, nil}, false},
		{"late twice", [][]Finding{nil, {late}, {late}}, true},
		{"late, then a writer", [][]Finding{nil, {late}, {writer}}, true},
		{"a writer beside what was late, who left", [][]Finding{nil, {late, writer}, nil}, true},
	} {
		b := newPlace(t)
		g := b.reader()
		looks := 0
		g.Collectors = []Collector{stub{"procfd", func(_ context.Context, _ *Target, s *Sheet) {
			for _, f := range tt.looks[looks] {
				s.Found(f)
			}
			looks++
		}}}
		src, err := g.Open(t.Context(), b.path)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := src.Changed(t.Context()); (got != nil) != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		src.Close()
	}
}

func TestSourceRefused(t *testing.T) {
	b := newPlace(t)
	if _, err := b.reader().Open(t.Context(), b.dir+"/gone.img"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing source: %v", err)
	}
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var refused *RefusedError
	if _, err := b.reader().Open(t.Context(), b.path); !errors.As(err, &refused) || refused.Verdict.Because[0].Code != SourceUsed {
		t.Fatalf("a source that is open for writing: %v", err)
	}
	g := b.reader()
	g.Policy.Override = refused.Verdict.Overrides()
	src, err := g.Open(t.Context(), b.path)
	if err != nil {
		t.Fatalf("with %v: %v", g.Policy.Override, err)
	}
	src.Close()
}

// A reader beside ours is no reason to refuse a source.
func TestSourceBesideReader(t *testing.T) {
	b := newPlace(t)
	one, err := b.reader().Open(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := b.reader().Open(t.Context(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	if err := errors.Join(one.Changed(t.Context()), two.Changed(t.Context())); err != nil {
		t.Error(err)
	}
}
