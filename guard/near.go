package guard

import (
	"context"
	"path"
	"unicode/utf8"
)

// near remarks that the target's name is one slip of the finger away from the
// name of an image that a living domain uses: one character more, less or
// another, or two that changed places. It compares the target's path, as given
// and without links, with what the nodes of xenstore name, and says nothing when
// a living domain uses the target itself. It stops nothing, and what it cannot
// read the collector xen reports.
type near struct{}

func (near) Name() string { return "near" }

func (near) Reads() []string { return []string{"xenstore"} }

// Collect implements [Collector].
func (near) Collect(_ context.Context, _ *Host, t *Target, s *Sheet) {
	scan, err := t.scan()
	if err != nil || scan == nil {
		return
	}
	var nearest *node
	var key, name string
	for i, n := range scan.nodes {
		if !scan.lives(n.domid) {
			continue
		}
		if t.Relate(n.deviceID()) != Unrelated {
			return
		}
		for _, k := range []string{"params", "active-disk", "hidden-disk"} {
			for _, p := range n.paths(k) {
				if used, err := t.names(scan.paths, p); used || err != nil {
					return
				}
				if nearest == nil && (slip(p, t.Real) || path.IsAbs(t.Path) && slip(p, t.Path)) {
					nearest, key, name = &scan.nodes[i], k, p
				}
			}
		}
	}
	if nearest == nil {
		return
	}
	s.Found(Finding{
		Code: NearName, Subject: "domain " + quote(nearest.domid) + " (" + scan.name(nearest.domid) + ")", Key: scan.key(nearest.domid),
		Detail: "has a disk whose name is one slip of the finger away: " + quote(name),
		Source: quote(nearest.path) + ": " + nearest.show(key),
	})
}

// slip tells whether a and b differ by one character that was inserted, left
// out or replaced, or by two neighbours that changed places: whether their
// Damerau-Levenshtein distance is 1.
func slip(a, b string) bool {
	if apart(a, b) {
		return false
	}
	x, y := []rune(a), []rune(b)
	for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	if len(x) == 2 && len(y) == 2 {
		return x[0] == y[1] && x[1] == y[0]
	}
	return max(len(x), len(y)) == 1
}

// apart tells names of which more differs than two characters, byte by byte, as
// nearly all do.
func apart(a, b string) bool {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for a != "" && b != "" && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	return max(len(a), len(b)) > 2*utf8.UTFMax
}
