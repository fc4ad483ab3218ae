package xenstore

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"

	"imgward/xenstore/dump"
)

// A Snapshot is a store that does not change: what a daemon once said, or a dump.
// It answers as a Conn does. It may be used by any number of goroutines.
type Snapshot struct {
	home  string
	nodes map[string]*snapshotNode
}

type snapshotNode struct {
	value    string
	err      error // why there is no value
	children []string
	listErr  error // why the children are not known
}

// A reader is the part of a Conn that a snapshot is taken with.
type reader interface {
	ReadAll(ctx context.Context, paths []string) ([]Value, error)
	ListAll(ctx context.Context, paths []string) ([]Listing, error)
}

// Take reads a whole store, level by level, and is no transaction: what changes
// meanwhile may be half in it. What the daemon refuses is refused by the snapshot
// too. The error is an *OpError, of a store that stopped answering.
func Take(ctx context.Context, store reader) (*Snapshot, error) {
	s := &Snapshot{nodes: map[string]*snapshotNode{}}
	own, err := store.ReadAll(ctx, []string{"domid"})
	if err != nil {
		return nil, err
	}
	s.home = homeOf(string(own[0].Data))
	for level := []string{"/"}; len(level) > 0; {
		values, err := store.ReadAll(ctx, level)
		if err != nil {
			return nil, err
		}
		lists, err := store.ListAll(ctx, level)
		if err != nil {
			return nil, err
		}
		var next []string
		for i, path := range level {
			v, l := values[i], lists[i]
			if errors.Is(v.Err, fs.ErrNotExist) && errors.Is(l.Err, fs.ErrNotExist) {
				s.forget(path)
				continue
			}
			s.nodes[path] = &snapshotNode{string(v.Data), v.Err, l.Names, l.Err}
			for _, name := range l.Names {
				next = append(next, join(path, name))
			}
		}
		level = next
	}
	return s, nil
}

// forget takes a node that was removed since it was listed out of its parent.
func (s *Snapshot) forget(path string) {
	dir, name := split(path)
	if parent := s.nodes[dir]; parent != nil {
		parent.children = slices.DeleteFunc(slices.Clone(parent.children), func(c string) bool { return c == name })
	}
}

// NewSnapshot makes a store of a dump's nodes, and of those above them. Domid is
// that of the domain that made the dump, from whose home relative paths are taken;
// "" stands for 0. What is below an unreadable node without a child in the dump is
// not known.
func NewSnapshot(domid string, nodes []dump.Node) *Snapshot {
	s := &Snapshot{home: homeOf(domid), nodes: map[string]*snapshotNode{"/": {}}}
	for _, n := range nodes {
		node := s.make(n.Path)
		node.value = n.Value
		if n.Unreadable {
			node.err = syscall.EACCES
		}
	}
	for _, n := range nodes {
		if node := s.nodes[n.Path]; n.Unreadable && len(node.children) == 0 {
			node.listErr = syscall.EACCES
		}
	}
	return s
}

func homeOf(domid string) string { return "/local/domain/" + cmp.Or(domid, "0") }

func (s *Snapshot) make(path string) *snapshotNode {
	if n := s.nodes[path]; n != nil {
		return n
	}
	dir, name := split(path)
	parent := s.make(dir)
	parent.children = append(parent.children, name)
	n := &snapshotNode{}
	s.nodes[path] = n
	return n
}

// split gives the parent of an absolute path other than "/", and the name in it.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 1)], path[i+1:]
}

// join appends a name to a path.
func join(path, name string) string { return strings.TrimSuffix(path, "/") + "/" + name }

// Domid is the domain whose store it is, in decimal.
func (s *Snapshot) Domid() string { return s.home[strings.LastIndexByte(s.home, '/')+1:] }

// Nodes lists all nodes, sorted, as [dump.Parse] reads them. A node that could be
// read but not listed, or the other way round, is unreadable: a dump cannot tell.
func (s *Snapshot) Nodes() []dump.Node {
	var nodes []dump.Node
	for _, path := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[path]
		if path == "/" && n.value == "" && n.err == nil && n.listErr == nil {
			continue
		}
		node := dump.Node{Path: path, Value: n.value}
		if n.err != nil || n.listErr != nil {
			node = dump.Node{Path: path, Unreadable: true}
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// node finds what is at path, or why there is nothing.
func (s *Snapshot) node(path string) (*snapshotNode, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(path, "/") {
		path = s.home + "/" + path
	}
	if n := s.nodes[path]; n != nil {
		return n, nil
	}
	// What is below a node that could not be listed may be there.
	for dir := path; dir != "/"; {
		dir, _ = split(dir)
		if n := s.nodes[dir]; n != nil {
			if n.listErr != nil {
				return nil, reasonOf(n.listErr)
			}
			break
		}
	}
	return nil, syscall.ENOENT
}

// reasonOf is the reason within an *OpError, or err.
func reasonOf(err error) error {
	var op *OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// ReadAll is that of [Conn]. It never fails as a whole.
func (s *Snapshot) ReadAll(_ context.Context, paths []string) ([]Value, error) {
	vs := make([]Value, len(paths))
	for i, path := range paths {
		vs[i].Path = path
		n, err := s.node(path)
		if err == nil {
			err = reasonOf(n.err)
		}
		if vs[i].Err = failure(opRead, path, err); err == nil {
			vs[i].Data = []byte(n.value)
		}
	}
	return vs, nil
}

// ListAll is that of [Conn]. It never fails as a whole.
func (s *Snapshot) ListAll(_ context.Context, paths []string) ([]Listing, error) {
	ls := make([]Listing, len(paths))
	for i, path := range paths {
		ls[i].Path = path
		n, err := s.node(path)
		if err == nil {
			err = reasonOf(n.listErr)
		}
		if ls[i].Err = failure(opDirectory, path, err); err == nil {
			ls[i].Names = append([]string{}, n.children...)
		}
	}
	return ls, nil
}

// Watch is that of [Conn]. Nothing ever changes: fire is called once, with path.
func (s *Snapshot) Watch(ctx context.Context, path string, fire func(path string)) error {
	if err := checkPath(path); err != nil {
		return failure(opWatch, path, err)
	}
	fire(path)
	<-ctx.Done()
	return ctx.Err()
}
