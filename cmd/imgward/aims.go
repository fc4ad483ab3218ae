package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard/argv"
)

// An aim is one file, device or name that a command would write to.
type aim struct {
	path   string
	is     fs.FileInfo // nil where nothing is there yet
	commit bool        // what it is an overlay of, too

	// overlay is the image that is merged into this one, and so may stand on it.
	overlay string
}

// An unseenError says that it could not be told what a command would write to.
type unseenError struct{ error }

func (e *unseenError) Unwrap() error { return e.error }

func unseenf(format string, args ...any) error { return &unseenError{fmt.Errorf(format, args...)} }

// aims are what the places of a command line are, on this host, at this moment.
type aims struct {
	list []aim

	// volumes gives the images that domains are said to have, for volumes that have
	// no device at this moment.
	volumes func() []string
}

// mostInTrees is how many files of trees are looked at, and smallInTree the size in
// bytes below which a file of a tree is not: a disk is not that small, and there may
// be hundreds of thousands of others. A file that is named itself always is.
const (
	mostInTrees = 1000
	smallInTree = 64 << 10
)

// add takes in what a place is.
func (a *aims) add(p argv.Place) error {
	switch p.How {
	case argv.Left:
		return a.left(p.Path, p.To)
	case argv.Volume:
		return a.volume(p.Path)
	case argv.Group:
		return a.group(p.Path)
	case argv.Exact, argv.Base, argv.Commit:
		return a.exact(p)
	}
	if is, err := os.Stat(p.Path); err != nil || !is.IsDir() {
		if p.How == argv.Inside {
			return nil // the program will say what is wrong
		}
		return a.exact(p)
	}
	for _, from := range p.From {
		name := filepath.Base(from)
		switch {
		case p.Parents:
			name = from
		case name == ".." || strings.HasSuffix(from, "/."):
			name = "." // its contents go there
		case name == "/":
			continue
		}
		if err := a.merge(p, from, p.Path+"/"+name, false); err != nil {
			return err
		}
	}
	return nil
}

// exact takes in a place whose path is the target itself.
func (a *aims) exact(p argv.Place) error {
	if !p.Tree {
		return a.one(p, p.Path, false)
	}
	for _, from := range p.From {
		if err := a.merge(p, from, p.Path, false); err != nil {
			return err
		}
	}
	return nil
}

// one takes in a path, which inTree says that nobody named. What is neither file nor
// block device is no aim, and neither is a new name in a directory that is not there.
func (a *aims) one(p argv.Place, path string, inTree bool) error {
	is, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if to, err := os.Readlink(path); err == nil {
			if !filepath.IsAbs(to) {
				to = filepath.Dir(path) + "/" + to
			}
			if _, err := os.Lstat(to); err == nil {
				return unseenf("%q leads to nothing", path)
			}
			path = to // what is made there has this name
		}
		if at, err := os.Stat(filepath.Dir(path)); err != nil || !at.IsDir() || inTree || strings.HasSuffix(path, "/") {
			return nil
		}
		is = nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EINVAL):
		return nil
	case err != nil:
		return unseenf("%v", err)
	case p.Keep, !is.Mode().IsRegular() && is.Mode().Type() != fs.ModeDevice:
		return nil
	}
	one := aim{path: path, is: is, commit: p.How == argv.Commit}
	if p.How == argv.Base && len(p.From) == 1 {
		if one.overlay, err = realPath(p.From[0]); err != nil {
			return unseenf("%v", err)
		}
	}
	return a.take(one, inTree)
}

// realPath is a path without symbolic links, as the guard names files.
func realPath(path string) (string, error) {
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(whole)
}

// take adds an aim that is not there yet.
func (a *aims) take(one aim, inTree bool) error {
	if inTree && one.is.Mode().IsRegular() && one.is.Size() < smallInTree {
		return nil
	}
	for i, old := range a.list {
		if old.path == one.path || old.is != nil && one.is != nil && os.SameFile(old.is, one.is) {
			a.list[i].commit = old.commit || one.commit
			return nil
		}
	}
	if inTree && len(a.list) >= mostInTrees {
		return unseenf("more than %d files would be replaced, which are too many to look at", mostInTrees)
	}
	a.list = append(a.list, one)
	return nil
}

// merge takes in what of the tree from replaces something at to.
func (a *aims) merge(p argv.Place, from, to string, inTree bool) error {
	is, err := os.Stat(from)
	if inTree && !p.Follow {
		is, err = os.Lstat(from)
	}
	if err != nil || !is.IsDir() || !p.Tree {
		return a.one(p, to, inTree)
	}
	if at, err := os.Stat(to); err != nil || !at.IsDir() {
		return nil // all that comes there is new
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return unseenf("%v", err)
	}
	for _, n := range names {
		if err := a.merge(p, from+"/"+n.Name(), to+"/"+n.Name(), true); err != nil {
			return err
		}
	}
	return nil
}

// left takes in what is removed where it is when path goes to another mount, across
// which nothing is renamed (rename(2), EXDEV).
func (a *aims) left(path, to string) error {
	is, err := os.Lstat(path)
	if err != nil || !is.IsDir() && !is.Mode().IsRegular() {
		return nil
	}
	if _, err := os.Stat(to); err != nil {
		to = filepath.Dir(to)
	}
	here, err := mountOf(path, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	if there, err := mountOf(to, 0); err != nil || here == there {
		return nil // the program will say what is wrong
	}
	if !is.IsDir() {
		return a.take(aim{path: path, is: is}, false)
	}
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return unseenf("%v", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		is, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return unseenf("%v", err)
		}
		return a.take(aim{path: name, is: is}, true)
	})
}

// mountOf tells one mount from another, or, before Linux 5.8, one file system. The
// flags are those of statx(2).
func mountOf(path string, flags int) ([3]uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, flags|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return [3]uint64{}, unseenf("stat %q: %v", path, err)
	}
	id := [3]uint64{uint64(st.Dev_major), uint64(st.Dev_minor)}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		id[2] = st.Mnt_id
	}
	return id, nil
}

// volume takes in a logical volume by its device; a pool of thin volumes has one of
// its own, on which they stand.
func (a *aims) volume(path string) error {
	devices := []string{path}
	if group, name, ok := strings.Cut(strings.TrimPrefix(path, "/dev/"), "/"); ok && group != "mapper" {
		mapped := "/dev/mapper/" + strings.ReplaceAll(group, "-", "--") + "-" + strings.ReplaceAll(name, "-", "--")
		devices = append(devices, mapped, mapped+"-tpool")
	}
	found := false
	for _, d := range devices {
		if is, err := os.Stat(d); err == nil && is.Mode().Type() == fs.ModeDevice {
			found = true
			if err := a.take(aim{path: d, is: is}, false); err != nil {
				return err
			}
		}
	}
	if !found {
		return unseenf("the volume %q is not active, so that nothing shows who uses it", path)
	}
	return nil
}

// group takes in the volumes of a group: those that are active, and those that
// domains are said to have.
func (a *aims) group(path string) error {
	names, err := os.ReadDir(path)
	if err != nil {
		return unseenf("no volume of the group %q is active, so that nothing shows who uses them", path)
	}
	for _, n := range names {
		if err := a.volume(path + "/" + n.Name()); err != nil {
			return err
		}
	}
	for _, image := range a.volumes() {
		if dir, name := filepath.Split(image); filepath.Clean(dir) == path && !slices.ContainsFunc(names, func(n fs.DirEntry) bool { return n.Name() == name }) {
			return unseenf("the volume %q, which a domain has, is not active, so that nothing shows who uses it", image)
		}
	}
	return nil
}
