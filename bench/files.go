package main

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// fill makes a file of random bytes, which no file system can make smaller, and
// brings it to the disk. Of a sparse one 60 % are holes, in runs of some MiB.
func fill(ctx context.Context, name string, size int64, sparse bool) error {
	var seed [32]byte
	crand.Read(seed[:])
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	random := rand.NewChaCha8(seed)
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size && ctx.Err() == nil; off += int64(len(buf)) {
		if sparse && off>>20%15 >= 6 {
			continue
		}
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := io.ReadFull(random, b); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(f.Sync(), f.Close())
}

// change gives one MiB of a hundred other bytes, and less of a small file, and says
// how many that are.
func change(name string) (n int64, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var seed [32]byte
	crand.Read(seed[:])
	random := rand.NewChaCha8(seed)
	buf := make([]byte, min(1<<20, st.Size()))
	for off := st.Size() / 2 % (100 << 20); off+int64(len(buf)) <= st.Size(); off += 100 << 20 {
		if _, err := io.ReadFull(random, buf); err != nil {
			return 0, err
		}
		if _, err := f.WriteAt(buf, off); err != nil {
			return 0, err
		}
		n += int64(len(buf))
	}
	return n, errors.Join(f.Sync(), f.Close())
}

// warm brings a file into the page cache.
func warm(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}

// chill takes files out of the page cache, or drops all caches, and says how.
func chill(names []string, dropAll bool) (string, error) {
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
	for _, name := range names {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		err = errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
		if err != nil {
			return "", fmt.Errorf("fadvise %s: %w", name, err)
		}
	}
	return "posix_fadvise(2)", nil
}

// machine says what this ran on.
func machine(dir string) string {
	var u unix.Utsname
	kernel := "unknown"
	if err := unix.Uname(&u); err == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	cpu := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			cpu = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	fs := "unknown"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		fs = fmt.Sprintf("%#x", st.Type)
		if name, ok := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs"}[st.Type]; ok {
			fs = name
		}
	}
	return fmt.Sprintf("%d x %s, Linux %s, %s", runtime.NumCPU(), cpu, kernel, fs)
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

// mountXFS makes a file system that shares blocks, with room for size bytes, and
// mounts it at dir.
func mountXFS(ctx context.Context, dir string, size int64) (unmount func() error, err error) {
	image := dir + ".img"
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size+size/4+(512<<20)), f.Close(), os.MkdirAll(dir, 0o700)); err != nil {
		return nil, err
	}
	for _, argv := range [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", argv[0], err, bytes.TrimSpace(out))
		}
	}
	return func() error {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("umount: %w: %s", err, bytes.TrimSpace(out))
		}
		return os.Remove(image)
	}, nil
}
