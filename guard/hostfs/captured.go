package hostfs

import (
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// A kind is one of the things that can be recorded of a name; its text is the
// manifest's keyword, or "file" for content that is a member of its own.
type kind string

const (
	kindErr   kind = "err"
	kindFile  kind = "file"
	kindBytes kind = "bytes"
	kindDir   kind = "dir"
	kindLink  kind = "link"
	kindStat  kind = "stat"
	kindAsk   kind = "ask"
	kindData  kind = "data"
)

// A key says what is recorded of which name.
type key struct {
	kind     kind
	question Question // of kindAsk only
	name     string
}

// An entry is what is recorded. With an errno, that is the answer; else the
// field that belongs to the key's kind is.
type entry struct {
	errno syscall.Errno
	text  string   // content, link target, answer
	names []string // of a directory, sorted
	stat  Stat
	data  []piece // of a content; a later one holds where they overlap

	broken bool // a content that can be opened, but not read
	cut    bool // a content that ends with its last piece
}

// A member is a part of a capture that hostfs gives no meaning to.
type member struct{ name, data string }

// A record is everything that is known of a captured or in-memory host. It is
// guarded by mu, which the methods below expect to be held.
type record struct {
	mu      sync.RWMutex
	comment string
	members []member // never changed in place
	entries map[key]entry
	known   map[string]bool // every name with an entry, and every directory above one
}

func newRecord() *record {
	return &record{entries: map[key]entry{}, known: map[string]bool{}}
}

// set records e under k, in place of what was recorded there.
func (c *record) set(k key, e entry) {
	c.entries[k] = e
	for name := k.name; strings.HasPrefix(name, "/") && !c.known[name]; name = path.Dir(name) {
		c.known[name] = true
	}
}

// content finds the entry that holds a file's content.
func (c *record) content(name string) (entry, bool) {
	if e, ok := c.entries[key{kind: kindFile, name: name}]; ok {
		return e, true
	}
	e, ok := c.entries[key{kind: kindBytes, name: name}]
	return e, ok
}

// find gives the entry that get has for name: the one recorded under exactly this
// name, else the one that its links lead to. With stop nil they are followed until
// get has one. The real name is where the search ended.
func (c *record) find(name string, get func(name string) (entry, bool), stop func(link string) bool) (e entry, real string, err error) {
	if errno := c.failure(name); errno != 0 {
		return entry{}, name, errno
	}
	if stop == nil {
		stop = func(link string) bool { _, ok := get(link); return ok }
	}
	e, ok := get(name)
	if real = name; !ok {
		if real, err = c.resolve(name, stop); err != nil {
			return entry{}, name, err
		}
		e, ok = get(real)
	}
	switch {
	case !ok:
		return entry{}, real, ErrNotCaptured
	case e.errno != 0:
		return entry{}, real, e.errno
	}
	return e, real, nil
}

// failure is the errno that an err line gives to this very name, or 0.
func (c *record) failure(name string) syscall.Errno {
	return c.entries[key{kind: kindErr, name: name}].errno
}

// one looks up the entries of one kind.
func (c *record) one(k kind) func(name string) (entry, bool) {
	return func(name string) (entry, bool) {
		e, ok := c.entries[key{kind: k, name: name}]
		return e, ok
	}
}

func (c *record) readFile(name string) ([]byte, error) {
	e, real, err := c.find(name, c.content, nil)
	if err == ErrNotCaptured && c.isDir(real) {
		err = syscall.EISDIR
	}
	return []byte(e.text), err
}

func (c *record) readDir(name string) ([]string, error) {
	e, real, err := c.find(name, c.one(kindDir), nil)
	if err == ErrNotCaptured && c.isLeaf(real) {
		err = syscall.ENOTDIR
	}
	return slices.Clone(e.names), err
}

func (c *record) readlink(name string) (string, error) {
	e, real, err := c.find(name, c.one(kindLink), func(string) bool { return true })
	if err == ErrNotCaptured && (c.isDir(real) || c.isLeaf(real)) {
		err = syscall.EINVAL
	}
	return e.text, err
}

func (c *record) stat(name string) (Stat, error) {
	e, _, err := c.find(name, c.one(kindStat), nil)
	return e.stat, err
}

func (c *record) open(name string) (*Handle, error) {
	e, real, err := c.find(name, c.one(kindStat), nil)
	if err != nil {
		return nil, err
	}
	if real, err = c.resolve(real, isMagic); err != nil {
		return nil, err
	}
	// A magic link's text is the path, as the kernel knows it, of what it leads to.
	if link, ok := c.entries[key{kind: kindLink, name: real}]; ok {
		if link.errno != 0 {
			return nil, link.errno
		}
		real = link.text
	}
	return &Handle{Stat: e.stat, Real: real}, nil
}

func (c *record) ask(q Question, name string) (string, error) {
	get := func(name string) (entry, bool) {
		e, ok := c.entries[key{kindAsk, q, name}]
		return e, ok
	}
	if !strings.HasPrefix(name, "/") { // a device number
		e, ok := get(name)
		switch {
		case !ok:
			return "", ErrNotCaptured
		case e.errno != 0:
			return "", e.errno
		}
		return e.text, nil
	}
	e, _, err := c.find(name, get, nil)
	return e.text, err
}

// isDir says that name is recorded as a directory.
func (c *record) isDir(name string) bool {
	if c.has(kindDir, name) {
		return true
	}
	return c.has(kindStat, name) && c.entries[key{kind: kindStat, name: name}].stat.Type == Directory
}

// isLeaf says that name is recorded as something that is neither a directory nor
// a link.
func (c *record) isLeaf(name string) bool {
	switch {
	case c.has(kindFile, name), c.has(kindBytes, name), c.has(kindData, name):
		return true
	case c.has(kindLink, name):
		return false
	}
	return c.has(kindStat, name) && c.entries[key{kind: kindStat, name: name}].stat.Type != Directory
}

// has says that this is recorded of name, and no failure.
func (c *record) has(k kind, name string) bool {
	e, ok := c.entries[key{kind: k, name: name}]
	return ok && e.errno == 0
}
