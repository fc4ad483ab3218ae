package guard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// counted is a collector that counts how often it looks.
type counted struct {
	Collector
	n *atomic.Int32
}

func (c counted) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	c.n.Add(1)
	c.Collector.Collect(ctx, host, t, s)
}

// newDD is a place whose guard serves dd, and how often procfd looked.
func newDD(t *testing.T) (b *place, scans *atomic.Int32) {
	b, scans = newPlace(t), new(atomic.Int32)
	b.guard.Policy.Operation = DD
	b.guard.Collectors = []Collector{counted{procfd{}, scans}, lease{}, locks{}, self{}, marks{}, opening{contents{}}}
	return b, scans
}

const asDD = unix.O_WRONLY | unix.O_CREAT

func writing(what string) func(context.Context, *os.File) error {
	return func(_ context.Context, f *os.File) error {
		_, err := f.WriteString(what)
		return err
	}
}

func notCalled(context.Context, *os.File) error { return errors.New("work was called") }

// A file that nobody has open is held after one look, in which nobody's descriptors
// are looked at, and nothing is recorded or truncated.
func TestDDToAnIdleFile(t *testing.T) {
	testkit.Need(t, "root")
	b, scans := newDD(t)
	err := b.guard.DD(t.Context(), b.path, asDD, 0o666, func(ctx context.Context, f *os.File) error {
		b.wantMarks(0)
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT != 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		if err := exec.Command("cat", b.path).Run(); err == nil {
			t.Error("somebody else opened it meanwhile")
		}
		return writing("new")(ctx, f)
	})
	if err != nil || scans.Load() != 0 {
		t.Errorf("%v; %d looks at all processes", err, scans.Load())
	}
	b.wantContent(b.path, append([]byte("new"), b.content[3:]...))
	b.wantMarks(0)
}

// Whoever has the file open is found: a reader stops nothing, a writer or a writable
// mapping without a descriptor does, and nothing is written then.
func TestDDAndOpeners(t *testing.T) {
	testkit.Need(t, "root")
	mapped := func(t *testing.T, name string, prot int) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		m, err := unix.Mmap(int(f.Fd()), 0, 4096, prot, unix.MAP_SHARED)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(m) })
	}
	open := func(t *testing.T, name string, flags int) {
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
	for _, tt := range []struct {
		name  string
		comes func(t *testing.T, name string)
		want  []Code
	}{
		{"a reader", func(t *testing.T, name string) { open(t, name, os.O_RDONLY) }, nil},
		{"a reader under another name", func(t *testing.T, name string) {
			if err := os.Link(name, name+".2"); err != nil {
				t.Fatal(err)
			}
			open(t, name+".2", os.O_RDONLY)
		}, nil},
		{"one who only points at it", func(t *testing.T, name string) { open(t, name, unix.O_PATH) }, nil},
		{"a writer", func(t *testing.T, name string) { open(t, name, os.O_WRONLY) }, []Code{FDWrite, LeaseRefused}},
		{"a writable mapping alone", func(t *testing.T, name string) { mapped(t, name, unix.PROT_READ|unix.PROT_WRITE) }, []Code{FDWrite, LeaseRefused}},
		{"a mapping of a writable descriptor", func(t *testing.T, name string) { mapped(t, name, unix.PROT_READ) }, []Code{LeaseRefused}},
		{"a loop device", func(t *testing.T, name string) {
			testkit.Need(t, "losetup")
			out, err := exec.Command("losetup", "--find", "--show", name).Output()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = exec.Command("losetup", "--detach", string(bytes.TrimSpace(out))).Run() })
		}, []Code{LeaseRefused}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, scans := newDD(t)
			tt.comes(t, b.path)
			b.lookAgain(b.path)
			scans.Store(0)
			err := b.guard.DD(t.Context(), b.path, asDD, 0o666, writing("new"))
			var refused *RefusedError
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				b.wantContent(b.path, append([]byte("new"), b.content[3:]...))
				return
			}
			if !errors.As(err, &refused) || scans.Load() == 0 {
				t.Fatalf("%v; %d looks at all processes", err, scans.Load())
			}
			for _, code := range tt.want {
				if !slices.Contains(refused.Verdict.Codes(), code) {
					t.Errorf("%v, want %s", refused.Verdict.Codes(), code)
				}
			}
			b.wantContent(b.path, b.content)
		})
	}
}

