package format

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// A Kind is the form that an image lies in.
type Kind uint8

const (
	Raw Kind = iota
	Gzip
	Zstd
	XZ
	Bzip2
	QCOW2
	VHD
	Other // a container that is known and not read
)

// kinds are the kinds with their names, the endings of files, and their magic
// numbers at byte 0: RFC 1952, RFC 8878, the xz file format 2.1.1.1, bzip2's
// manual; QEMU's docs/interop/qcow2.txt; Microsoft's "Virtual Hard Disk Image
// Format Specification". The Others are QED, VHDX and VMDK (sparse, copy on write,
// descriptor).
var kinds = []struct {
	kind    Kind
	name    string
	endings []string
	magics  []string
}{
	{Raw, "raw", nil, nil},
	{Gzip, "gzip", []string{".gz"}, []string{"\x1f\x8b\x08"}},
	{Zstd, "zstd", []string{".zst", ".zstd"}, []string{"\x28\xb5\x2f\xfd"}},
	{XZ, "xz", []string{".xz"}, []string{"\xfd7zXZ\x00"}},
	{Bzip2, "bzip2", []string{".bz2"}, []string{"BZh"}},
	{QCOW2, "qcow2", []string{".qcow2"}, []string{"QFI\xfb"}},
	{VHD, "vhd", []string{".vhd"}, []string{"conectix"}},
	{Other, "other", []string{".qed", ".vhdx", ".vmdk"}, []string{"QED\x00", "vhdxfile", "KDMV", "COWD", "# Disk DescriptorFile"}},
}

func (k Kind) String() string {
	for _, f := range kinds {
		if f.kind == k {
			return f.name
		}
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Compressed reports whether an image of the kind is a stream.
func (k Kind) Compressed() bool { return k >= Gzip && k <= Bzip2 }

// Container reports whether an image of the kind can be a layer of a Chain, and is
// not raw.
func (k Kind) Container() bool { return k == QCOW2 || k == VHD }

// Parse finds the kind that is called that.
func Parse(name string) (Kind, bool) {
	for _, f := range kinds {
		if f.name == name && f.kind != Other {
			return f.kind, true
		}
	}
	return Raw, false
}

// ByName is the kind that the ending of a file's name says; without a known one
// it is Raw.
func ByName(name string) Kind {
	ending := strings.ToLower(path.Ext(name))
	for _, f := range kinds {
		for _, e := range f.endings {
			if e == ending {
				return f.kind
			}
		}
	}
	return Raw
}

// Guess is the kind that the bytes of an image look like. It reads the first and
// the last 512; a VHD of fixed size has nothing but a footer. What looks like
// nothing known is Raw. size is negative where the end cannot be seen.
func Guess(r io.ReaderAt, size int64) (Kind, error) {
	head := make([]byte, 512)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Raw, err
	}
	if k := guess(head[:n]); k != Raw || size < vhdFooter {
		return k, nil
	}
	foot := make([]byte, vhdFooter)
	if _, err := r.ReadAt(foot, size-vhdFooter); err != nil && !errors.Is(err, io.EOF) {
		return Raw, err
	}
	if guess(foot) == VHD {
		return VHD, nil
	}
	return Raw, nil
}

func guess(head []byte) Kind {
	for _, f := range kinds {
		for _, m := range f.magics {
			if strings.HasPrefix(string(head), m) {
				return f.kind
			}
		}
	}
	return Raw
}
