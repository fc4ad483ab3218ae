package ddcmd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// A scene is what dd is put into: a directory, standard input and output.
type scene struct {
	files  map[string][]byte // nil: a directory
	links  map[string]string
	env    []string
	stdin  [][]byte // what comes through a pipe, read by read
	from   string   // or the file that standard input is
	to     string   // the file that standard output is, else a pipe
	append bool     // and written to at its end
	pass   int64    // of the file, before
	args   []string
}

// An outcome is all that can be seen of a run.
type outcome struct {
	Stdout, Stderr string
	Status         int
	Files          string
	Offset         int64 // of standard input, if it is a file
}

var elapsed = regexp.MustCompile(`copied, [^,\n]* s, [^\n]*/s`)

// play lets run play a scene in an empty directory, which is the current one.
func (s *scene) play(t *testing.T, run func(stdin, stdout *os.File, stderr io.Writer) int) outcome {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(".")
	must(err)
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 {
			// What lies behind a link to a directory belongs to the scene.
			inside, _ := filepath.Glob(e.Name() + "/*")
			for _, name := range inside {
				must(os.Remove(name))
			}
		}
		must(os.RemoveAll(e.Name()))
	}
	for name, content := range s.files {
		if content == nil {
			must(os.Mkdir(name, 0o700))
		} else {
			must(os.WriteFile(name, content, 0o600))
		}
	}
	for name, to := range s.links {
		must(os.Symlink(to, name))
	}
	var o outcome
	var stdin, feed *os.File
	switch {
	case s.from != "":
		stdin, err = os.Open(s.from)
		must(err)
		_, err = stdin.Seek(s.pass, io.SeekStart)
		must(err)
	default:
		// pipe(2): in packet mode one read gives what one write took.
		var p [2]int
		must(unix.Pipe2(p[:], unix.O_DIRECT|unix.O_CLOEXEC))
		stdin, feed = os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe")
		for _, b := range s.stdin {
			_, err = feed.Write(b)
			must(err)
		}
		must(feed.Close())
	}
	defer stdin.Close()
	var stdout *os.File
	collected := make(chan []byte, 1)
	if s.to != "" {
		mode := os.O_RDWR | os.O_CREATE
		if s.append {
			mode |= os.O_APPEND
		}
		stdout, err = os.OpenFile(s.to, mode, 0o600)
		must(err)
		collected <- nil
	} else {
		r, w, err := os.Pipe()
		must(err)
		w.Fd() // blocks from now on, as a standard descriptor does
		stdout = w
		go func() {
			b, _ := io.ReadAll(r)
			r.Close()
			collected <- b
		}()
	}
	var stderr bytes.Buffer
	o.Status = run(stdin, stdout, &stderr)
	if s.from != "" {
		o.Offset, err = stdin.Seek(0, io.SeekCurrent)
		must(err)
	}
	must(stdout.Close())
	o.Stdout = string(<-collected)
	o.Stderr = elapsed.ReplaceAllString(stderr.String(), "copied, T, R")
	o.Files = listing(t)
	return o
}

// difference is what differs between two outcomes.
func difference(want, got outcome) string {
	var b strings.Builder
	for _, f := range []struct {
		name      string
		want, got any
	}{
		{"status", want.Status, got.Status},
		{"stderr", want.Stderr, got.Stderr},
		{"stdout", want.Stdout, got.Stdout},
		{"files", want.Files, got.Files},
		{"offset", want.Offset, got.Offset},
	} {
		if f.want != f.got {
			fmt.Fprintf(&b, "%s: dd %.600q\n%s: us %.600q\n", f.name, f.want, f.name, f.got)
		}
	}
	return b.String()
}

// listing describes the files of the current directory.
func listing(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	list := func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d", name, info.Mode(), info.Size())
		if info.Mode().IsRegular() && info.Size() < 1<<30 {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if len(content) < 1<<14 {
				fmt.Fprintf(&b, " %q", content)
			} else {
				fmt.Fprintf(&b, " %x", sha256.Sum256(content))
			}
		}
		b.WriteByte('\n')
		return nil
	}
	for _, dir := range []string{".", "small/"} {
		if err := filepath.WalkDir(dir, list); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return b.String()
}

// gnu runs the machine's own dd.
func (s *scene) gnu(t *testing.T, program string) func(stdin, stdout *os.File, stderr io.Writer) int {
	return func(stdin, stdout *os.File, stderr io.Writer) int {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, s.args...)
		cmd.Args[0] = "dd"
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
		cmd.Env = append(os.Environ(), s.env...)
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
			t.Fatalf("dd %q: %v, %v", s.args, err, ctx.Err())
		}
		return cmd.ProcessState.ExitCode()
	}
}

