package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imgward/guard"
	"imgward/imageops/ddcmd"
	"imgward/internal/testkit"
)

// program builds the program, once, and gives its path.
func program(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "imgward")
	if err != nil {
		return "", err
	}
	removeAfterwards = append(removeAfterwards, dir)
	path := filepath.Join(dir, "imgward")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, os.Symlink(path, filepath.Join(dir, "dd"))
})

// removeAfterwards are directories that several tests share.
var removeAfterwards []string

// dd's own options are taken as getopt_long(3) takes them.
func TestOptionsOfDD(t *testing.T) {
	for _, tt := range []struct {
		words  string
		strict bool
		want   string // operands, an option, or an error
	}{
		{"if=a of=b", false, "if=a of=b"},
		{"-- --help", false, "--help"},
		{"if=a -- of=b --", false, "if=a of=b --"},
		{"- if=a", false, "- if=a"},
		{"--help", false, "help"},
		{"if=a --version of=b", false, "version"},
		{"--he", false, "help"},
		{"--v", false, "version"},
		{"if=a --help", true, "if=a --help"},
		{"--help if=a", true, "help"},
		{"--help=x", false, "option '--help' doesn't allow an argument"},
		{"--v=", false, "option '--version' doesn't allow an argument"},
		{"foo --bogus", false, "unrecognized option '--bogus'"},
		{"--helpme", false, "unrecognized option '--helpme'"},
		{"-xy", false, "invalid option -- 'x'"},
	} {
		operands, option, err := ddOptions(strings.Fields(tt.words), tt.strict)
		got := strings.Join(operands, " ") + option
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: %q, want %q", tt.words, got, tt.want)
		}
	}
}

