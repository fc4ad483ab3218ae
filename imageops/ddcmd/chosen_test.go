package ddcmd

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// chosen are command lines that chance would not find, one a line. The file "in"
// has ten bytes; the words are what a shell makes of them that knows no quotes but
// for $'...'-like \xNN.
const chosen = `
if=/dev/null of=f bs=1 seek=1K
if=/dev/null of=f bs=1 seek=1KB
if=/dev/null of=f bs=1 seek=1KiB
if=/dev/null of=f bs=1 seek=1KD
if=/dev/null of=f bs=1 seek=1KDB
if=/dev/null of=f bs=1 seek=1kiB
if=/dev/null of=f bs=1 seek=1KiD
if=/dev/null of=f bs=1 seek=1bB
if=/dev/null of=f bs=1 seek=1BB
if=/dev/null of=f bs=1 seek=1cB
if=/dev/null of=f bs=1 seek=1wB
if=/dev/null of=f bs=1 seek=1wK
if=/dev/null of=f bs=1 seek=K
if=/dev/null of=f bs=1 seek=b
if=/dev/null of=f bs=1 seek=B
if=/dev/null of=f bs=1 seek=bx2
if=/dev/null of=f bs=1 seek=x
if=/dev/null of=f bs=1 seek=x1
if=/dev/null of=f bs=1 seek=1x
if=/dev/null of=f bs=1 seek=2xB
if=/dev/null of=f bs=1 seek=2x+3
if=/dev/null of=f bs=1 seek=+1
if=/dev/null of=f bs=1 seek=++1
if=/dev/null of=f bs=1 seek=+K
if=/dev/null of=f bs=1 seek=-1
if=/dev/null of=f bs=1 seek=-0
if=/dev/null of=f bs=1 seek=\x201
if=/dev/null of=f bs=1 seek=\x0a\x09+1
if=/dev/null of=f bs=1 seek=1\x20
if=/dev/null of=f bs=1 seek=2x\x203
if=/dev/null of=f bs=1 seek=\x20K
if=/dev/null of=f bs=1 seek=07
if=/dev/null of=f bs=1 seek=0x
if=/dev/null of=f bs=1 seek=0x1
if=/dev/null of=f bs=1 seek=0xFF
if=/dev/null of=f bs=1 seek=00x1
if=/dev/null of=f bs=1 seek=0xK
if=/dev/null of=f bs=1 seek=1x0
if=/dev/null of=f bs=1 seek=2x0x
if=/dev/null of=f bs=1 seek=1.5
if=/dev/null of=f bs=1 seek=1e3
if=/dev/null of=f bs=1 seek=1M
if=/dev/null of=f bs=1 seek=1m
if=/dev/null of=f bs=1 seek=1MB
if=/dev/null of=f bs=1 seek=1GB
if=/dev/null of=f bs=1 seek=1Gi
if=/dev/null of=f bs=1 seek=0Y
if=/dev/null of=f bs=1 seek=1Y
if=/dev/null of=f bs=1 seek=1YB
if=/dev/null of=f bs=1 seek=1Yx0
if=/dev/null of=f bs=1 seek=1R
if=/dev/null of=f bs=1 seek=99999999999999999999
if=/dev/null of=f bs=1 seek=99999999999999999999x0
if=/dev/null of=f bs=1 seek=99999999999999999999R
if=/dev/null of=f bs=1 seek=1YQ
if=/dev/null of=f bs=1 seek=99999999999999999999x
if=/dev/null of=f bs=1 seek=2x99999999999999999999Q
if=/dev/null of=f bs=1 seek=1YQx2
if=/dev/null of=f bs=1 seek=99999999999999999999BB
if=/dev/null of=f bs=1 seek=18446744073709551615
if=/dev/null of=f bs=1 seek=9223372036854775808
if=/dev/null of=f bs=1 seek=9223372036854775807
if=/dev/null of=f bs=2 seek=9223372036854775807
if=/dev/null of=f bs=2 seek=9223372036854775807 conv=notrunc
if=/dev/null of=f bs=8 seek=1E
if=/dev/null of=f bs=7 seek=1E
if=nothing of=f bs=8 seek=2E
if=/dev/null of=dir/f bs=8 seek=2E
if=in skip=9223372036854775807 bs=2
if=in skip=1E bs=7
if=in skip=9223372036854775807B
skip=9223372036854775807B
seek=9223372036854775807B
skip=9223372036854775807 bs=2
if=/dev/zero of=/dev/null skip=1E bs=4 count=1
if=/dev/zero of=/dev/null seek=1E bs=4 count=1
if=/dev/zero of=/dev/null skip=4E bs=4 count=1
bs=9223372036854775807
bs=9223372036854775806
bs=0
ibs=0
obs=0
cbs=0
count=0
cbs=9223372036854775807
cbs=9223372036854775808
bs=1E
bs=1E count=0
bs=1E skip=1 count=0
bs=1E seek=1 count=0
if=/dev/zero bs=1E skip=1 count=0
if=/dev/zero ibs=1 obs=1E count=1
ibs=1E obs=1
foo
foo=1
if
=5
IF=in
if=
of=
iflag=
oflag=
conv=
conv=,
conv=lcase,
status=
status=foo
status=none,noxfer
status=noxfer,none
conv=foo,lcase
conv=lcase,ucase
conv=ascii,ebcdic
conv=ebcdic,ibm
conv=block,unblock
conv=block,unblock cbs=1
conv=ascii,block cbs=3
conv=ibm,unblock
conv=excl,nocreat of=f
iflag=direct,nocache
oflag=direct,nocache
oflag=fullblock
iflag=append
iflag=bogus
iflag=nolinks
iflag=cio
iflag=text
iflag=binary
oflag=bogus
oflag=text
oflag=append
oflag=append status=none
oflag=append conv=lcase,ucase
oflag=append,fullblock
iflag=directory count=0
oflag=directory count=0
iflag=directory if=dir
oflag=directory of=dir
oflag=directory of=in
iflag=nofollow if=link
oflag=nofollow of=link
conv=excl of=in if=/dev/null
conv=excl of=dangling if=/dev/null
conv=nocreat of=f
conv=nocreat of=in if=/dev/null
of=dangling if=in
of=in/f
of=dir
of=nodir/f
of=loop
if=loop
if=dir
if=dir conv=fsync
if=in/f
if=in of=/dev/full
if=in of=/dev/full bs=5
if=in of=/dev/full bs=5 conv=fsync
if=in of=/dev/full obs=5 conv=fsync
if=in of=/dev/full bs=5 conv=fdatasync
if=in conv=fsync
if=in conv=fdatasync
if=in seek=3 conv=fsync
if=dir bs=5 conv=fsync
if=/proc/self/mem bs=5 conv=noerror,sync count=3
if=/proc/self/mem bs=5 conv=sync count=3
if=/proc/self/mem bs=5 conv=noerror,sync count=3 status=none
if=/proc/self/mem bs=5 conv=noerror,sync,block cbs=7 count=2
if=/proc/self/mem bs=5 skip=1 count=1
if=/proc/self/mem bs=4096 skip=9223372036854775807
if=/proc/version bs=10 count=2 of=/dev/null
if=/proc/version skip=1 of=/dev/null
if=/proc/version bs=7 skip=1000 of=/dev/null
iflag=nocache count=0
oflag=nocache count=0
iflag=nocache oflag=nocache count=0 if=in of=f
iflag=nocache oflag=nocache if=in of=f
iflag=nocache oflag=nocache
if=in of=f oflag=direct bs=3
if=in of=f oflag=direct
if=in of=f iflag=direct bs=4
if=in of=/dev/null oflag=direct
iflag=direct
iflag=noatime
oflag=nonblock
iflag=nonblock if=in
iflag=sync,dsync if=in oflag=sync,dsync of=f
if=in of=f seek=5B
if=in of=in seek=5B conv=notrunc bs=1 count=2
if=in of=f seek=3B skip=2B count=4B
if=in of=f oflag=seek_bytes iflag=skip_bytes,count_bytes seek=3 skip=2 count=4
if=in bs=3 count=2x2
if=in ibs=3 conv=sync
if=in bs=3 conv=sync
if=in ibs=3 conv=sync,block cbs=5
if=in cbs=3 conv=block
if=in cbs=3 conv=unblock
if=in cbs=5 conv=unblock
if=in cbs=10 conv=unblock
if=in conv=swab bs=3
if=in conv=swab bs=7
if=in conv=sparse of=f bs=1
if=/dev/zero conv=sparse of=f bs=10 count=3
if=/dev/zero conv=sparse bs=10 count=3
if=it's
if=a"'
if=a$b'
if=a'\x0ab
if=\x0a'
if='
if=''
if=a\x0a'b
if=\xc3\xa9
if=\xc3\xa9'
if=\x80'a
if=\xe2\x80
if=a\xe2\x80b
if=a\x0a\x80b\xff
if=\x5c
if=\x5c'
if=a\x20b'
if=0\x0a1
if=\x7f
if=~a
if=#a
if={
if=a:b
of=a:b skip=1 if=in
if=sp\x20ace skip=100
if=co:lon skip=100
if=sp'ace skip=100
if=plain-name_1.x skip=100
bs=\xe2\x80\x99
bs=a\x0ab
bs='
bs=\x5c
f\xc3\xa9o
foo\x5cbar'\x80
`