// A refusal does not open for writing what somebody uses.
func TestDDRefusesWithoutOpening(t *testing.T) {
	testkit.Need(t, "root")
	b, _ := newDD(t)
	untouched := b.watched(b.path)
	var refused *RefusedError
	if err := b.guard.DD(t.Context(), b.path, asDD, 0o666, notCalled); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	if !untouched() {
		t.Error("it was opened")
	}
}

// What ends in the middle is dd's own failure, and left as dd leaves it; who broke the
// hold is said.
func TestDDEndsInTheMiddle(t *testing.T) {
	testkit.Need(t, "root")
	b, _ := newDD(t)
	full := errors.New("no space")
	err := b.guard.DD(t.Context(), b.path, asDD, 0o666, func(ctx context.Context, f *os.File) error {
		return errors.Join(writing("new")(ctx, f), full)
	})
	var incomplete *IncompleteError
	var written *WrittenError
	if !errors.Is(err, full) || errors.As(err, &incomplete) || errors.As(err, &written) {
		t.Errorf("%v", err)
	}
	b.wantContent(b.path, append([]byte("new"), b.content[3:]...))
	b.wantMarks(0)

	b.guard.Lockers = []Locker{leaseLocker{}} // an opener waits, and is noticed
	cat := exec.Command("cat", b.path)
	err = b.guard.DD(t.Context(), b.path, asDD, 0o666, func(ctx context.Context, f *os.File) error {
		if err := errors.Join(writing("NEW")(ctx, f), cat.Start()); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if werr := cat.Wait(); werr != nil {
		t.Error(werr)
	}
	var broken *BrokenError
	if !errors.As(err, &broken) || broken.Finding.Code != HoldLease {
		t.Errorf("%v", err)
	}
	b.wantMarks(0)
}

// One who comes while it is looked, behind the lease, is waited for and found.
func TestDDAndOneWhoComesWhileItLooks(t *testing.T) {
	testkit.Need(t, "root")
	b, scans := newDD(t)
	came := make(chan *os.File, 1)
	var once atomic.Bool
	b.guard.Collectors = append(b.guard.Collectors, visited{func() {
		if once.CompareAndSwap(false, true) {
			go func() {
				f, err := os.OpenFile(b.path, os.O_RDWR, 0)
				if err != nil {
					t.Error(err)
				}
				came <- f
			}()
			time.Sleep(50 * time.Millisecond)
		}
	}})
	err := b.guard.DD(t.Context(), b.path, asDD, 0o666, notCalled)
	defer func() { (<-came).Close() }()
	var refused *RefusedError
	if !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), LeaseRefused) || scans.Load() == 0 {
		t.Errorf("%v", err)
	}
	b.wantContent(b.path, b.content)
}

// visited is a collector in whose look something happens.
type visited struct{ happens func() }

func (visited) Name() string { return "self" }

func (visited) Reads() []string { return nil }

func (v visited) Collect(context.Context, *Host, *Target, *Sheet) { v.happens() }

// namedByDomain is a collector as xen is, to whom one path is a living domain's.
type namedByDomain struct{ path string }

func (namedByDomain) Name() string { return xen{}.Name() }

func (namedByDomain) Reads() []string { return nil }

func (n namedByDomain) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	if rel, err := t.reach(host.FS, n.path); err != nil || rel != Unrelated {
		s.Found(Finding{Code: XenNamed, Relation: rel, Subject: "domain 7 (web1)", Detail: "has it"})
	}
}