// Scripts as they are written around dd: for images, loaders, swap, measurements,
// pipes. Each runs in a directory of its own, which has a file "disk" of 4 MiB and
// one "text"; $LOOP is a device of 2 MiB. What they print, how they end and what
// they leave is the same with dd, with a shell's function or alias, and with a link
// of dd's name on the path.
var ddScripts = []struct{ name, script string }{
	{"boot sector", `
		dd if=/dev/zero of=boot.img bs=1M count=4
		printf '\353\074loader' | dd of=boot.img conv=notrunc
		printf '\125\252' | dd of=boot.img bs=1 seek=510 conv=notrunc status=none
		dd if=text of=boot.img bs=512 seek=1 conv=notrunc,sync 2>&1`},
	{"loader of a board", `
		cp disk card.img
		dd if=text of=card.img bs=1k seek=8 conv=notrunc,fsync
		dd if=text of=card.img bs=512 seek=1K conv=notrunc oflag=seek_bytes
		dd if=text of=card.img bs=1 seek=40960 count=440 conv=notrunc status=noxfer`},
	{"MBR kept and put back", `
		dd if=disk of=mbr bs=446 count=1
		dd if=/dev/zero of=disk bs=512 count=1 conv=notrunc
		dd if=mbr of=disk bs=446 count=1 conv=notrunc`},
	{"image with a file system", `
		set -e
		dd if=/dev/zero of=root.img bs=1 count=0 seek=8M
		mkfs.ext4 -q -F -U 6e1a6c3c-6e0a-4f5f-9d3b-0a0c0e0d0f00 -E hash_seed=6e1a6c3c-6e0a-4f5f-9d3b-0a0c0e0d0f00 root.img
		dd if=root.img bs=1 skip=1080 count=2 2>/dev/null | od -An -tx1
		rm root.img`},
	{"floppy", `
		dd if=/dev/zero of=floppy.img bs=1440k count=1 2>log
		dd if=text of=floppy.img seek=3 conv=notrunc 2>>log
		cat log; rm log`},
	{"swap file", `
		umask 077
		dd if=/dev/zero of=swapfile bs=1M count=8 status=none && mkswap -U 6e1a6c3c-6e0a-4f5f-9d3b-0a0c0e0d0f00 swapfile >/dev/null
		stat -c '%a %s' swapfile`},
	{"measurements", `
		dd if=/dev/zero of=tmp bs=1M count=8 conv=fdatasync
		dd if=tmp of=/dev/null bs=4k
		dd if=/dev/zero of=tmp bs=512 count=20 oflag=dsync
		dd if=/dev/zero of=tmp bs=64k count=16 oflag=direct conv=notrunc
		dd if=/dev/zero of=/dev/null bs=1M count=50`},
	{"over a line", `
		dd if=disk bs=64k 2>log | gzip -1 | cat | gunzip | dd of=copy bs=1M iflag=fullblock; cat log; rm log
		cmp disk copy
		tar cf - text | dd bs=10k status=none | tar tf -
		dd if=disk status=none | dd bs=4k 2>/dev/null | dd of=copy2 ibs=10k obs=1M iflag=fullblock conv=notrunc`},
	{"pieces of one input", `
		{ dd bs=1 count=3; dd bs=1 skip=2 count=4; dd count=1; cat; } <text >pieces
		( dd bs=1k count=2 of=first; dd bs=1k of=rest ) <disk
		dd bs=512 count=3 <disk >>pieces; dd if=text >>pieces; dd if=text >new`},
	{"values read", `
		magic=$(dd if=disk bs=1 skip=510 count=2 2>/dev/null | od -An -tx1)
		size=$(dd if=disk bs=4 count=1 skip=3 status=none | od -An -tu4)
		echo $magic $size
		while IFS= read -r line; do echo "$line" | dd conv=ucase status=none; done <text | head -n 5
		dd if=/dev/urandom bs=16 count=1 2>/dev/null | wc -c`},
	{"input without end", `
		yes | dd bs=1k count=100 iflag=fullblock of=answers
		dd if=/dev/zero bs=64k 2>/dev/null | head -c 1000 | wc -c
		dd if=/dev/zero 2>/dev/null | dd count=3 of=/dev/null; echo ${PIPESTATUS[@]}`},
	{"errors that are looked at", `
		if dd if=missing of=out 2>err; then echo wrong; else echo "status $?"; fi
		cat err; rm err
		dd if=text of=/dev/full || echo "full: $?"
		dd if=text of=missing/x || echo "no directory: $?"
		dd if=text of=. || echo "a directory: $?"
		dd if=text of=text2 conv=excl && dd if=disk of=text2 conv=excl || echo "there: $?"
		dd bs=x || echo "number: $?"
		dd if=text of=nothing conv=nocreat || echo "none: $?"
		dd if=text skip=1000 || echo never
		ls`},
	{"errors that end it", `
		set -e
		dd if=text of=ok
		dd if=missing of=bad
		echo never`},
	{"records", `
		dd if=text cbs=20 conv=block,ucase of=cards
		dd if=cards cbs=20 conv=unblock,lcase
		dd if=text conv=ebcdic cbs=32 status=none | dd conv=ascii cbs=32 iflag=fullblock | cksum
		dd if=text conv=swab status=none | dd conv=swab status=none | cmp - text`},
	{"in place", `
		dd if=text of=text conv=notrunc,ucase bs=64
		dd if=disk of=disk bs=4k seek=100 count=10 conv=notrunc
		dd if=/dev/null of=disk bs=1M seek=3
		dd of=disk bs=1k seek=100 count=0
		: | dd of=text
		dd if=disk of=tail oflag=append conv=notrunc; dd if=text of=tail oflag=append`},
	{"holes", `
		dd if=disk of=sparse conv=sparse bs=64k
		cmp disk sparse
		dd if=/dev/zero of=zeros conv=sparse bs=1M count=3`},
	{"names", `
		dd if=text of='a name' bs=100; dd if=text of="it's"; ln -s new link; dd if=text of=link status=none
		dd if='a name' of=-n; dd if=./-n count=1 status=none; dd if=$'new\nline' of=x; dd if=missing:x
		dd -- if=text of=y status=none; dd --nonsense; dd -n; ls -l link | sed 's/.* link/link/'`},
	{"a device", `
		dd if=text of=$LOOP bs=512 seek=4 conv=notrunc,sync
		dd if=disk of=$LOOP bs=1M count=1
		dd if=disk of=$LOOP bs=64k count=4 seek=16 oflag=direct
		dd if=$LOOP of=back bs=1M; cmp -n 1048576 disk back
		dd if=$LOOP bs=512 skip=4096; dd if=$LOOP bs=512 skip=4097; dd if=text of=$LOOP seek=5000
		dd if=/dev/zero of=$LOOP bs=300k || echo "its end: $?"
		dd if=/dev/zero of=$LOOP bs=512 conv=fsync || echo "its end: $?"
		dd if=disk of=$LOOP bs=1M oflag=direct || echo "its end: $?"
		cat text >text3; dd if=text3 of=$LOOP oflag=direct bs=4096 || echo "$?"
		dd if=text count=1 >$LOOP; dd if=$LOOP bs=4096 count=1 of=start`},
}

