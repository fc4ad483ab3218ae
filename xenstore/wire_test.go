package xenstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"imgward/internal/testkit"
)

// A wireCase is one line of testdata/wire/messages.txt.
type wireCase struct {
	name    string
	request bool
	op      op
	id      uint32
	args    []string // of a request; of a reply the whole payload
	bytes   []byte
}

// payload returns the payload that the line tells in words.
func (w wireCase) payload() string {
	if !w.request {
		return w.args[0]
	}
	if w.op == opWrite {
		return strings.Join(w.args, "\x00")
	}
	return strings.Join(w.args, "\x00") + "\x00"
}

// wireCases reads the table of recorded messages.
func wireCases(t testing.TB) []wireCase {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		testkit.Missing(t, "a little-endian machine")
	}
	text, err := os.ReadFile("../testdata/wire/messages.txt")
	if err != nil {
		t.Fatal(err)
	}
	ops := map[string]op{}
	for _, o := range []op{opDirectory, opRead, opWatch, opUnwatch, opEvent, opError, opDirectoryPart, opWrite, opRemove} {
		ops[o.String()] = o
	}
	var cases []wireCase
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		w := wireCase{name: fmt.Sprintf("line%d", i+1), request: line[0] == '>'}
		words, raw, _ := strings.Cut(line, " = ")
		fields := strings.SplitN(words, " ", 4)
		w.op = ops[fields[1]]
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || w.op == 0 {
			t.Fatalf("%s: cannot read %q", w.name, line)
		}
		w.id = uint32(id)
		for rest := fields[3]; rest != ""; rest = strings.TrimPrefix(rest, " ") {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			arg, _ := strconv.Unquote(quoted)
			w.args = append(w.args, arg)
			rest = rest[len(quoted):]
		}
		if w.bytes, err = hex.DecodeString(strings.ReplaceAll(raw, " ", "")); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		cases = append(cases, w)
	}
	if len(cases) < 30 {
		t.Fatalf("only %d messages in the table", len(cases))
	}
	return cases
}

func TestEncode(t *testing.T) {
	for _, w := range wireCases(t) {
		if !w.request {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			got, err := appendMessage([]byte("before"), header{op: w.op, id: w.id}, w.args...)
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]byte("before"), w.bytes...); !bytes.Equal(got, want) {
				t.Errorf("encoded\n%x, want\n%x", got, want)
			}
		})
	}
}

func TestDecodeHoweverItArrives(t *testing.T) {
	splits := map[string]func(io.Reader) io.Reader{
		"whole":   func(r io.Reader) io.Reader { return r },
		"byte":    iotest.OneByteReader,
		"half":    iotest.HalfReader,
		"dataerr": iotest.DataErrReader,
	}
	for how, split := range splits {
		t.Run(how, func(t *testing.T) {
			var stream []byte
			cases := wireCases(t)
			for _, w := range cases {
				stream = append(stream, w.bytes...)
			}
			r := split(bytes.NewReader(stream))
			for _, w := range cases {
				h, body, err := readMessage(r)
				if err != nil {
					t.Fatalf("%s: %v", w.name, err)
				}
				if h.op != w.op || h.id != w.id || h.tx != 0 || string(body) != w.payload() {
					t.Errorf("%s: decoded %v id %d tx %d %q, want %v id %d %q",
						w.name, h.op, h.id, h.tx, body, w.op, w.id, w.payload())
				}
			}
			if _, _, err := readMessage(r); err != io.EOF {
				t.Errorf("after the last message: %v, want EOF", err)
			}
		})
	}
}