// A new file has its name from its first byte on, comes into being behind a link, and
// does not where a domain has the name.
func TestDDToANewFile(t *testing.T) {
	b, scans := newDD(t)
	name := filepath.Join(b.dir, "new.img")
	b.guard.Collectors = append(b.guard.Collectors, namedByDomain{filepath.Join(b.dir, "web7.img")})
	err := b.guard.DD(t.Context(), name, asDD, 0o640, func(ctx context.Context, f *os.File) error {
		if err := writing("half")(ctx, f); err != nil {
			return err
		}
		b.wantContent(name, []byte("half"))
		return writing(" and half")(ctx, f)
	})
	if err != nil || scans.Load() != 0 {
		t.Errorf("%v; %d looks at all processes", err, scans.Load())
	}
	b.wantContent(name, []byte("half and half"))
	if st, err := os.Stat(name); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("%v, %v", st.Mode(), err)
	}

	var refused *RefusedError
	if err := b.guard.DD(t.Context(), filepath.Join(b.dir, "web7.img"), asDD, 0o666, notCalled); !errors.As(err, &refused) {
		t.Errorf("a domain's name: %v", err)
	}
	for link, to := range map[string]string{"relative": "behind.img", "absolute": filepath.Join(b.dir, "behind2.img"), "twice": "once", "once": "behind3.img", "guest": "web7.img"} {
		if err := os.Symlink(to, filepath.Join(b.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for link, file := range map[string]string{"relative": "behind.img", "absolute": "behind2.img", "twice": "behind3.img"} {
		if err := b.guard.DD(t.Context(), filepath.Join(b.dir, link), asDD, 0o666, writing(link)); err != nil {
			t.Errorf("%s: %v", link, err)
		}
		b.wantContent(filepath.Join(b.dir, file), []byte(link))
	}
	if err := b.guard.DD(t.Context(), filepath.Join(b.dir, "guest"), asDD, 0o666, notCalled); !errors.As(err, &refused) {
		t.Errorf("a link to a domain's name: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(b.dir, "web7.img")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused file is there: %v", err)
	}
}

// What open(2) refuses is refused as it does, and nothing is truncated.
func TestDDOpensAsOpenDoes(t *testing.T) {
	b, _ := newDD(t)
	for _, link := range []string{"link", "nowhere"} {
		if err := os.Symlink(map[string]string{"link": b.path, "nowhere": "none"}[link], filepath.Join(b.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		flags int
		want  error
	}{
		{"web1.img", asDD | unix.O_EXCL, unix.EEXIST},
		{"nowhere", asDD | unix.O_EXCL, unix.EEXIST},
		{"link", asDD | unix.O_NOFOLLOW, unix.ELOOP},
		{"none", unix.O_WRONLY, unix.ENOENT},
		{"nodir/none", asDD, unix.ENOENT},
		{"web1.img/none", asDD, unix.ENOTDIR},
		{".", asDD, unix.EISDIR},
		{"web1.img", asDD | unix.O_TRUNC, unix.EINVAL},
	} {
		err := b.guard.DD(t.Context(), filepath.Join(b.dir, tt.name), tt.flags, 0o666, notCalled)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s with %#x: %v, want %v", tt.name, tt.flags, err, tt.want)
		}
	}
	b.wantContent(b.path, b.content)
}

// Pipes and character devices are opened, and nobody looks at anything.
func TestDDToWhatHoldsNoBytes(t *testing.T) {
	b, scans := newDD(t)
	if err := b.guard.DD(t.Context(), "/dev/null", asDD, 0o666, writing("x")); err != nil {
		t.Error(err)
	}
	fifo := filepath.Join(b.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	go func() {
		f, err := os.Open(fifo)
		if err != nil {
			t.Error(err)
			got <- ""
			return
		}
		defer f.Close()
		all, _ := io.ReadAll(f)
		got <- string(all)
	}()
	if err := b.guard.DD(t.Context(), fifo, asDD, 0o666, writing("through")); err != nil {
		t.Error(err)
	}
	if s := <-got; s != "through" || scans.Load() != 0 {
		t.Errorf("%q; %d looks", s, scans.Load())
	}
}

// Standard output is judged by the opening that the shell made, which the shell and
// its other children have, too; who opened the target for himself is found.
func TestDDInherited(t *testing.T) {
	testkit.Need(t, "root")
	for kind, path := range map[string]func(b *place) string{
		"file":   func(b *place) string { return b.path },
		"device": func(b *place) string { dev, _ := loopDevice(b.T, b); return dev },
	} {
		t.Run(kind, func(t *testing.T) {
			b, _ := newDD(t)
			b.path = path(b)
			b.guard.Collectors = []Collector{procfd{}, lease{}, excl{}, self{}, marks{}, opening{contents{}}}
			b.lookAgain(b.path)
			out, err := os.OpenFile(b.path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			sibling := exec.Command("sleep", "60")
			sibling.Stdout, sibling.Stderr = out, out
			if err := sibling.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sibling.Process.Kill(); _ = sibling.Wait() }()

			if err := b.guard.DDInherited(t.Context(), out, writing("new")); err != nil {
				t.Error(err)
			}
			if _, err := out.WriteString(" and more"); err != nil {
				t.Errorf("it was closed: %v", err)
			}
			want := []byte("new and more")
			got := make([]byte, len(want))
			if f, err := os.Open(b.path); err != nil {
				t.Error(err)
			} else if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) || f.Close() != nil {
				t.Errorf("%q, %v", got, err)
			}

			other, err := os.OpenFile(b.path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			var refused *RefusedError
			err = b.guard.DDInherited(t.Context(), out, notCalled)
			if !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), FDWrite) {
				t.Errorf("beside a writer: %v", err)
			}
		})
	}
	b, scans := newDD(t)
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := b.guard.DDInherited(t.Context(), null, writing("x")); err != nil || scans.Load() != 0 {
		t.Errorf("%v; %d looks", err, scans.Load())
	}
}

// A device may be dd's input, too.
func TestDDReadsItsTarget(t *testing.T) {
	b, _ := newDD(t)
	dev, _ := loopDevice(t, b)
	b.lookAgain(dev)
	in, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var refused *RefusedError
	if err := b.guard.DD(t.Context(), dev, asDD, 0o666, notCalled); !errors.As(err, &refused) {
		t.Errorf("a reader of a device: %v", err)
	}
	b.guard.Own = []*os.File{in}
	if err := b.guard.DD(t.Context(), dev, asDD, 0o666, writing("new")); err != nil {
		t.Error(err)
	}
}

// So may a file: that we read it is no news and is not waited for, and does not stand
// for another reader whom nobody names.
func TestDDReadsItsFile(t *testing.T) {
	testkit.Need(t, "root")
	b, _ := newDD(t)
	b.guard.Host.Patience = 100 * time.Millisecond
	in, err := os.Open(b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	b.lookAgain(b.path)
	b.guard.Own = []*os.File{in}
	nameless := slices.DeleteFunc(slices.Clone(b.guard.Collectors), func(c Collector) bool { return c.Name() == "procfd" })
	for _, cs := range [][]Collector{b.guard.Collectors, nameless} {
		b.guard.Collectors = cs
		start := time.Now()
		if err := b.guard.DD(t.Context(), b.path, asDD, 0o666, writing("new")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 300*time.Millisecond {
			t.Errorf("our own input was looked at again for %v", took)
		}
	}
	other, err := os.Open(b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var refused *RefusedError
	if err := b.guard.DD(t.Context(), b.path, asDD, 0o666, notCalled); !errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), LeaseReaders) {
		t.Errorf("%v, and there is a reader whom nobody names", err)
	}
}

// named is a collector that finds the target in a domain's configuration.
type named struct{ domain string }

func (named) Name() string    { return configs{}.Name() }
func (named) Reads() []string { return nil }
func (c named) Collect(_ context.Context, _ *Host, _ *Target, s *Sheet) {
	s.Found(Finding{Code: ConfigNamed, Domain: c.domain, Subject: "domain " + c.domain})
}

// A new file may be the disk of the domain that is asserted, and of no other.
func TestDDToANewFileOfADomain(t *testing.T) {
	for _, domain := range []string{"web1", "web2"} {
		b, _ := newDD(t)
		b.guard.Policy.Domain = "web1"
		b.guard.Collectors = append(b.guard.Collectors, named{domain})
		err := b.guard.DD(t.Context(), b.path+".new", asDD, 0o666, writing("new"))
		var refused *RefusedError
		switch {
		case domain == "web1" && err != nil:
			t.Error(err)
		case domain != "web1" && (!errors.As(err, &refused) || !slices.Contains(refused.Verdict.Codes(), DomainOther)):
			t.Errorf("%v, and it is a disk of %s", err, domain)
		}
	}
}

// Behind a symbolic link ".." leads where the kernel says, for a link that leads
// nowhere as for what is there; and an empty name is none.
func TestDDToNamesAsTheKernelReadsThem(t *testing.T) {
	b, _ := newDD(t)
	dir := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "real", "sub"), 0o755),
		os.Symlink(filepath.Join(dir, "real", "sub"), filepath.Join(dir, "link")),
		os.Symlink("new", filepath.Join(dir, "real", "dangling")),
	); err != nil {
		t.Fatal(err)
	}
	if err := b.guard.DD(t.Context(), dir+"/link/../dangling", asDD, 0o666, writing("new")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "real", "new")); err != nil {
		t.Error(err)
	}
	if err := b.guard.DD(t.Context(), "", asDD, 0o666, notCalled); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// besides is a locker beside which a command runs.
