package imageops

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A Sum is a digest and its kind.
type Sum struct {
	Kind  DigestKind
	Bytes []byte
}

// String is what ParseSum reads: the kind, a colon, and hexadecimal digits.
func (s Sum) String() string { return s.Kind.String() + ":" + hex.EncodeToString(s.Bytes) }

// ParseSum reads a digest such as sha256:0123...; the digits may be of either case.
func ParseSum(text string) (Sum, error) {
	name, digits, ok := strings.Cut(text, ":")
	kind, known := digestKind(name)
	if !ok || !known {
		return Sum{}, fmt.Errorf("digest %q: want blake3:HEX, sha256:HEX or sha512:HEX", text)
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != kind.Size() {
		return Sum{}, fmt.Errorf("digest %q: a %v digest is %d hexadecimal digits", text, kind, 2*kind.Size())
	}
	return Sum{kind, b}, nil
}

// digestKind is the kind that is called that; also as BSD's tools and lists of
// digests spell it.
func digestKind(name string) (DigestKind, bool) {
	switch strings.ReplaceAll(strings.ToLower(name), "-", "") {
	case "blake3", "b3":
		return BLAKE3, true
	case "sha256":
		return SHA256, true
	case "sha512":
		return SHA512, true
	}
	return DigestNone, false
}

// FindSum finds the digest of file in list, which holds what sha256sum(1),
// sha512sum(1) or b3sum(1) print, or their form with --tag. Lines that are none of
// these are passed over, so that a signature around them or remarks between them do
// no harm. name is that of the list itself (SHA256SUMS, x.b3): it tells the kind
// where a line does not and the number of digits can be of two. File names are
// compared without their directories.
//
// It is an error if the list has no digest of file, or two that differ.
func FindSum(list []byte, name, file string) (Sum, error) {
	fail := func(err error) (Sum, error) {
		return Sum{}, fmt.Errorf("digest of %q in %q: %w", file, name, err)
	}
	var found Sum
	for line := range strings.Lines(string(list)) {
		l, ok := parseSumLine(strings.TrimRight(line, "\r\n"))
		if !ok || base(l.file) != base(file) {
			continue
		}
		kind, err := l.kindIn(base(name))
		if err != nil {
			return fail(err)
		}
		switch {
		case len(l.sum) != kind.Size():
			return fail(fmt.Errorf("%d digits, which is no %v", 2*len(l.sum), kind))
		case found.Bytes == nil:
			found = Sum{kind, l.sum}
		case found.Kind == kind && string(found.Bytes) != string(l.sum):
			return fail(errors.New("the list has two that differ"))
		}
	}
	if found.Bytes == nil {
		return fail(errors.New("the list has none"))
	}
	return found, nil
}

// A sumLine is one line of a list of digests.
type sumLine struct {
	tag  string // of the kind; empty: the line does not say
	sum  []byte
	file string
}

// parseSumLine reads "DIGITS  FILE", "DIGITS *FILE" or "KIND (FILE) = DIGITS". A
// backslash in front says that the name has some itself (coreutils, md5sum).
func parseSumLine(line string) (l sumLine, ok bool) {
	line, escaped := strings.CutPrefix(line, "\\")
	digits := ""
	if tag, rest, tagged := strings.Cut(line, " ("); tagged && !strings.Contains(tag, " ") {
		i := strings.LastIndex(rest, ") = ")
		if i < 0 {
			return l, false
		}
		l.tag, l.file, digits = tag, rest[:i], rest[i+len(") = "):]
	} else {
		digits, l.file, _ = strings.Cut(line, " ")
		if len(l.file) < 2 || l.file[0] != ' ' && l.file[0] != '*' {
			return l, false
		}
		l.file = l.file[1:]
	}
	var err error
	l.sum, err = hex.DecodeString(digits)
	if escaped {
		l.file = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(l.file)
	}
	return l, err == nil && len(l.sum) > 0 && l.file != ""
}

// kindIn is the kind of the line in a list of that name.
func (l sumLine) kindIn(list string) (DigestKind, error) {
	if l.tag != "" {
		if kind, ok := digestKind(l.tag); ok {
			return kind, nil
		}
		return 0, fmt.Errorf("unknown kind %q", l.tag)
	}
	list = strings.ReplaceAll(strings.ToLower(list), "-", "")
	for _, k := range []struct {
		in   string
		kind DigestKind
	}{{"sha256", SHA256}, {"sha512", SHA512}, {"blake3", BLAKE3}, {"b3", BLAKE3}} {
		if strings.Contains(list, k.in) {
			return k.kind, nil
		}
	}
	if len(l.sum) == SHA512.Size() {
		return SHA512, nil
	}
	return 0, errors.New("neither the line nor the list's name says which kind it is")
}

// base is a path without its directories.
func base(path string) string { return path[strings.LastIndex(path, "/")+1:] }
