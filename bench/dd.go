package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A ddCase is one way to copy with dd, of so many bytes that it takes about as long
// as the others.
type ddCase struct {
	bs     string
	direct bool
	size   int64
}

var ddCases = []ddCase{
	{"512", false, 64 << 20}, {"4K", false, 256 << 20}, {"64K", false, 512 << 20}, {"1M", false, 512 << 20}, {"4M", false, 512 << 20},
	{"512", true, 4 << 20}, {"4K", true, 16 << 20}, {"64K", true, 128 << 20}, {"1M", true, 512 << 20}, {"4M", true, 512 << 20},
}

// ddTarget is what dd writes to.
type ddTarget struct {
	what, path string
	words      []string // that the guard wants for it on this host
}

// runDD compares dd with "imgward dd" for the same operands, into a file that is
// there and, as root, a loop device. The guard's cost is the time that the same
// command line takes more than dd when it is to copy nothing; the ratio is net of
// it.
func (c config) runDD(ctx context.Context, dir string, w io.Writer) (err error) {
	src := filepath.Join(dir, "source")
	targets := []ddTarget{{what: "file", path: filepath.Join(dir, "target")}}
	size := min(c.size, 512<<20)
	for _, name := range []string{src, targets[0].path} {
		if err := fill(ctx, name, size, false); err != nil {
			return err
		}
		defer os.Remove(name) // the directory goes with it
	}
	if os.Geteuid() == 0 {
		backing := filepath.Join(dir, "disk")
		if err := fill(ctx, backing, size, false); err != nil {
			return err
		}
		defer os.Remove(backing) // the directory goes with it
		out, err := exec.CommandContext(ctx, "losetup", "-f", "--show", backing).Output()
		if err != nil {
			return fmt.Errorf("losetup: %w", err)
		}
		device := strings.TrimSpace(string(out))
		defer func() { err = errors.Join(err, exec.Command("losetup", "-d", device).Run()) }()
		targets = append(targets, ddTarget{"device", device, wanting(ctx, c.imgward, device, dir)})
	}
	fmt.Fprintf(w, "\ndd: the source is in the page cache, or read directly where it says direct; seconds are medians of %d, of \"imgward dd\" with the guard's, net is without\n", c.rounds)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "into\tbs\t\tMiB\tdd s\timgward s\tguard ms\tnet to dd\t\n")
	for _, t := range targets {
		for _, k := range ddCases {
			if k.size = min(k.size, size); ctx.Err() != nil {
				return context.Cause(ctx)
			}
			line := []string{"if=" + src, "of=" + t.path, "bs=" + k.bs, "conv=notrunc", "status=none"}
			how := "cached"
			if k.direct {
				how = "direct"
				line = append(line, "iflag=direct,count_bytes", "oflag=direct")
			}
			var took [4][]time.Duration
			for round := range c.rounds {
				for i := range took {
					if round%2 == 1 {
						i = len(took) - 1 - i
					}
					program, count := []string{"dd"}, k.size
					if i%2 == 1 {
						program = slices.Concat([]string{c.imgward, "dd"}, t.words)
					}
					if i >= 2 {
						count = 0
					}
					d, err := timed(ctx, dir, t.path, slices.Concat(program, line, []string{fmt.Sprintf("count=%dB", count)}))
					if err != nil {
						return err
					}
					took[i] = append(took[i], d)
				}
			}
			theirs, ours, guard := median(took[0]), median(took[1]), median(took[3])-median(took[2])
			fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%.3f\t%.3f\t%.1f\t%.2fx\t\n", t.what, k.bs, how, k.size>>20,
				theirs.Seconds(), ours.Seconds(), guard.Seconds()*1e3, theirs.Seconds()/(ours-guard).Seconds())
		}
	}
	return tw.Flush()
}

// timed runs a command line and gives how long it took; the target is synced before.
func timed(ctx context.Context, dir, target string, argv []string) (time.Duration, error) {
	if err := sync(target); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "IMGWARD_STATE="+filepath.Join(dir, "state"))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%q: %w: %s", argv, err, out)
	}
	return time.Since(start), nil
}

// wanting asks what must be said to the guard for a target of which nothing is
// known but that it is free.
func wanting(ctx context.Context, imgward, target, dir string) []string {
	cmd := exec.CommandContext(ctx, imgward, "dd", "if=/dev/null", "of="+target, "count=0", "status=none")
	cmd.Env = append(os.Environ(), "IMGWARD_STATE="+filepath.Join(dir, "state"))
	out, _ := cmd.CombinedOutput() // it says why it refuses
	for line := range strings.Lines(string(out)) {
		if _, words, ok := strings.Cut(line, "add: "); ok {
			return strings.Fields(words)
		}
	}
	return nil
}
