package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
)

// A place is a directory of the real host with one image in it, and a guard
// whose collectors are those that ask the kernel about this very file.
type place struct {
	*testing.T
	dir, path string
	content   []byte
	guard     *Guard
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &place{T: t, dir: dir, path: filepath.Join(dir, "web1.img"), content: bytes.Repeat([]byte("old "), 4096)}
	b.put(b.path, b.content)
	b.guard = &Guard{
		Host:       &Host{FS: hostfs.Live(), State: filepath.Join(dir, "state")},
		Collectors: []Collector{lease{}, self{}, marks{}},
		Lockers:    Lockers(), Watchers: Watchers(),
		Command: []string{"imgward", "overwrite", "golden.img", b.path},
	}
	t.Cleanup(b.noneOpen)
	return b
}

func (b *place) put(name string, content []byte) {
	b.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		b.Fatal(err)
	}
}

func (b *place) wantContent(name string, want []byte) {
	b.Helper()
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		b.Errorf("%s holds %.20q, want %.20q, %v", name, got, want, err)
	}
}

// wantMarks fails unless there are n records of unfinished writes.

func (b *place) wantMarks(n int) {
	b.Helper()
	names, err := os.ReadDir(marksDir(b.guard.Host))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(names) != n {
		b.Errorf("%d marks, want %d: %v", len(names), n, err)
	}
}

// noneOpen fails if a descriptor of anything in the directory is left. A
// collector of a look that was interrupted may need a moment to notice.

func (b *place) noneOpen() {
	var left []string
	for start := time.Now(); time.Since(start) < 10*time.Second; runtime.Gosched() {
		if left = b.open(); len(left) == 0 {
			return
		}
	}
	b.Errorf("left open: %q", left)
}

func (b *place) open() (names []string) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		b.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, b.dir) {
			names = append(names, to)
		}
	}
	return names
}

// watched takes a read lease: whoever opens the file for writing breaks it. The
// returned function tells whether nobody did.

func (b *place) watched(name string) (untouched func() bool) {
	b.Helper()
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		b.Fatal(err)
	}
	return func() bool {
		kind, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
		f.Close()
		return err == nil && kind == unix.F_RDLCK
	}
}

// fill is the work of replacing the content.

func (b *place) fill(with []byte) func(context.Context, *Permit) error {
	return func(_ context.Context, p *Permit) error {
		f, err := p.File()
		if err != nil {
			return err
		}
		return overwriteWith(f, with)
	}
}

// overwriteWith writes without O_DIRECT, since the bytes lie anywhere in memory.

func overwriteWith(f *os.File, content []byte) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT); err != nil {
		return err
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	return f.Sync()
}

func unexpected(context.Context, *Permit) error { return errors.New("work was called") }

func (b *place) ended() {
	b.Helper()
	names, err := filepath.Glob(marksDir(b.guard.Host) + "/*")
	if err != nil || len(names) == 0 {
		b.Fatalf("no marks: %v", err)
	}
	for _, name := range names {
		m, err := readMark(b.guard.Host, name)
		if err != nil {
			b.Fatal(err)
		}
		m.Start = "0"
		text, err := json.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		b.put(name, text)
	}
}
