package hostfs

import (
	"maps"
	"path"
	"slices"
	"syscall"
)

// put records e under k, and that the name no longer fails.
func (r *Root) put(k key, e entry) {
	r.change(k, func(entry) entry { return e })
}

// change records what edit makes of the entry under k, the zero one if there is
// none, and that the name no longer fails.
func (r *Root) change(k key, edit func(entry) entry) {
	if k.name != "" && k.name[0] == '/' {
		k.name = path.Clean(k.name)
	}
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	if k.kind != kindErr {
		delete(r.rec.entries, key{kind: kindErr, name: k.name})
	}
	r.rec.set(k, edit(r.rec.entries[k]))
}

// SetFile records the content of a file. Like the other Set methods it is for
// captured and in-memory roots, has effect on every view of the root but its
// clones, may be called while others read, ends an earlier SetErr of the name,
// and panics on a live root.
func (r *Root) SetFile(name, content string) {
	r.put(key{kind: kindFile, name: name}, entry{text: content})
}

// SetDir records the names in a directory.
func (r *Root) SetDir(name string, names ...string) {
	r.put(key{kind: kindDir, name: name}, entry{names: sorted(names)})
}

// SetLink records a symbolic link's text.
func (r *Root) SetLink(name, target string) {
	r.put(key{kind: kindLink, name: name}, entry{text: target})
}

// SetStat records what a name leads to.
func (r *Root) SetStat(name string, st Stat) {
	r.put(key{kind: kindStat, name: name}, entry{stat: st})
}

// SetAsk records the answer to a question: errno, or the text where that is 0.
func (r *Root) SetAsk(q Question, name, answer string, errno syscall.Errno) {
	r.put(key{kindAsk, q, name}, entry{text: answer, errno: errno})
}

// SetData records the bytes at an offset of a file's or a device's content, which
// also needs a stat. They replace what was recorded there. Recorded as nothing, ""
// at 0, the content is all zeros.
func (r *Root) SetData(name string, off int64, text string) {
	r.change(key{kind: kindData, name: name}, func(e entry) entry {
		return entry{data: append(slices.Clip(e.data), piece{off, text})}
	})
}

// SetErr records that every access of name, and of all below it, fails.
func (r *Root) SetErr(name string, errno syscall.Errno) {
	r.put(key{kind: kindErr, name: name}, entry{errno: errno})
}

// SetComment is the text above the first member of a capture.
func (r *Root) SetComment(text string) {
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	r.rec.comment = text
}

// SetMember adds a member that hostfs gives no meaning to, or replaces it.
func (r *Root) SetMember(name, data string) {
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	members := slices.DeleteFunc(slices.Clone(r.rec.members), func(m member) bool { return m.name == name })
	r.rec.members = append(members, member{name, data})
}

// sorted gives a sorted copy without repetitions.
func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// Clone is a Root of its own that starts with all that r has recorded.
func (r *Root) Clone() *Root {
	if r.rec == nil {
		return &Root{watch: r.watch}
	}
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	return &Root{watch: r.watch, rec: &record{
		comment: r.rec.comment,
		members: r.rec.members,
		entries: maps.Clone(r.rec.entries), // an entry's names are never changed in place
		known:   maps.Clone(r.rec.known),
	}}
}

// Entries lists everything that is recorded, sorted, each as its kind and name:
// "bytes /proc/swaps", "dir /proc", "ask lease /srv/web1.img", "file /proc/1/maps".
// It is empty for a live root.
func (r *Root) Entries() []string {
	if r.rec == nil {
		return nil
	}
	r.rec.mu.RLock()
	defer r.rec.mu.RUnlock()
	ids := make([]string, 0, len(r.rec.entries))
	for k := range r.rec.entries {
		ids = append(ids, k.String())
	}
	slices.Sort(ids)
	return ids
}

// String is the key as [Root.Entries] lists it, and as a manifest line starts.
func (k key) String() string {
	if k.kind == kindAsk {
		return string(k.kind) + " " + string(k.question) + " " + quote(k.name)
	}
	return string(k.kind) + " " + quote(k.name)
}

// Fail is a clone in which the one entry, named as Entries does, answers errno: of
// data, EIO answers whoever reads it, any other errno whoever opens it. An entry
// that is not recorded changes nothing. Like Delete and Truncate it panics on a
// live root.
func (r *Root) Fail(entry string, errno syscall.Errno) *Root {
	clone := r.Clone()
	if k, e, ok := clone.entry(entry); ok {
		if k.kind == kindData && errno == syscall.EIO {
			e.broken = true // a disk that fails can be opened
		} else {
			e.errno = errno
		}
		clone.rec.entries[k] = e
	}
	return clone
}

// Delete is a clone in which the one entry answers ENOENT.
func (r *Root) Delete(entry string) *Root { return r.Fail(entry, syscall.ENOENT) }

// Truncate is a clone in which the one entry has lost the second half of its
// text; data ends there, whatever its length is said to be. It is false for an
// entry that has none to lose: no content, data or answer, or an empty one.
func (r *Root) Truncate(entry string) (*Root, bool) {
	clone := r.Clone()
	k, e, ok := clone.entry(entry)
	if ok && k.kind == kindData {
		half, cut := e.half()
		clone.rec.entries[k] = half
		return clone, cut && e.errno == 0
	}
	if !ok || k.kind == kindLink || e.text == "" || e.errno != 0 {
		return clone, false
	}
	e.text = e.text[:len(e.text)/2]
	clone.rec.entries[k] = e
	return clone, true
}

// entry finds the entry that Entries lists under this id.
func (r *Root) entry(id string) (k key, e entry, ok bool) {
	words, err := fields(id)
	if err != nil || len(words) == 0 {
		return k, e, false
	}
	k, rest, err := parseKey(words)
	if err != nil || len(rest) != 0 {
		return k, e, false
	}
	e, ok = r.rec.entries[k]
	return k, e, ok
}