// ours runs a Job in this process, with nothing between it and its output.
func (s *scene) ours(t *testing.T) func(stdin, stdout *os.File, stderr io.Writer) int {
	return func(stdin, stdout *os.File, stderr io.Writer) int {
		env := map[string]string{"LC_ALL": "C"}
		for _, e := range s.env {
			k, v, _ := strings.Cut(e, "=")
			env[k] = v
		}
		locale := LocaleOf(func(k string) string { return env[k] })
		plan, warnings, err := locale.Parse(s.args)
		for _, w := range warnings {
			fmt.Fprintf(stderr, "dd: %s\n", w)
		}
		if err != nil {
			fmt.Fprintf(stderr, "dd: %v\n", err)
			var e *Error
			if errors.As(err, &e) && e.Help {
				fmt.Fprintf(stderr, "Try 'dd --help' for more information.\n")
			}
			return 1
		}
		j := &Job{Plan: plan, Locale: locale, Stdin: stdin, Stderr: stderr}
		if err := j.OpenInput(); err != nil {
			return 1
		}
		f := stdout
		if plan.HasOut {
			if j.TooLarge() {
				return 1
			}
			if f, err = j.OpenOutput(); err != nil {
				return j.FailedToOpen(err)
			}
		}
		status, err := j.Copy(context.Background(), f, plan.HasOut)
		if err != nil {
			t.Error(err)
		}
		return status
	}
}

// text is bytes as they are in texts and in images: letters, lines, spaces, zeros.
func text(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; {
		run := min(1+r.IntN(12), n-i)
		switch r.IntN(6) {
		case 0:
			i += run // zeros
		case 1:
			for range run {
				b[i] = ' '
				i++
			}
		case 2:
			b[i] = '\n'
			i++
		case 3:
			b[i] = byte(r.IntN(256))
			i++
		default:
			for range run {
				b[i] = byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"[r.IntN(62)])
				i++
			}
		}
	}
	return b
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func maybe(r *rand.Rand, one, in int) bool { return r.IntN(in) < one }

// list picks some of the symbols.
func list(r *rand.Rand, of ...string) string {
	var out []string
	for range 1 + r.IntN(3) {
		out = append(out, pick(r, of...))
	}
	return strings.Join(out, ",")
}

// generate makes up a scene.
func generate(r *rand.Rand) *scene {
	size := pick(r, 0, 1, 10, 100, 511, 512, 513, 2000, 4096, 5000)
	s := &scene{
		files: map[string][]byte{"in": text(r, size), "old": text(r, pick(r, 0, 3, 700, 6000)), "dir": nil},
		links: map[string]string{"link": "old", "dangling": "nothing", "inlink": "in"},
		env:   []string{"LC_ALL=" + pick(r, "C", "C.UTF-8")},
	}
	add := func(format string, args ...any) { s.args = append(s.args, fmt.Sprintf(format, args...)) }
	number := func() string {
		return pick(r, "0", "1", "2", "3", "5", "7", "10", "13", "100", "1b", "1w", "3x2", "2x", "1kB", "1K", "10B", "3B", "1KiB", "0x2", "512", "1M", "4096")
	}
	block := func() string {
		return pick(r, "1", "2", "3", "5", "7", "10", "16", "64", "100", "511", "512", "513", "1K", "1kB", "4096", "1M", "2x5", "0", "0x10")
	}
	endless := false // input
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		for range r.IntN(8) {
			s.stdin = append(s.stdin, text(r, 1+r.IntN(pick(r, 5, 600, 4000))))
		}
	case 4, 5:
		s.from, s.pass = "in", int64(pick(r, 0, 0, 1, 50, 600, 5000))
	case 6:
		add("if=%s", pick(r, "missing", "dir", "inlink", "dir/x", "in/x", "mis sing", "it's", "a:b", "ü", ""))
	case 7:
		add("if=%s", pick(r, "/dev/zero", "/dev/full"))
		add("count=%d", r.IntN(4))
		endless = true
	default:
		add("if=in")
	}
	switch r.IntN(12) {
	case 0, 1:
		add("of=new")
	case 2, 3:
		add("of=old")
	case 4:
		add("of=%s", pick(r, "dir", "dir/new", "missing/new", "in/x", "link", "dangling", "a b", "it's", "", "-"))
	case 5:
		add("of=%s", pick(r, "/dev/null", "/dev/full"))
	case 6, 7:
		s.to, s.append = pick(r, "old", "new"), maybe(r, 1, 2)
	}
	if maybe(r, 1, 2) {
		add("bs=%s", block())
	}
	if maybe(r, 1, 3) {
		add("ibs=%s", block())
	}
	if maybe(r, 1, 3) {
		add("obs=%s", block())
	}
	if maybe(r, 1, 3) {
		add("%s=%s", pick(r, "skip", "iseek"), number())
	}
	if maybe(r, 1, 3) {
		add("%s=%s", pick(r, "seek", "oseek"), number())
	}
	if !endless && maybe(r, 1, 3) {
		add("count=%s", number())
	}
	if maybe(r, 1, 2) {
		add("conv=%s", list(r, "ascii", "ebcdic", "ibm", "block", "unblock", "lcase", "ucase", "sparse", "swab", "sync", "excl", "nocreat", "notrunc", "notrunc", "fdatasync", "fsync"))
	}
	if maybe(r, 1, 3) {
		add("cbs=%s", block())
	}
	if maybe(r, 1, 4) {
		add("iflag=%s", list(r, "fullblock", "fullblock", "direct", "directory", "nocache", "noatime", "noctty", "nofollow", "count_bytes", "skip_bytes", "sync", "dsync", "append"))
	}
	if maybe(r, 1, 4) {
		add("oflag=%s", list(r, "append", "direct", "directory", "nocache", "noatime", "noctty", "nofollow", "seek_bytes", "sync", "dsync"))
	}
	if maybe(r, 1, 4) {
		add("status=%s", pick(r, "none", "noxfer", "progress", "none,noxfer"))
	}
	if maybe(r, 1, 40) {
		add("%s", pick(r, "foo", "foo=1", "conv=x", "iflag=x", "oflag=fullblock", "status=x", "bs=", "of", "bs=1Q", "count=1Z", "é=1"))
	}
	r.Shuffle(len(s.args), func(i, j int) { s.args[i], s.args[j] = s.args[j], s.args[i] })
	return s
}