// TestOracleChosen compares dd with a Job on command lines of which each has a
// reason.
func TestOracleChosen(t *testing.T) {
	program := testkit.GNUdd(t)
	t.Chdir(inMemory(t))
	n := 0
	for line := range strings.Lines(chosen) {
		args := strings.Fields(line)
		for i := range args {
			args[i] = unescape(args[i])
		}
		for _, locale := range []string{"C", "C.UTF-8"} {
			s := &scene{
				files: map[string][]byte{
					"in": []byte("0123456789"), "dir": nil, "sp ace": {1}, "co:lon": {1}, "sp'ace": {1}, "plain-name_1.x": {1},
				},
				links: map[string]string{"link": "in", "dangling": "nothing", "loop": "loop"},
				stdin: [][]byte{[]byte("ab"), []byte("cde")},
				env:   []string{"LC_ALL=" + locale},
				args:  args,
			}
			want := s.play(t, s.gnu(t, program))
			if got := s.play(t, s.ours(t)); got != want {
				t.Errorf("%s: dd %q\n%s", locale, args, difference(want, got))
			}
		}
		n++
	}
	if n < 200 {
		t.Errorf("%d command lines", n)
	}
}

// unescape replaces \xNN.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\x`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		digit := func(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }
		b.WriteByte(digit(after[0])<<4 | digit(after[1]))
		s = after[2:]
	}
}

