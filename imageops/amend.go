package imageops

import (
	"bytes"
	"io"
)

// A Patch is bytes of a target that are other than those of the source.
type Patch struct {
	Off  int64
	Data []byte
}

func (p Patch) end() int64 { return p.Off + int64(len(p.Data)) }

// An Amender is a Dest that in some bytes is to differ from the source, whose size
// is known. Patches lie within the target; where two overlap the later one counts.
// What they change is held back, zero until all else was read back and found equal,
// and is then read back itself. Those that lie between the first and the last MiB
// lie close together, because all between them is held back, too.
type Amender interface {
	Patches() []Patch
}

// Amend writes the patches of dst, which has all other bytes already because it
// shares the source's blocks, makes them durable, and with verify reads them back.
func Amend(dst interface {
	Dest
	Amender
	io.ReaderAt
}, verify bool) error {
	patches, name := dst.Patches(), nameOf(dst, "target")
	if len(patches) == 0 {
		return nil
	}
	for _, p := range patches {
		if _, err := dst.WriteAt(p.Data, p.Off); err != nil {
			return named(err, "write", name, p.Off)
		}
	}
	if err := dst.Sync(); err != nil {
		return named(err, "sync", name, -1)
	}
	for _, p := range patches {
		if !verify {
			return nil
		}
		if u, ok := dst.(Uncacher); ok {
			if err := u.Uncache(p.Off, int64(len(p.Data))); err != nil {
				return err
			}
		}
		got := make([]byte, len(p.Data))
		if _, err := dst.ReadAt(got, p.Off); err != nil {
			return named(err, "read", name, p.Off)
		}
		if want := (held{patches: patches}).amended(part{p.Off, p.Data}); !bytes.Equal(got, want) {
			off, n := firstDifference(got, want)
			return &MismatchError{Name: name, Other: "what was written", Off: p.Off + off, Len: n}
		}
	}
	return nil
}