// compare plays scenes with dd and with a Job.
func compare(t *testing.T, scenes int, generate func(r *rand.Rand) *scene) {
	program := testkit.GNUdd(t)
	seed := testkit.Seed(t)
	failures := 0
	for i := range scenes {
		s := generate(rand.New(rand.NewPCG(seed, uint64(i))))
		want := s.play(t, s.gnu(t, program))
		got := s.play(t, s.ours(t))
		if got != want {
			t.Errorf("scene %d of seed %d: dd %q, stdin %d reads or %q at %d, stdout %q\n%s", i, seed, s.args, len(s.stdin), s.from, s.pass, s.to, difference(want, got))
			if failures++; failures == 10 {
				t.Fatal("and more")
			}
		}
	}
}

// TestOracle compares what can be seen of dd with what can be seen of a Job, for
// operands that nobody chose.
func TestOracle(t *testing.T) {
	t.Chdir(inMemory(t))
	compare(t, 3000, generate)
}

// TestOracleBulk does the same with inputs of which much is moved at once, and
// outputs that become full.
func TestOracleBulk(t *testing.T) {
	dir := inMemory(t)
	small := ""
	if os.Geteuid() == 0 {
		small = t.TempDir()
		if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=1200k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(small, 0); err != nil {
				t.Error(err)
			}
		})
	}
	t.Chdir(dir)
	r := rand.New(rand.NewPCG(testkit.Seed(t), 0))
	contents := [][]byte{text(r, 600<<10), text(r, 1<<20), text(r, 2<<20+77), make([]byte, 1<<20)}
	compare(t, 150, func(r *rand.Rand) *scene {
		s := &scene{files: map[string][]byte{"in": pick(r, contents...), "old": pick(r, contents...)[:300<<10]}, links: map[string]string{}}
		add := func(format string, args ...any) { s.args = append(s.args, fmt.Sprintf(format, args...)) }
		switch r.IntN(4) {
		case 0:
			s.from, s.pass = "in", int64(pick(r, 0, 1, 512, 100000))
		case 1:
			add("if=/dev/zero")
			s.pass = 1
		default:
			add("if=in")
		}
		if s.pass > 0 && s.from == "" || maybe(r, 1, 3) {
			add("count=%s", pick(r, "1", "2", "100", "1000", "600000B", "1MB", "1000000B"))
		}
		switch r.IntN(6) {
		case 0:
			s.to, s.append = pick(r, "old", "new"), maybe(r, 1, 2)
		case 1:
			add("of=/dev/null")
		case 2, 3:
			if small != "" {
				s.links["small"] = small
				add("of=small/%s", pick(r, "new", "old"))
				break
			}
			fallthrough
		default:
			add("of=%s", pick(r, "new", "old", "in"))
		}
		switch b := pick(r, "512", "1000", "4096", "7777", "64K", "100000", "1M", "300000", "3M"); r.IntN(3) {
		case 0:
			add("bs=%s", b)
		case 1:
			add("ibs=%s", b)
			add("obs=%s", b)
		default:
			add("bs=%s", b)
			add("ibs=512")
		}
		if maybe(r, 1, 4) {
			add("skip=%s", pick(r, "1", "100", "1000B"))
		}
		if maybe(r, 1, 4) {
			add("seek=%s", pick(r, "1", "3", "1000B"))
		}
		if maybe(r, 1, 2) {
			add("conv=%s", list(r, "notrunc", "sparse", "sync", "fsync", "swab", "ucase"))
		}
		if maybe(r, 1, 4) {
			add("oflag=%s", list(r, "append", "direct", "nocache", "sync"))
		}
		if maybe(r, 1, 4) {
			add("iflag=%s", list(r, "fullblock", "direct", "nocache"))
		}
		return s
	})
}

// inMemory is a directory that costs nothing to sync.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "imgward-dd.")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
