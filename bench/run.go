package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A result is what the rounds of one peer took.
type result struct {
	peer  peer
	took  []time.Duration
	rss   int64 // the highest of all rounds, in bytes
	wrote int64 // the most that it had the kernel bring to the disk, in bytes
	err   error // of the round that failed; there are no more after it
}

// run makes the files, lets every peer of every set do its work in every round, and
// prints the tables. Nothing stays behind in c.dir, however it ends.
func run(ctx context.Context, c config, w io.Writer) (err error) {
	dir, err := os.MkdirTemp(c.dir, "imgward-bench.")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	targets := 0
	for _, s := range c.sets {
		targets = max(targets, s.targets)
	}
	if err := room(dir, c.size, targets+1); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s\n%d MiB of random bytes in %s, %d rounds\n", machine(dir), c.size>>20, c.dir, c.rounds)
	var failed error
	for _, s := range c.sets {
		if err := c.runSet(ctx, s, dir, w); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if c.dd {
		if err := c.runDD(ctx, dir, w); err != nil {
			failed = errors.Join(failed, fmt.Errorf("dd: %w", err))
		}
	}
	if len(c.sets) == 0 {
		return failed
	}
	fmt.Fprintf(w, "\nGB/s and ratio are of the median, above 1 is faster; a peak is not below the %s of this program\n", ownPeak())
	return failed
}

// runSet measures one set.
func (c config) runSet(ctx context.Context, s set, dir string, w io.Writer) (failed error) {
	if s.xfs {
		dir = filepath.Join(dir, "xfs")
	}
	src := filepath.Join(dir, "source")
	var dsts []string
	for i := range s.targets {
		dsts = append(dsts, filepath.Join(dir, fmt.Sprintf("target%d", i+1)))
	}
	defer func() {
		for _, name := range append(dsts, src) {
			_ = os.Remove(name) // the directory goes with it
		}
	}()
	if s.xfs {
		unmount, err := mountXFS(ctx, dir, c.size)
		if err != nil {
			fmt.Fprintf(w, "\n%s: %s\nnot here: %v\n", s.name, s.what, err)
			return nil
		}
		defer func() { failed = errors.Join(failed, unmount()) }()
	}
	if err := fill(ctx, src, c.size, s.sparse); err != nil {
		return err
	}
	var missing []string
	var results []*result
	for _, p := range s.peers {
		if name := p.program(); name != "" {
			if _, err := exec.LookPath(name); err != nil {
				missing = append(missing, p.name)
				continue
			}
		}
		results = append(results, &result{peer: p})
	}
	cold, changed := "", int64(0)
	for round := range c.rounds {
		// Whoever runs later may find a warmer or a fuller disk.
		order := slices.Clone(results)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, r := range order {
			if r.err != nil {
				continue
			}
			differs, err := s.prepare(ctx, src, dsts)
			if err != nil {
				return err
			}
			changed = max(changed, differs)
			var token string
			if r.peer.ours && slices.Contains(r.peer.argv, "TOKEN") {
				if token, r.err = askToken(ctx, r.peer.argv[0], dsts[0]); r.err != nil {
					continue
				}
			}
			if cold, err = chill(append(dsts, src), c.dropCaches); err != nil {
				return err
			}
			if s.warm {
				if err := warm(src); err != nil {
					return err
				}
			}
			r.err = r.once(ctx, src, dsts, token, round == 0)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	if s.warm {
		cold += ", then the source was read"
	}
	fmt.Fprintf(w, "\n%s: %s\ncold by %s; the time includes fsync of the targets\n", s.name, s.what, cold)
	defer s.hurdles(w, results, changed)
	return report(w, c.size*int64(s.targets), s.base, results, missing)
}

// program is what must be installed; of a shell's line the first word of each part
// that is no word of the shell's own.
func (p peer) program() string {
	if p.argv[0] != "sh" {
		return p.argv[0]
	}
	return strings.Fields(p.argv[2])[0]
}

// prepare makes the targets what they are to be before the work: not there, full of
// other bytes, or nearly equal to the source, and says how many bytes are not.
func (s set) prepare(ctx context.Context, src string, dsts []string) (differs int64, err error) {
	for i, dst := range dsts {
		st, err := os.Stat(dst)
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return 0, err
		case i >= s.old && err != nil:
			continue
		case i >= s.old:
			if err := os.Remove(dst); err != nil {
				return 0, err
			}
			continue
		case err != nil || st.Size() == 0:
			if err := exec.CommandContext(ctx, "cp", "--reflink=never", src, dst).Run(); err != nil {
				return 0, fmt.Errorf("cp: %w", err)
			}
		}
		if !s.nearly {
			continue // what is in it costs the same, whatever it is
		}
		n, err := change(dst)
		if err != nil {
			return 0, err
		}
		differs += n
	}
	return differs, nil
}

// askToken gets what imgward wants to hear before it overwrites.
func askToken(ctx context.Context, imgward, dst string) (string, error) {
	cmd := exec.CommandContext(ctx, imgward, "check", "--json", dst)
	cmd.Env = environment(dst)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s check: %w", imgward, err)
	}
	var verdict struct{ Token string }
	if err := json.Unmarshal(out, &verdict); err != nil || verdict.Token == "" {
		return "", fmt.Errorf("no token in %q", out)
	}
	return verdict.Token, nil
}

// environment keeps imgward's records beside the files.
func environment(dst string) []string {
	return append(os.Environ(), "IMGWARD_STATE="+filepath.Join(filepath.Dir(dst), "state"))
}

// once does the work and notes time and memory. What comes out is compared with the
// source if that is asked for.
func (r *result) once(ctx context.Context, src string, dsts []string, token string, compare bool) error {
	argv := r.peer.command(src, dsts, token)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &output, &output, environment(dsts[0])
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	for _, dst := range dsts {
		if err := sync(dst); err != nil {
			return err
		}
	}
	r.took = append(r.took, time.Since(start))
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = max(r.rss, usage.Maxrss<<10) // getrusage(2): in KiB
		r.wrote = max(r.wrote, usage.Oublock*512)
	}
	for _, dst := range dsts {
		if !compare {
			break
		}
		if out, err := exec.CommandContext(ctx, "cmp", src, dst).CombinedOutput(); err != nil {
			return fmt.Errorf("the copy is not equal: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	return nil
}

func sync(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// room is an error if so many files of size do not fit in dir with a little to
// spare.
func room(dir string, size int64, files int) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	if free, want := int64(st.Bavail)*st.Bsize, int64(files)*size+size/8; free < want || want < size {
		return fmt.Errorf("%s has %d MiB free, %d are wanted", dir, free>>20, want>>20)
	}
	return nil
}