type besides struct{ *exec.Cmd }

func (besides) Name() string { return "besides" }

func (c besides) Lock(context.Context, *Host, *Target) (func(context.Context) error, error) {
	if c.Process != nil {
		return nil, nil // in the first hold it was
	}
	return func(context.Context) error { return c.Wait() }, c.Start()
}

// Whoever breaks the lease behind the only look is looked for, also when he is gone
// again by the time that the lease can be had once more.
func TestDDLooksAgainWhenTheLeaseBreaks(t *testing.T) {
	testkit.Need(t, "root")
	b, _ := newDD(t)
	looks := new(atomic.Int32)
	b.guard.Collectors = append(b.guard.Collectors, counted{dm{}, looks})
	visitor := exec.Command("sh", "-c", "sleep 0.05; printf x >> \"$0\"", b.path)
	b.guard.Lockers, b.guard.Watchers = []Locker{besides{visitor}, leaseLocker{}}, nil
	if err := b.guard.DD(t.Context(), b.path, asDD, 0o666, writing("new")); err != nil {
		t.Fatal(err)
	}
	if n := looks.Load(); n < 2 {
		t.Errorf("%d looks, though somebody was there behind the first", n)
	}
}

// On overlayfs a mapping does not keep the file open that it was made from, and the
// lease is granted: whose mapping it is has to be looked for.
func TestDDToAMappedFileOfAnOverlay(t *testing.T) {
	testkit.Need(t, "root")
	b, _ := newDD(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, d := range []string{"low", "up", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	options := "lowerdir=" + dir + "/low,upperdir=" + dir + "/up,workdir=" + dir + "/work"
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		testkit.Missing(t, "overlayfs: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	name := filepath.Join(merged, "web1.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(m) })
	var refused *RefusedError
	if err := b.guard.DD(t.Context(), name, asDD, 0o666, notCalled); !errors.As(err, &refused) {
		t.Fatalf("%v, and it is mapped for writing", err)
	}
}
