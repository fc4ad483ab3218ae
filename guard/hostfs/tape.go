package hostfs

import (
	"errors"
	"io"
	"path"
	"strings"
	"sync"
	"syscall"
)

// A tape writes the answers of one root into the record of another. The last
// answer to anything holds.
type tape struct {
	from *Root // for the links on the way to what is asked for
	to   *record

	mu      sync.Mutex
	handles map[string]string // names of open handles, and the paths that they lead to
	looked  map[string]bool   // where a link was looked for
}

// Tee is a view of the same host that also writes every answer into the in-memory
// root to, with the links that lead there, so that to answers the same. The last
// answer holds where there are several. What fails with no errno is not written
// down and stays "not captured".
func (r *Root) Tee(to *Root) *Root {
	return &Root{rec: r.rec, watch: r.watch, tape: &tape{
		from: &Root{rec: r.rec}, to: to.rec, handles: map[string]string{}, looked: map[string]bool{},
	}}
}

// take writes down that err, or else e, is what k.name has of k.kind.
func (t *tape) take(k key, e entry, err error) {
	if t == nil {
		return
	}
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) || strings.ContainsRune(k.name, 0) {
		return
	}
	e.errno = errno
	if !strings.HasPrefix(k.name, "/") {
		if k.kind == kindAsk {
			t.put(k, e)
		}
		return
	}
	var ok bool
	if k.name, ok = t.follow(t.path(k.name), k.kind == kindLink); ok {
		t.put(k, e)
	}
}

// put records e under k. What is not there and was not either is not there at all.
func (t *tape) put(k key, e entry) {
	t.to.mu.Lock()
	defer t.to.mu.Unlock()
	whole := key{kind: kindErr, name: k.name}
	if e.errno == syscall.ENOENT && k.kind != kindAsk && (!t.to.known[k.name] || t.to.failure(k.name) == e.errno) {
		k, e = whole, entry{errno: e.errno}
	} else {
		delete(t.to.entries, whole)
	}
	t.to.set(k, e)
}

// path is the path that a name leads to, of one that a handle gave.
func (t *tape) path(name string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if real, ok := t.handles[name]; ok {
		return real
	}
	return name
}

// follow records the links on the way to name, as path_resolution(7) has it, and
// gives where it ends, if it does; the last one is not followed if stay is set. A
// magic link leads nowhere by its text, so it ends there.
func (t *tape) follow(name string, stay bool) (end string, ok bool) {
	at, rest := "/", components(name)
	for links := 0; len(rest) > 0; {
		if rest[0] == ".." {
			if !t.directory(at) {
				return "", false
			}
			at, rest = path.Dir(at), rest[1:]
			continue
		}
		next := strings.TrimSuffix(at, "/") + "/" + rest[0]
		if isMagic(next) {
			return path.Join(append([]string{next}, rest[1:]...)...), true
		}
		text, ok := "", false
		if len(rest) > 1 || !stay {
			text, ok = t.link(next)
		}
		if !ok {
			at, rest = next, rest[1:]
			continue
		}
		if links++; links > maxLinks {
			return "", false
		}
		if strings.HasPrefix(text, "/") {
			at = "/"
		}
		rest = append(components(text), rest[1:]...)
	}
	return at, true
}

// directory records what is at name, and says whether a path can go on from there.
func (t *tape) directory(name string) bool {
	st, err := t.from.Stat(name)
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return true // nothing is known of it, as of a directory above all that was captured
	}
	t.put(key{kind: kindStat, name: name}, entry{stat: st, errno: errno})
	return err == nil && st.Type == Directory
}

// link records the symbolic link at name, if it is one.
func (t *tape) link(name string) (text string, ok bool) {
	k := key{kind: kindLink, name: name}
	t.mu.Lock()
	looked := t.looked[name]
	t.mu.Unlock()
	if !looked {
		if text, err := t.from.Readlink(name); err == nil {
			t.put(k, entry{text: text})
		}
		t.mu.Lock()
		t.looked[name] = true
		t.mu.Unlock()
	}
	t.to.mu.RLock()
	defer t.to.mu.RUnlock()
	e, ok := t.to.entries[k]
	return e.text, ok && e.errno == 0
}

// open writes down a handle, and remembers what its name leads to.
func (t *tape) open(name string, h *Handle, err error) {
	if t == nil {
		return
	}
	if err != nil {
		t.take(key{kind: kindStat, name: name}, entry{}, err)
		return
	}
	t.take(key{kind: kindStat, name: name}, entry{stat: h.Stat}, nil)
	if at := t.path(name); isMagic(at) {
		t.take(key{kind: kindLink, name: at}, entry{text: h.Real}, nil)
	}
	if h.file == nil {
		return
	}
	own := h.Name()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handles[own] = h.Real
	h.closed = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.handles, own)
	}
}

// content writes down that a content was opened, and has its reads written too.
func (t *tape) content(name string, c *Content, err error) {
	if t == nil {
		return
	}
	if err != nil {
		t.take(key{kind: kindData, name: name}, entry{}, err)
		return
	}
	t.take(key{kind: kindStat, name: name}, entry{stat: c.Stat}, nil)
	if c.Stat.Type == BlockDevice {
		t.take(key{kind: kindAsk, question: Size, name: name}, entry{text: formatSize(c.size)}, nil)
	}
	if at, ok := t.follow(t.path(name), false); ok {
		c.tape, c.taped = t, at
		t.read(at, 0, nil, nil)
	}
}

// read writes down bytes that were read of a content.
func (t *tape) read(name string, off int64, b []byte, err error) {
	if t == nil {
		return
	}
	k := key{kind: kindData, name: name}
	t.to.mu.Lock()
	defer t.to.mu.Unlock()
	e := t.to.entries[k]
	e.errno = 0
	if err != nil && err != io.EOF {
		e.broken = true
	}
	e.data = append(e.data[:len(e.data):len(e.data)], nonzero(off, b)...)
	t.to.set(k, e)
}

// gap is how many zeros between two pieces are worth a line of their own.
const gap = 64

// nonzero cuts what is not zero out of the bytes at off.
func nonzero(off int64, b []byte) []piece {
	var out []piece
	for i := 0; i < len(b); {
		if b[i] == 0 {
			i++
			continue
		}
		end, zeros := i, 0
		for j := i; j < len(b) && zeros < gap; j++ {
			if zeros++; b[j] != 0 {
				end, zeros = j+1, 0
			}
		}
		out = append(out, piece{off + int64(i), string(b[i:end])})
		i = end
	}
	return out
}