// TestCutMessage says that no prefix of a message passes for one.
func TestCutMessage(t *testing.T) {
	whole := wireCases(t)[0].bytes
	for n := 1; n < len(whole); n++ {
		_, _, err := readMessage(bytes.NewReader(whole[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v, want an unexpected EOF", n, len(whole), err)
		}
	}
}

func TestPayloadLimits(t *testing.T) {
	for n, ok := range map[int]bool{maxSend - 2: true, maxSend - 1: true, maxSend: false} {
		_, err := appendMessage(nil, header{op: opRead}, strings.Repeat("a", n))
		if (err == nil) != ok {
			t.Errorf("send %d bytes and a NUL: %v", n, err)
		}
	}
	for n, ok := range map[uint32]bool{maxReceive - 1: true, maxReceive: true, maxReceive + 1: false, 1<<32 - 1: false} {
		var raw [headerSize]byte
		binary.NativeEndian.PutUint32(raw[12:], n)
		if _, err := parseHeader(raw); (err == nil) != ok {
			t.Errorf("receive %d bytes: %v", n, err)
		}
	}
}

// TestChangesClaimsOnly says that the encoder makes no message that could change
// anything in a store but a claim.
func TestChangesClaimsOnly(t *testing.T) {
	sends := func(path string) (sent []op) {
		for o := op(0); o < 100; o++ {
			b, err := appendMessage(nil, header{op: o}, path, "x")
			if err == nil {
				sent = append(sent, o)
			} else if len(b) > 0 {
				t.Errorf("%v of %s: refused, and %d bytes made", o, path, len(b))
			}
		}
		return sent
	}
	reads := []op{opDirectory, opRead, opWatch, opUnwatch, opDirectoryPart}
	both := []op{opDirectory, opRead, opWatch, opUnwatch, opWrite, opRemove, opDirectoryPart}
	for path, want := range map[string][]op{
		"/": reads, "/a": reads, "": reads, "vm": reads, "backend": reads, "backend/vbd": reads,
		"backend/vbd/3276": reads, "backend/vbd/327600": reads, "backend/vbd/327600/1": reads, "backend/vbd/7/51712": reads,
		"/local/domain/32760/name": reads, "/local/domain/32760/vm/x": reads, "/local/domain/7/vm": reads, "/local/domain": reads,
		"/local/domain/0/backend/vbd/32760/1": reads, "/backend/vbd/32760/1": reads,
		"/local/domain/32760":      {opDirectory, opRead, opWatch, opUnwatch, opRemove, opDirectoryPart},
		"/local/domain/32760/vm":   both,
		"backend/vbd/32760":        both,
		"backend/vbd/32760/1":      both,
		"backend/vbd/32760/1/mode": both,
	} {
		if sent := sends(path); !slices.Equal(sent, want) {
			t.Errorf("%q: sends %v, want %v", path, sent, want)
		}
	}
	for _, parts := range [][]string{{"/a\x00/b"}, {"backend/vbd/32760/1/mode", "w\x00"}, {"backend/vbd/32760/1\x00", "w"}} {
		for _, o := range []op{opRead, opWrite} {
			if _, err := appendMessage(nil, header{op: o}, parts...); err == nil {
				t.Errorf("%v: a NUL within an argument was sent: %q", o, parts)
			}
		}
	}
}

func TestParseNames(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
		ok   bool
	}{
		{"", []string{}, true},
		{"a\x00", []string{"a"}, true},
		{"a\x00bc\x00", []string{"a", "bc"}, true},
		{"\x01\n\x00", []string{"\x01\n"}, true},
		{"a", nil, false},
		{"a\x00b", nil, false},
		{"\x00", nil, false},
		{"a\x00\x00", nil, false},
	} {
		got, err := parseNames([]byte(c.in))
		if (err == nil) != c.ok || !slices.Equal(got, c.want) || c.ok && got == nil {
			t.Errorf("parseNames(%q) = %q, %v", c.in, got, err)
		}
	}
}

func TestParsePart(t *testing.T) {
	for _, c := range []struct {
		in   string
		want part
		ok   bool
	}{
		{"7\x00\x00", part{"7", []byte(""), true}, true},
		{"7\x00a\x00\x00", part{"7", []byte("a\x00"), true}, true},
		{"7\x00a\x00b\x00", part{"7", []byte("a\x00b\x00"), false}, true},
		{"7\x00a\x00b", part{}, false},
		{"7\x00a", part{}, false},
		{"7\x00", part{}, false},
		{"7", part{}, false},
		{"\x00a\x00\x00", part{}, false},
		{"", part{}, false},
	} {
		got, err := parsePart([]byte(c.in))
		if (err == nil) != c.ok || got.generation != c.want.generation ||
			!bytes.Equal(got.names, c.want.names) || got.last != c.want.last {
			t.Errorf("parsePart(%q) = %+v, %v", c.in, got, err)
		}
	}
}

func TestParseEvent(t *testing.T) {
	for _, c := range []struct {
		in, path, token string
		ok              bool
	}{
		{"/a\x001\x00", "/a", "1", true},
		{"\x00\x00", "", "", true},
		{"/a\x001\x00more", "/a", "1", true},
		{"/a\x001", "", "", false},
		{"/a", "", "", false},
		{"", "", "", false},
	} {
		path, token, err := parseEvent([]byte(c.in))
		if (err == nil) != c.ok || path != c.path || token != c.token {
			t.Errorf("parseEvent(%q) = %q, %q, %v", c.in, path, token, err)
		}
	}
}

func TestParseError(t *testing.T) {
	for name, errno := range errnos {
		for _, payload := range []string{name, name + "\x00"} {
			if err := parseError([]byte(payload)); err != errno {
				t.Errorf("parseError(%q) = %v", payload, err)
			}
		}
	}
	for _, payload := range []string{"EQUOTA\x00", "", "\x00", "\x1b[2J\n", strings.Repeat("x", maxReceive)} {
		err := parseError([]byte(payload))
		var errno syscall.Errno
		switch {
		case err == nil || errors.As(err, &errno):
			t.Errorf("parseError(%.20q) = %v, want an error that is no errno", payload, err)
		case len(err.Error()) > 100 || strings.ContainsAny(err.Error(), "\x1b\n"):
			t.Errorf("parseError(%.20q) is not fit to print: %q", payload, err)
		}
	}
	if got := parseError([]byte("EQUOTA\x00")).Error(); !strings.Contains(got, `"EQUOTA"`) {
		t.Errorf("the name is lost: %s", got)
	}
}

func TestCheckPath(t *testing.T) {
	long := func(prefix string, n int) string { return prefix + strings.Repeat("a", n-len(prefix)) }
	for path, ok := range map[string]bool{
		"/":                          true,
		"/local/domain/0":            true,
		"/A-z_9@":                    true,
		"backend":                    true,
		"@introduceDomain":           true,
		"":                           false,
		"//":                         false,
		"/a/":                        false,
		"a/":                         false,
		"/a//b":                      false,
		"/a\x00":                     false,
		"/a b":                       false,
		"/a.b":                       false,
		"/\u00e9":                    false,
		long("/", maxAbsPath-1):      true,
		long("/", maxAbsPath):        true,
		long("/", maxAbsPath+1):      false,
		long("a", maxRelPath-1):      true,
		long("a", maxRelPath):        true,
		long("a", maxRelPath+1):      false,
		"/local/domain/0/\nbackend":  false,
		"/local/domain/../0/backend": false,
	} {
		err := checkPath(path)
		if (err == nil) != ok || !ok && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("checkPath(%.30q of %d) = %v", path, len(path), err)
		}
	}
}

