package guard

import (
	"path/filepath"
	"strings"

	"imgward/guard/hostfs"
)

// An ancestor is a directory that the target lies in. rest is the way from
// there to the target.
type ancestor struct {
	dev, ino uint64
	rest     string
}

// ancestors gives the directories that a file lies in, or a new file would lie
// in, up to the root and with the nearest first. A device has none: its node
// says nothing about its bytes. They are known by number, so that it makes no
// difference through which mount or link one comes to them; of directories
// above the root of a bind mount on the way only those of its path are found.
// The error names the directory that could not be looked at.
func (t *Target) ancestors(root *hostfs.Root) (as []ancestor, where string, err error) {
	if t.ID.Kind == KindBlock {
		return nil, "", nil
	}
	for dir := t.Real; dir != "/"; {
		dir = filepath.Dir(dir)
		st, err := root.Stat(dir)
		if err != nil {
			return as, dir, err
		}
		as = append(as, ancestor{st.Dev, st.Ino, strings.TrimPrefix(strings.TrimPrefix(t.Real, dir), "/")})
	}
	return as, "", nil
}

// inside tells whether the directory st is one of as, and gives the way from it
// to the target.
func inside(as []ancestor, st hostfs.Stat) (rest string, ok bool) {
	for _, a := range as {
		if st.Type == hostfs.Directory && st.Dev == a.dev && st.Ino == a.ino {
			return a.rest, true
		}
	}
	return "", false
}
