package main

import (
	"bufio"
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
	peer peer
	took []time.Duration
	rss  int64 // the highest of all rounds, in bytes
	err  error // of the round that failed; there are no more after it
}

// run makes the file, lets every peer copy it in every round, and prints the
// table. Nothing stays behind in c.dir, however it ends.
func run(ctx context.Context, c config, w io.Writer) (err error) {
	dir, err := os.MkdirTemp(c.dir, "imgward-bench.")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := room(dir, c.size); err != nil {
		return err
	}
	src, dst := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	fmt.Fprintf(w, "%d MiB of random bytes in %s, %d rounds\n", c.size>>20, c.dir, c.rounds)
	if err := fill(ctx, src, c.size); err != nil {
		return err
	}

	var missing []string
	var results []*result
	for _, p := range c.peers {
		if _, err := exec.LookPath(p.argv[0]); err != nil {
			missing = append(missing, p.name)
			continue
		}
		results = append(results, &result{peer: p})
	}
	cold := ""
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
			if cold, err = chill(src, c.dropCaches); err != nil {
				return err
			}
			r.err = r.once(ctx, src, dst, c.size)
			if err := os.Remove(dst); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	fmt.Fprintf(w, "cold by %s; the time includes fsync of the target\n\n", cold)
	return report(w, c.size, results, missing)
}

// once copies src to the new file dst and notes time and memory.
func (r *result) once(ctx context.Context, src, dst string, size int64) error {
	argv := r.peer.command(src, dst)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	if err := sync(dst); err != nil {
		return err
	}
	r.took = append(r.took, time.Since(start))
	st, err := os.Stat(dst)
	if err != nil {
		return err
	}
	if st.Size() != size {
		return fmt.Errorf("the copy has %d bytes", st.Size())
	}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = max(r.rss, usage.Maxrss<<10) // getrusage(2): in KiB
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

// room is an error if two files of size do not fit in dir with a little to
// spare.
func room(dir string, size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	if free, want := int64(st.Bavail)*st.Bsize, 2*size+size/8; free < want {
		return fmt.Errorf("%s has %d MiB free, %d are wanted", dir, free>>20, want>>20)
	}
	return nil
}

// fill makes a file of random bytes, which no file system can make smaller, and
// brings it to the disk.
func fill(ctx context.Context, name string, size int64) error {
	var seed [32]byte
	crand.Read(seed[:])
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	random := rand.NewChaCha8(seed)
	for n := int64(0); n < size && ctx.Err() == nil; n += 1 << 20 {
		if _, err := io.CopyN(w, random, min(1<<20, size-n)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(w.Flush(), f.Sync(), f.Close())
}

// chill takes the source out of the page cache, or drops all caches, and says
// how.
func chill(src string, dropAll bool) (string, error) {
	unix.Sync()
	if dropAll {
		// proc_sys_vm(5): 3 is pages, dentries and inodes.
		const name = "/proc/sys/vm/drop_caches"
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteString("3\n")
		return name, errors.Join(err, f.Close())
	}
	f, err := os.Open(src)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return "", fmt.Errorf("fadvise %s: %w", src, err)
	}
	return "posix_fadvise(2)", nil
}

// ownPeak is the highest memory of this program, as proc(5) words it. A
// child is started in its parent's memory, and Linux counts that as the child's
// (exec_mmap keeps the higher of both), so no child can be seen below it.
func ownPeak() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	_, v, _ := strings.Cut(string(status), "VmHWM:")
	v, _, _ = strings.Cut(v, "\n")
	return strings.TrimSpace(v)
}