// FuzzParse says that no bytes from the daemon bring the client down or make it
// allocate beyond the cap, and that what it sends reads back as what was meant.
func FuzzParse(f *testing.F) {
	for _, w := range wireCases(f) {
		f.Add(w.bytes)
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, headerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := readMessage(bytes.NewReader(b))
		if err == nil {
			if len(body) != int(h.size) || cap(body) > maxReceive {
				t.Fatalf("header says %d bytes, payload has %d, capacity %d", h.size, len(body), cap(body))
			}
			for _, want := range []op{opRead, opDirectory, opDirectoryPart} {
				if _, err := (reply{op: h.op, body: body}).payload(want); err == nil && h.op != want {
					t.Fatalf("a reply of kind %v passes for %v", h.op, want)
				}
			}
			if names, err := parseNames(body); err == nil {
				if again := strings.Join(append(names, ""), "\x00"); again != string(body) {
					t.Fatalf("names %q read from %q", names, body)
				}
			}
			if p, err := parsePart(body); err == nil && len(p.names) == 0 && !p.last {
				t.Fatalf("part %q makes no progress", body)
			}
			parseEvent(body)
			if err := parseError(body); err == nil || len(err.Error()) > 400 {
				t.Fatalf("error %v read from %q", err, body)
			}
		}

		args := strings.Split(string(b), "\x00")
		msg, err := appendMessage(nil, header{op: opWatch, id: 7}, args...)
		if err != nil {
			return
		}
		h, body, err = readMessage(bytes.NewReader(msg))
		if err != nil || h.op != opWatch || h.id != 7 || string(body) != string(b)+"\x00" {
			t.Fatalf("sent %q, read back %+v %q, %v", args, h, body, err)
		}
	})
}
