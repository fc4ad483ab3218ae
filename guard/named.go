package guard

import (
	"sync"

	"imgward/guard/domcfg"
	"imgward/guard/hostfs"
)

// A namer compares what descriptions of domains name with the target. It looks
// each name up once.
type namer struct {
	t     *Target
	s     *Sheet
	paths *lookups
	above func() ([]ancestor, error) // the directories that the target lies in
	seen  map[string]Relation
}

func newNamer(host *Host, t *Target, s *Sheet, inv *inventory) *namer {
	return &namer{t: t, s: s, paths: inv.paths, seen: map[string]Relation{}, above: sync.OnceValues(func() ([]ancestor, error) {
		as, _, err := t.ancestors(host.FS)
		return as, err
	})}
}

// relate says how what d names overlaps the target. A name that cannot be looked
// up is blindness, said once.
func (n *namer) relate(d disk) Relation {
	key := d.Path
	if d.kind == domcfg.Directory {
		key += "/" // a directory is another question than a disk of the same name
	}
	rel, ok := n.seen[key]
	if ok {
		return rel
	}
	var err error
	if d.kind == domcfg.Directory {
		rel, err = n.inside(d.Path)
	} else {
		rel, err = n.t.reach(n.paths, d.Path)
	}
	if err != nil {
		n.s.Blind(d.Path, err)
	}
	n.seen[key] = rel
	return rel
}

// inside tells whether the target lies in a directory or in one below it.
func (n *namer) inside(dir string) (Relation, error) {
	st, err := n.paths.Stat(dir)
	if nothingThere(err) {
		return Unrelated, nil
	}
	if err != nil || st.Type != hostfs.Directory {
		return Unrelated, err
	}
	as, err := n.above()
	if _, ok := inside(as, st); ok {
		return Same, nil
	}
	return Unrelated, err
}

// use says in words what a domain does with the target, as of verb: "has it as
// xvda", "is to have".
func (d disk) use(has, boots, shares string) string {
	switch d.kind {
	case domcfg.Boot:
		return boots
	case domcfg.Directory:
		return shares + " " + quote(d.Path)
	}
	if d.dev != "" {
		return has + " as " + quote(d.dev)
	}
	return has
}

// where completes a use by how the path leads to the target.
func (n *namer) where(d disk, rel Relation) string {
	switch rel {
	case Same:
		return ""
	case Named:
		if n.t.Exists() {
			return ", by this name, though something else lay there when it was looked up"
		}
		return ", by this name"
	}
	st, err := n.paths.Stat(d.Path)
	if id, ok := idOf(st); err == nil && ok {
		return n.t.via(rel, id)
	}
	return ""
}
