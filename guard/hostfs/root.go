package hostfs

import (
	"slices"
	"strings"
	"syscall"
)

// A Root is one view of a host. It may be used by many goroutines at once.
type Root struct {
	rec   *record               // nil: the live host
	watch func(op, name string) // nil: nobody wants to know what is asked
	tape  *tape                 // nil: nobody writes the answers down
}

// Live is the running kernel's own view.
func Live() *Root { return &Root{} }

// New is an empty Root in memory: every name answers [ErrNotCaptured] until a
// Set method says something of it.
func New() *Root { return &Root{rec: newRecord()} }

// Record is a view of the same host that calls seen before each access, with
// the operation ("read", "readdir", "readlink", "stat", "open", "content", "ask lease" ...)
// and the name asked for. seen may be called by many goroutines at once.
func (r *Root) Record(seen func(op, name string)) *Root {
	outer := r.sees
	return &Root{rec: r.rec, tape: r.tape, watch: func(op, name string) { outer(op, name); seen(op, name) }}
}

// sees tells whoever wants to know what is asked.
func (r *Root) sees(op, name string) {
	if r.watch != nil {
		r.watch(op, name)
	}
}

// ReadFile gives the whole content of a file, however long. The live file is
// opened and read to its end without a stat, since files of /proc claim a size
// of 0. The caller owns the bytes.
func (r *Root) ReadFile(name string) ([]byte, error) {
	r.sees("read", name)
	b, err := answer(r, name, (*record).readFile, liveReadFile)
	if r.tape != nil {
		r.tape.take(key{kind: kindFile, name: name}, entry{text: string(b)}, err)
	}
	return b, wrap("read", name, err)
}

// ReadDir gives the names in a directory, sorted, without "." and "..".
func (r *Root) ReadDir(name string) ([]string, error) {
	r.sees("readdir", name)
	names, err := answer(r, name, (*record).readDir, liveReadDir)
	if r.tape != nil {
		r.tape.take(key{kind: kindDir, name: name}, entry{names: slices.Clone(names)}, err)
	}
	return names, wrap("readdir", name, err)
}

// Readlink gives the text of a symbolic link, of any length.
func (r *Root) Readlink(name string) (string, error) {
	r.sees("readlink", name)
	text, err := answer(r, name, (*record).readlink, liveReadlink)
	r.tape.take(key{kind: kindLink, name: name}, entry{text: text}, err)
	return text, wrap("readlink", name, err)
}

// Stat gives the identity of what name leads to. Links are followed, the magic
// ones of /proc too. Live, it neither asks a file server (statx(2),
// AT_STATX_DONT_SYNC) nor triggers an automount.
func (r *Root) Stat(name string) (Stat, error) {
	r.sees("stat", name)
	st, err := answer(r, name, (*record).stat, liveStat)
	r.tape.take(key{kind: kindStat, name: name}, entry{stat: st}, err)
	return st, wrap("stat", name, err)
}

// StatDir gives what each name in a directory leads to, as Stat does, in no order.
// The error is for the directory; that of a name is with it. Live, the names are
// looked up from the directory that was opened, so that what has its path by then
// is never taken for it: the process of a /proc/PID that is used again, say.
func (r *Root) StatDir(name string) ([]Entry, error) {
	if r.rec != nil || r.tape != nil || r.watch != nil {
		return r.statEach(name)
	}
	entries, err := answer(r, name, nil, liveStatDir)
	return entries, wrap("readdir", name, err)
}

// An Entry is a name in a directory.
type Entry struct {
	Name string
	Stat Stat  // of what it leads to
	Err  error // why there is no Stat
}

// statEach is StatDir in single steps, which somebody follows or answers.
func (r *Root) statEach(name string) ([]Entry, error) {
	names, err := r.ReadDir(name)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(names))
	for i, n := range names {
		st, err := r.Stat(strings.TrimSuffix(name, "/") + "/" + n)
		entries[i] = Entry{n, st, err}
	}
	return entries, nil
}

// Open takes hold of what name leads to, without opening it for reading or
// writing: nobody sees such a hold, no lease is broken, no device is woken. The
// caller closes the handle.
func (r *Root) Open(name string) (*Handle, error) {
	r.sees("open", name)
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