// elapsed is what no two runs of dd have in common.
var elapsed = regexp.MustCompile(`copied, [^,\n]* s, [^\n]*/s`)

func TestRealScripts(t *testing.T) {
	dd := testkit.GNUdd(t)
	testkit.Need(t, "root", "bash", "losetup", "mkfs.ext4", "mkswap")
	bin := program(t)
	dir := lab(t)
	device := loop(t, write(t, filepath.Join(dir, "loop.img"), 2<<20, 3))
	words := newWords(t, device)
	text := strings.Repeat("The quick brown Fox\njumps over the lazy dog, and \x00on\n  \n", 40)
	ways := []struct{ name, before string }{
		{"dd", "PATH=" + filepath.Dir(dd) + ":$PATH"},
		{"function", `dd() { imgward dd ` + words + ` "$@"; }`},
		{"alias", "shopt -s expand_aliases; alias dd='imgward dd " + words + "'"},
		{"link", "PATH=" + filepath.Dir(bin) + `:$PATH; dd() { command dd ` + words + ` "$@"; }`},
	}
	for _, s := range ddScripts {
		t.Run(s.name, func(t *testing.T) {
			var want string
			for _, way := range ways {
				work := filepath.Join(dir, "work")
				if err := os.RemoveAll(work); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(work, 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(work, "disk"), 4<<20, 1)
				if err := os.WriteFile(filepath.Join(work, "text"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(s.script, "$LOOP") {
					command(t, dd, "if="+filepath.Join(work, "disk"), "of="+device, "bs=1M", "count=2", "conv=fsync", "status=none")
				}
				cmd := exec.Command("env", "--default-signal=PIPE", "bash", "-c", way.before+"\n"+s.script+"\n")
				cmd.Dir = work
				cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":"+filepath.Dir(bin), "LOOP="+device)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				got := fmt.Sprintf("%s\nstatus %d\n%s", elapsed.ReplaceAll(out, []byte("copied, T, R")), cmd.ProcessState.ExitCode(),
					command(t, "sh", "-c", "cd "+work+" && find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -printf '%p %y %m %s %l\\n' | grep -v '^\\. ' | sort; sha256sum <"+device))
				if way.name == "dd" {
					want = got
				} else if got != want {
					t.Errorf("with the %s:\n%s\nwith dd:\n%s", way.name, got, want)
				}
			}
		})
	}
}

// newWords are what a host on which some process cannot be read makes necessary: for
// a device, and for a file that has a reader.
func newWords(t *testing.T, device string) string {
	t.Helper()
	for line := range strings.Lines(imgward(t, nil, "check", device).err) {
		if _, words, ok := strings.Cut(line, "add: "); ok {
			words = strings.ReplaceAll(strings.TrimSpace(words), "--override ", "--override=")
			return words + " " + strings.ReplaceAll(words, "blind.procfd", "blind.mounts")
		}
	}
	return ""
}

// Progress on a terminal: one line that is written over, and ended before anything
// else is said.
func TestProgressOnATerminal(t *testing.T) {
	dd := testkit.GNUdd(t)
	testkit.Need(t, "script")
	bin := program(t)
	lab(t)
	line := regexp.MustCompile(`(\r[0-9]+ bytes copied, [0-9]+ s, [^\r\n]*)+`)
	var want string
	for _, argv := range []string{dd, bin + " dd"} {
		t.Chdir(t.TempDir())
		out := command(t, "script", "-qec", "(printf 1234567; sleep 1.2; printf x; sleep 1.2; printf 89) | "+argv+" bs=9 of=out status=progress", "/dev/null")
		if !line.MatchString(out) {
			t.Errorf("%s shows no progress: %q", argv, out)
		}
		got := elapsed.ReplaceAllString(line.ReplaceAllString(out, "\rPROGRESS"), "copied, T, R")
		if want == "" {
			want = got
		} else if got != want {
			t.Errorf("%q\ndd: %q", got, want)
		}
	}
}

// What fails behind the copying is told without saying that nothing was written.
func TestFailureBehindTheCopying(t *testing.T) {
	closing := &fs.PathError{Op: "close", Path: "out", Err: syscall.EIO}
	left := &guard.LeftError{Path: "out", Err: syscall.EPERM}
	for _, tt := range []struct {
		err  error
		want []string
	}{
		{closing, []string{"dd: closing output file 'out': Input/output error"}},
		{left, []string{"imgward: withdraw the claim"}},
		{errors.Join(left, closing), []string{"dd: closing output file 'out': Input/output error", "imgward: withdraw the claim"}},
		{errors.New("give back the lease"), []string{"imgward: give back the lease"}},
	} {
		var said strings.Builder
		con := &console{out: &said, err: &said, getenv: func(string) string { return "" }}
		plan, _, err := ddcmd.Locale{}.Parse([]string{"of=out"})
		if err != nil {
			t.Fatal(err)
		}
		d := &ddRun{ui: &ui{con: con}, plan: plan, job: &ddcmd.Job{Plan: plan, Stderr: con.err}}
		if got := d.failed(tt.err); got != exitFailed {
			t.Errorf("%v: status %d", tt.err, got)
		}
		lines := strings.Split(strings.TrimSuffix(said.String(), "\n"), "\n")
		if len(lines) != len(tt.want) {
			t.Errorf("%v: %q", tt.err, lines)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%v: %q, want %q", tt.err, lines, tt.want)
			}
		}
	}
}