// A seek that is no number of bytes, in an output that can neither seek nor be read.
func TestSeekTooFarInAPipe(t *testing.T) {
	t.Chdir(inMemory(t))
	s := &scene{from: "/dev/zero", args: []string{"status=noxfer", "bs=2", "seek=9223372036854775807"}}
	got := s.play(t, s.ours(t))
	if got.Status != 1 || got.Stderr != "dd: 'standard output': cannot seek\n0+0 records in\n0+0 records out\n" {
		t.Errorf("status %d, %q", got.Status, got.Stderr)
	}
}

// The last byte of a swapped input can be the one that makes a record too long.
func TestLastByteTruncatesARecord(t *testing.T) {
	program := testkit.GNUdd(t)
	t.Chdir(inMemory(t))
	s := &scene{stdin: [][]byte{[]byte("abc")}, env: []string{"LC_ALL=C"}, args: []string{"cbs=2", "conv=block,swab", "of=out"}}
	want, got := s.play(t, s.gnu(t, program)), s.play(t, s.ours(t))
	if got != want || !strings.Contains(got.Stderr, "1 truncated record\n") {
		t.Errorf("%q\n%s", got.Stderr, difference(want, got))
	}
}

// A short read before a failed one does not surprise whoever reads behind that.
func TestFailedReadIsNoShortOne(t *testing.T) {
	j := newJob(t, "if=/dev/zero", "bs=512")
	j.previous = 100
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.read(&endpoint{fd: -1}, make([]byte, 512)); err == nil || j.previous > 0 {
		t.Errorf("%v, and the last read had %d bytes", err, j.previous)
	}
}

// A descriptor that reads nothing but an error says so, and what was read before
// is written.
func TestReadErrorAfterData(t *testing.T) {
	t.Chdir(inMemory(t))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := &scene{args: []string{"status=none", "ibs=3", "obs=4", "of=out"}}
	if got := s.ours(t)(r, nil, io.Discard); got != 0 {
		t.Errorf("status %d at the end of a pipe", got)
	}
	dir, err := os.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var stderr strings.Builder
	s.args = []string{"status=noxfer", "of=out"}
	if got := s.ours(t)(dir, nil, &stderr); got != 1 || !strings.Contains(stderr.String(), "error reading 'standard input': Is a directory\n0+0 records in\n") {
		t.Errorf("status %d, %q", got, stderr.String())
	}
}

// The reasons are strerror(3)'s, but for the ones of which Go has other words.
func TestReason(t *testing.T) {
	for err, want := range map[unix.Errno]string{
		unix.ENOENT: "No such file or directory", unix.EIO: "Input/output error", unix.ENOSPC: "No space left on device",
		unix.EOVERFLOW: "Value too large for defined data type", unix.EINVAL: "Invalid argument", unix.EISDIR: "Is a directory",
		unix.ESPIPE: "Illegal seek", unix.EFBIG: "File too large", unix.EACCES: "Permission denied", unix.ETXTBSY: "Text file busy",
		unix.EROFS: "Read-only file system", unix.ELOOP: "Too many levels of symbolic links", unix.ENXIO: "No such device or address",
	} {
		if got := reason(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
