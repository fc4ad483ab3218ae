package guard

import (
	"sync"

	"imgward/guard/hostfs"
)

// A viewer looks up what paths lead to. [hostfs.Root] is one.
type viewer interface {
	Stat(path string) (hostfs.Stat, error)
	Readlink(path string) (string, error)
}

// lookups is a viewer for the paths that one source of a look names, whose
// collectors ask for the same ones at the same time: each is looked up once. It is
// made when the source was read, so that no path is looked up before what names it
// was read.
type lookups struct {
	*hostfs.Root

	mu    sync.Mutex
	stats map[string]*lookup
}

// A lookup is what a path leads to, known once somebody has asked.
type lookup struct {
	once sync.Once
	hostfs.Entry
}

func newLookups(root *hostfs.Root) *lookups {
	return &lookups{Root: root, stats: map[string]*lookup{}}
}

// Stat is [hostfs.Root.Stat], as it was answered first. Who asks meanwhile waits for
// that.
func (l *lookups) Stat(path string) (hostfs.Stat, error) {
	l.mu.Lock()
	e := l.stats[path]
	if e == nil {
		e = new(lookup)
		l.stats[path] = e
	}
	l.mu.Unlock()
	e.once.Do(func() { e.Stat, e.Err = l.Root.Stat(path) })
	return e.Stat, e.Err
}
