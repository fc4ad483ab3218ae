package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

// While one imgward writes, a second on the same target, one that would read the
// target, and one that would write to the source are refused, and told who it is.
func TestTwoImgwards(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	for _, kind := range []string{"file", "device"} {
		t.Run(kind, func(t *testing.T) {
			dir := lab(t)
			var words []string
			source, golden := write(t, filepath.Join(dir, "source.img"), 1<<20, 1), write(t, filepath.Join(dir, "golden.img"), 1<<20, 3)
			target := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
			if kind == "device" {
				d := newDevice(t, t.TempDir(), 1<<20)
				target, words = d.path, d.words
			}
			g := &guard.Guard{
				Host:    &guard.Host{FS: hostfs.Live(), State: os.Getenv("IMGWARD_STATE")},
				Lockers: guard.Lockers(), Watchers: guard.Watchers(), Command: []string{"imgward", "overwrite", source, target},
			}
			for _, c := range guard.Collectors() {
				if slices.Contains([]string{"holders", "lease", "excl", "self", "marks"}, c.Name()) {
					g.Collectors = append(g.Collectors, c)
				}
			}
			src, err := g.Open(t.Context(), source)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			second := func(what string, args ...string) {
				t.Helper()
				out, err := child(t.Context(), slices.Concat(args, words)...).CombinedOutput()
				if err == nil || !strings.Contains(err.Error(), fmt.Sprint(exitRefused)) {
					t.Errorf("%s: %v: %s", what, err, out)
				}
				if first := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(string(out), first) || !strings.Contains(string(out), "imgward") {
					t.Errorf("%s does not name %s: %s", what, first, out)
				}
			}
			err = g.Write(t.Context(), target, func(ctx context.Context, p *guard.Permit) error {
				if _, err := p.File(); err != nil {
					return err
				}
				second("a second overwrite", "overwrite", golden, target, "--confirm", "aaaaaaaa")
				second("a copy of the target", "copy", target, filepath.Join(dir, "new.img"))
				second("an overwrite of the source", "overwrite", golden, source, "--confirm", "aaaaaaaa")
				if ctx.Err() != nil {
					t.Errorf("the first one was stopped: %v", context.Cause(ctx))
				}
				p.Untouched()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// Of several targets each has only its own notes.
func TestNotesOfSeveralTargets(t *testing.T) {
	testkit.Need(t, "root")
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	args := []string{"clone", golden}
	targets := []string{filepath.Join(dir, "web1.img"), filepath.Join(dir, "web2.img")}
	for i, target := range targets {
		write(t, target, 1<<20, byte(2+i))
		token := strings.Split(imgward(t, nil, "check", "--porcelain", target).want(t, exitOK).out, "\t")[1]
		args = append(args, target, "--confirm", token)
	}
	s := imgward(t, nil, append(args, "--json", "--no-reflink")...).want(t, exitOK)
	for line := range strings.Lines(s.out) {
		var o outcomeJSON
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		if len(o.Notes) != 1 || o.Notes[0].Code != guard.HoldInForce || !strings.Contains(o.Notes[0].Detail, o.Target) {
			t.Errorf("%s has the notes %+v", o.Target, o.Notes)
		}
	}
	if strings.Count(s.out, "\n") != len(targets) {
		t.Errorf("said %s", s.out)
	}
}
