package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		s    string
		want int64
	}{
		{"4096", 4096}, {"4K", 4096}, {"3M", 3 << 20}, {"4G", 4 << 30}, {"2T", 2 << 40},
		{"", 0}, {"K", 0}, {"0", 0}, {"-4K", 0}, {"4095", 0}, {"4097", 0}, {"1K", 0}, {"4k", 0}, {"9999999999T", 0}, {"99999999999999999999", 0},
	} {
		if got, err := parseSize(tt.s); got != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%q is %d, %v; want %d", tt.s, got, err, tt.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		in   []time.Duration
		want time.Duration
	}{{[]time.Duration{5}, 5}, {[]time.Duration{5, 1}, 3}, {[]time.Duration{9, 1, 5}, 5}} {
		if got := median(tt.in); got != tt.want {
			t.Errorf("median of %v is %v", tt.in, got)
		}
	}
}

// A small run prints every peer, names what is missing and what failed, and
// leaves nothing behind.
func TestRun(t *testing.T) {
	work := set{name: "work", what: "files are made", targets: 2, base: "two cp", peers: []peer{
		shell("two cp", "cp SRC DST; cp SRC DST2"),
		words("absent", "no-such-program SRC DST"),
		shell("broken", "cp SRC.missing DST"),
		shell("other", "head -c 4096 /dev/zero > DST; cp SRC DST2"),
	}}
	again := set{name: "again", what: "a file is overwritten", targets: 1, old: 1, nearly: true, warm: true, base: "dd", peers: []peer{words("dd", ddCached)}}
	holes := set{name: "holes", what: "holes are copied", targets: 1, sparse: true, base: "cp", peers: []peer{words("cp", "cp SRC DST")}}
	c := config{size: 2 << 20, dir: t.TempDir(), rounds: 2, sets: []set{work, again, holes}}
	var out strings.Builder
	if err := run(context.Background(), c, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"work: files are made", "two cp ", "1.00x", "not here: absent\n", "broken failed: exit status 1: ", "other failed: the copy is not equal", "again: ", "holes: ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	empty(t, c.dir)

	c.sets[0].peers[2].ours = true
	if err := run(context.Background(), c, &out); err == nil || !strings.Contains(err.Error(), "broken: ") {
		t.Errorf("error %v", err)
	}
	empty(t, c.dir)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := run(ctx, c, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	empty(t, c.dir)

	c.size = 1 << 60
	if err := run(context.Background(), c, &out); err == nil {
		t.Error("there was room for an exbibyte")
	}
	empty(t, c.dir)
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestFromEnvironment(t *testing.T) {
	env := map[string]string{"BENCH_SIZE": "8M", "BENCH_DIR": "/x", "BENCH_ROUNDS": "1"}
	c, err := fromEnvironment(func(k string) string { return env[k] })
	if err != nil || c.size != 8<<20 || c.dir != "/x" || c.rounds != 1 || !filepath.IsAbs(c.sets[0].peers[0].argv[0]) {
		t.Errorf("%+v, %v", c, err)
	}
	for k, v := range map[string]string{"BENCH_SIZE": "big", "BENCH_ROUNDS": "0", "BENCH_ONLY": "nothing"} {
		if _, err := fromEnvironment(func(key string) string { return map[string]string{k: v}[key] }); err == nil {
			t.Errorf("%s=%s passes", k, v)
		}
	}
}

func TestCommand(t *testing.T) {
	p := shell("x", "a SRC DST DST2 DST4 TOKEN")
	got := strings.Join(p.command("/s", []string{"/1", "/2", "/3", "/4"}, "tok"), "|")
	if want := "sh|-ec|a /s /1 /2 /4 tok"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Every piece compares with one of its peers, and has one of ours.
func TestSets(t *testing.T) {
	for _, s := range sets("/x/imgward") {
		base, ours := false, false
		for _, p := range s.peers {
			base, ours = base || p.name == s.base, ours || p.ours
		}
		if !base || !ours || s.old > s.targets {
			t.Errorf("%+v", s)
		}
	}
}
