package xenstoretest

import (
	"slices"
	"strconv"
	"strings"
)

// A store is the tree. It knows nothing of connections.
type store struct {
	nodes      map[string]*node // by absolute path; "/" is always there
	generation uint64
}

// A node is a value and the names of its children, oldest first, as the C daemon
// keeps them.
type node struct {
	value      string
	children   []string
	generation uint64 // of the last change to value or children
}

// newStore returns a store that holds the root only.
func newStore() *store { return &store{nodes: map[string]*node{"/": {}}} }

// split returns the parent of an absolute path other than "/", and its name there.
func split(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 1)], path[i+1:]
}

// touch records a change of n.
func (s *store) touch(n *node) {
	s.generation++
	n.generation = s.generation
}

// set writes a value and makes the parents that are missing.
func (s *store) set(path, value string) {
	n := s.make(path)
	n.value = value
	s.touch(n)
}

// make returns the node at path, made if need be.
func (s *store) make(path string) *node {
	if n := s.nodes[path]; n != nil {
		return n
	}
	parent, name := split(path)
	p := s.make(parent)
	p.children = append(p.children, name)
	s.touch(p)
	n := &node{}
	s.touch(n)
	s.nodes[path] = n
	return n
}

// remove deletes path and all beneath it, and returns what it deleted. The root
// stays.
func (s *store) remove(path string) []string {
	if s.nodes[path] == nil || path == "/" {
		return nil
	}
	parent, name := split(path)
	p := s.nodes[parent]
	p.children = slices.DeleteFunc(p.children, func(c string) bool { return c == name })
	s.touch(p)
	gone := s.beneath(path)
	for _, g := range gone {
		delete(s.nodes, g)
	}
	return gone
}

// beneath lists path and every node under it.
func (s *store) beneath(path string) []string {
	all := []string{path}
	for _, name := range s.nodes[path].children {
		all = append(all, s.beneath(join(path, name))...)
	}
	return all
}

// join appends a name to a path.
func join(path, name string) string { return strings.TrimSuffix(path, "/") + "/" + name }

// within reports whether path is root or beneath it.
func within(path, root string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// names encodes a list of children, each with its NUL.
func (n *node) names() string {
	if len(n.children) == 0 {
		return ""
	}
	return strings.Join(n.children, "\x00") + "\x00"
}

// part encodes the reply to DIRECTORY_PART: as many whole names from offset as
// fit, and one more NUL at the end of the list.
func (n *node) part(offset int) string {
	gen := strconv.FormatUint(n.generation, 10) + "\x00"
	names := n.names()
	if offset < 0 || offset >= len(names) {
		return gen + "\x00"
	}
	names = names[offset:]
	room := maxPayload - len(gen) - 1
	if len(names) <= room {
		return gen + names + "\x00"
	}
	return gen + names[:strings.LastIndexByte(names[:room], 0)+1]
}