// A write that somebody stops ends its line of progress, and says how far it came,
// before it says why.
func TestStoppedDDSaysHowFar(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	bin := program(t)
	dir := lab(t)
	device := loop(t, write(t, filepath.Join(dir, "loop.img"), 1<<20, 1))
	k := talk(t, nil, append([]string{bin, "dd", "of=" + device, "bs=512", "status=progress"}, strings.Fields(newWords(t, device))...)...)
	for range 3 { // until a second has gone by, and there is a line of progress
		k.feed(t, 512)
		time.Sleep(time.Second)
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_ = k.cmd.Wait()
	want := regexp.MustCompile(`(?s)^(\r[^\n]*)+\n3\+0 records in\n3\+0 records out\n1536 bytes .*copied, T, R\nimgward: `)
	if got := k.said(); k.cmd.ProcessState.ExitCode() != exitIncomplete || !want.MatchString(got) {
		t.Errorf("%v: %q", k.cmd.ProcessState, got)
	}
}

// What the kernel shows as files holds no image: it is set as with dd.
func TestDDSetsTheKernel(t *testing.T) {
	bin := program(t)
	lab(t)
	for _, line := range []string{" of=/proc/self/oom_score_adj", " >/proc/self/oom_score_adj"} {
		if out, err := exec.Command("sh", "-c", "printf 900 | "+bin+" dd status=none"+line).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
}

// What is in use is refused with the guard's status, and is what it was before;
// nothing was truncated.
func TestRefusedDD(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	bin := program(t)
	dir := lab(t)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 1)
	before := sum(t, image)
	loop(t, image)
	for _, args := range [][]string{{"of=" + image}, {"of=" + image, "conv=notrunc", "seek=1"}, {"of=" + image, "oflag=append"}} {
		cmd := exec.Command(bin, append([]string{"dd", "if=/dev/zero", "count=1"}, args...)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != exitRefused || !bytes.Contains(out, []byte("nothing was written")) {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	cmd := exec.Command("sh", "-c", bin+" dd if=/dev/zero count=1 1<>"+image)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitRefused {
		t.Errorf("standard output: %v: %s", err, out)
	}
	if sum(t, image) != before {
		t.Error("the image was changed")
	}
}
