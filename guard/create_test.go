package guard

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// names lists what is in the directory beside the image and the state.
func (b *place) names() []string {
	b.Helper()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		b.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		if e.Name() != "web1.img" && e.Name() != "state" {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestCreate(t *testing.T) {
	b := newPlace(t)
	want := bytes.Repeat([]byte("new!"), 4096)
	err := b.guard.Create(t.Context(), b.dir+"/new.img", func(_ context.Context, f *os.File) error {
		if names := b.names(); len(names) != 0 {
			t.Errorf("meanwhile there is %q", names)
		}
		return overwriteWith(f, want)
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantContent(b.dir+"/new.img", want)
	if names := b.names(); !slices.Equal(names, []string{"new.img"}) {
		t.Errorf("there is %q", names)
	}
	b.wantMarks(0)
}

// A relative path is one from the working directory.
func TestCreateRelative(t *testing.T) {
	b := newPlace(t)
	t.Chdir(b.dir)
	if err := b.guard.Create(t.Context(), "new.img", func(_ context.Context, f *os.File) error { return overwriteWith(f, []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	b.wantContent(b.dir+"/new.img", []byte("x"))
}

// However a creation ends without success, nothing bears the name, and nothing
// else is left.
func TestCreateFails(t *testing.T) {
	fault, cause := errors.New("the source broke"), errors.New("interrupted")
	var refused *RefusedError
	for _, tt := range []struct {
		name string
		work func(b *place, f *os.File, cancel context.CancelCauseFunc) error
		want func(err error) bool
		left []string
	}{
		{"work fails", func(*place, *os.File, context.CancelCauseFunc) error { return fault },
			func(err error) bool { return errors.Is(err, fault) }, nil},
		{"work is interrupted and does not say so", func(_ *place, _ *os.File, cancel context.CancelCauseFunc) error {
			cancel(cause)
			return nil
		}, func(err error) bool { return errors.Is(err, cause) && !errors.As(err, &refused) }, nil},
		{"somebody takes the name", func(b *place, _ *os.File, _ context.CancelCauseFunc) error {
			b.put(b.dir+"/new.img", []byte("theirs"))
			return nil
		}, func(err error) bool { return errors.Is(err, fs.ErrExist) }, []string{"new.img"}},
		{"somebody takes the name with a link that leads nowhere", func(b *place, _ *os.File, _ context.CancelCauseFunc) error {
			return os.Symlink("/nowhere", b.dir+"/new.img")
		}, func(err error) bool { return errors.Is(err, fs.ErrExist) }, []string{"new.img"}},
		{"a domain takes the name", func(b *place, _ *os.File, _ context.CancelCauseFunc) error {
			b.guard.Collectors = []Collector{says(Finding{Code: XenNamed, Key: "web1.7"})}
			return nil
		}, func(err error) bool { return errors.As(err, &refused) }, nil},
		{"the directory goes", func(b *place, _ *os.File, _ context.CancelCauseFunc) error {
			return os.Remove(filepath.Join(b.dir, "sub"))
		},
			func(err error) bool { return errors.Is(err, fs.ErrNotExist) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newPlace(t)
			path := b.dir + "/new.img"
			if strings.Contains(tt.name, "directory") {
				path = b.dir + "/sub/new.img"
				if err := os.Mkdir(b.dir+"/sub", 0o700); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			err := b.guard.Create(ctx, path, func(_ context.Context, f *os.File) error {
				return errors.Join(overwriteWith(f, []byte("ours")), tt.work(b, f, cancel))
			})
			if err == nil || !tt.want(err) {
				t.Errorf("%v", err)
			}
			if names := b.names(); !slices.Equal(names, tt.left) && len(names)+len(tt.left) > 0 {
				t.Errorf("there is %q, want %q", names, tt.left)
			}
			if got, err := os.ReadFile(b.dir + "/new.img"); err == nil && string(got) != "theirs" {
				t.Errorf("the file holds %q", got)
			}
		})
	}
}

// What exists, or whose name is somebody's, is refused before anything is made.
func TestCreateRefuses(t *testing.T) {
	b := newPlace(t)
	if err := os.Symlink("gone.img", b.dir+"/dangling"); err != nil {
		t.Fatal(err)
	}
	unexpected := func(context.Context, *os.File) error { return errors.New("work was called") }
	untouched := b.watched(b.path)
	b.guard.Collectors = []Collector{}
	if err := b.guard.Create(t.Context(), b.path, unexpected); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
	if !untouched() {
		t.Error("the existing file was opened")
	}
	for _, name := range []string{"dangling", "gone/new.img", "web1.img/new.img", "gone/", "."} {
		if err := b.guard.Create(t.Context(), b.dir+"/"+name, unexpected); err == nil || strings.Contains(err.Error(), "work was called") {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.guard.Collectors = []Collector{says(Finding{Code: XenNamed, Key: "web1.7"})}
	var refused *RefusedError
	if err := b.guard.Create(t.Context(), b.dir+"/new.img", unexpected); !errors.As(err, &refused) {
		t.Errorf("a domain's name: %v", err)
	}
	if names := b.names(); !slices.Equal(names, []string{"dangling"}) {
		t.Errorf("there is %q", names)
	}
}

// A new file is no way around the refusal of a place that cannot be looked at.
func TestCreateLooksTwice(t *testing.T) {
	b := newPlace(t)
	var looks atomic.Int32
	b.guard.Collectors = []Collector{stub{"xen", func(_ context.Context, _ *Target, s *Sheet) {
		if looks.Add(1) == 2 {
			s.Blind("xenstore", syscall.EIO)
		}
	}}}
	var refused *RefusedError
	err := b.guard.Create(t.Context(), b.dir+"/new.img", func(_ context.Context, f *os.File) error { return overwriteWith(f, []byte("x")) })
	if !errors.As(err, &refused) || len(b.names()) != 0 {
		t.Errorf("%v, there is %q", err, b.names())
	}
}

// Where a file cannot be without a name, it has a temporary one, which does not
// stay either way.
func TestTemporaryName(t *testing.T) {
	b := newPlace(t)
	target, err := Resolve(t.Context(), b.guard.Host, b.dir+"/new.img")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	temporary := func(content string) *nameless {
		f, err := os.OpenFile(b.dir+"/.imgward-x", os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := overwriteWith(f, []byte(content)); err != nil {
			t.Fatal(err)
		}
		return &nameless{file: f, dir: target.handle.Fd(), base: target.Base, temporary: ".imgward-x"}
	}
	n := temporary("first")
	if err := errors.Join(n.publish(), n.discard()); err != nil {
		t.Fatal(err)
	}
	n = temporary("second")
	if err := n.publish(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: %v", err)
	}
	if err := n.discard(); err != nil {
		t.Error(err)
	}
	b.wantContent(b.dir+"/new.img", []byte("first"))
	if names := b.names(); !slices.Equal(names, []string{"new.img"}) {
		t.Errorf("there is %q", names)
	}
}

// A directory that can be written to and not be read cannot be synced: the
// creation fails, and the file does not bear its name all the same.
func TestUnreadableDirectory(t *testing.T) {
	testkit.Need(t, "root")
	b := newPlace(t)
	dir := b.dir + "/drop"
	if err := errors.Join(os.Mkdir(dir, 0o333), os.Chmod(dir, 0o333)); err != nil {
		t.Fatal(err)
	}
	target, err := Resolve(t.Context(), b.guard.Host, dir+"/new.img")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	failed := make(chan error)
	go func() {
		// Another user for this thread alone, which is not used again.
		runtime.LockOSThread()
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			failed <- err
			return
		}
		n, err := newNameless(target)
		if err != nil {
			failed <- err
			return
		}
		err = n.publish()
		if derr := n.discard(); derr != nil {
			t.Error(derr)
		}
		failed <- err
	}()
	if err := <-failed; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("there is %v, %v", names, err)
	}
}
