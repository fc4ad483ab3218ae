package hostfs

import (
	"path"
	"slices"
	"strings"
	"syscall"
)

// maxLinks is how many links the kernel follows for one path (path_resolution(7)).
const maxLinks = 40

// resolve walks name, component by component, over the recorded links, and gives
// the name that it leads to: one that is no link, or a link at the end for which
// stop is true. Errors are those of the kernel, and [ErrNotCaptured] where the
// record ends.
func (c *record) resolve(name string, stop func(link string) bool) (string, error) {
	at, rest := "/", components(name)
	for links := 0; len(rest) > 0; {
		if rest[0] == ".." {
			if c.isLeaf(at) {
				return "", syscall.ENOTDIR
			}
			at, rest = path.Dir(at), rest[1:]
			continue
		}
		next := strings.TrimSuffix(at, "/") + "/" + rest[0]
		if errno := c.failure(next); errno != 0 {
			return "", errno
		}
		// EINVAL is what readlink(2) says of anything else.
		if link, ok := c.entries[key{kind: kindLink, name: next}]; ok && link.errno != syscall.EINVAL && (len(rest) > 1 || !stop(next)) {
			if link.errno != 0 {
				return "", link.errno
			}
			if len(rest) == 1 && isMagic(next) {
				return "", ErrNotCaptured
			}
			if links++; links > maxLinks {
				return "", syscall.ELOOP
			}
			if strings.HasPrefix(link.text, "/") {
				at = "/"
			}
			rest = append(components(link.text), rest[1:]...)
			continue
		}
		if !c.known[next] { // nothing is recorded there, or below it
			if c.isLeaf(at) {
				return "", syscall.ENOTDIR
			}
			if c.lacks(at, rest[0]) {
				return "", syscall.ENOENT
			}
		}
		at, rest = next, rest[1:]
	}
	return at, nil
}

// lacks says that the directory was listed, and that entry is not in it.
func (c *record) lacks(dir, entry string) bool {
	e, ok := c.entries[key{kind: kindDir, name: dir}]
	if !ok || e.errno != 0 {
		return false
	}
	_, found := slices.BinarySearch(e.names, entry)
	return !found
}

// components cuts a path where the kernel does.
func components(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// isMagic says that name is one of the links of /proc/PID whose text need not be
// a path to what they lead to (proc_pid_fd(5), proc_pid_map_files(5),
// proc_pid_root(5), namespaces(7)).
func isMagic(name string) bool {
	c := components(name)
	if len(c) > 4 && c[2] == "task" {
		c = append(c[:2:2], c[4:]...)
	}
	switch {
	case len(c) < 3 || c[0] != "proc":
		return false
	case len(c) == 3:
		return c[2] == "cwd" || c[2] == "exe" || c[2] == "root"
	case len(c) == 4:
		return c[2] == "fd" || c[2] == "ns" || c[2] == "map_files"
	}
	return false
}
