package hostfs

import (
	"slices"
	"strings"
	"syscall"
)

// A Root is one view of a host. It may be used by many goroutines at once.
type Root struct {
	rec   *record               // nil: the live host
	watch func(op, name string) // never nil
	tape  *tape                 // nil: nobody writes the answers down
}

// Live is the running kernel's own view.
func Live() *Root { return &Root{watch: func(op, name string) {}} }

// New is an empty Root in memory: every name answers [ErrNotCaptured] until a
// Set method says something of it.
func New() *Root { return &Root{rec: newRecord(), watch: func(op, name string) {}} }

// Record is a view of the same host that calls seen before each access, with
// the operation ("read", "readdir", "readlink", "stat", "open", "content", "ask lease" ...)
// and the name asked for. seen may be called by many goroutines at once.
func (r *Root) Record(seen func(op, name string)) *Root {
	outer := r.watch
	return &Root{rec: r.rec, tape: r.tape, watch: func(op, name string) { outer(op, name); seen(op, name) }}
}

// ReadFile gives the whole content of a file, however long. The live file is
// opened and read to its end without a stat, since files of /proc claim a size
// of 0. The caller owns the bytes.
func (r *Root) ReadFile(name string) ([]byte, error) {
	r.watch("read", name)
	b, err := answer(r, name, (*record).readFile, liveReadFile)
	r.tape.take(key{kind: kindFile, name: name}, entry{text: string(b)}, err)
	return b, wrap("read", name, err)
}

// ReadDir gives the names in a directory, sorted, without "." and "..".
func (r *Root) ReadDir(name string) ([]string, error) {
	r.watch("readdir", name)
	names, err := answer(r, name, (*record).readDir, liveReadDir)
	r.tape.take(key{kind: kindDir, name: name}, entry{names: slices.Clone(names)}, err)
	return names, wrap("readdir", name, err)
}

// Readlink gives the text of a symbolic link, of any length.
func (r *Root) Readlink(name string) (string, error) {
	r.watch("readlink", name)
	text, err := answer(r, name, (*record).readlink, liveReadlink)
	r.tape.take(key{kind: kindLink, name: name}, entry{text: text}, err)
	return text, wrap("readlink", name, err)
}

// Stat gives the identity of what name leads to. Links are followed, the magic
// ones of /proc too. Live, it neither asks a file server (statx(2),
// AT_STATX_DONT_SYNC) nor triggers an automount.
func (r *Root) Stat(name string) (Stat, error) {
	r.watch("stat", name)
	st, err := answer(r, name, (*record).stat, liveStat)
	r.tape.take(key{kind: kindStat, name: name}, entry{stat: st}, err)
	return st, wrap("stat", name, err)
}

// Open takes hold of what name leads to, without opening it for reading or
// writing: nobody sees such a hold, no lease is broken, no device is woken. The
// caller closes the handle.
func (r *Root) Open(name string) (*Handle, error) {
	r.watch("open", name)
	h, err := answer(r, name, (*record).open, liveOpen)
	r.tape.open(name, h, err)
	return h, wrap("open", name, err)
}

// answer asks the record or the live host of name, which must be an absolute
// path without NUL (EINVAL).
func answer[T any](r *Root, name string, captured func(*record, string) (T, error), live func(string) (T, error)) (T, error) {
	if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		var none T
		return none, syscall.EINVAL
	}
	if r.rec == nil {
		return live(name)
	}
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	return captured(r.rec, name)
}

// Comment gives the text above a capture's first member.
func (r *Root) Comment() string {
	if r.rec == nil {
		return ""
	}
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	return r.rec.comment
}

// Member gives a member of a capture that is neither the manifest nor a file's
// content, such as "xenstore".
func (r *Root) Member(name string) (string, bool) {
	if r.rec == nil {
		return "", false
	}
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	for _, m := range r.rec.members {
		if m.name == name {
			return m.data, true
		}
	}
	return "", false
}

// Members lists what Member knows, in the order of the capture.
func (r *Root) Members() []string {
	if r.rec == nil {
		return nil
	}
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	var names []string
	for _, m := range r.rec.members {
		names = append(names, m.name)
	}
	return slices.Clip(names)
}
