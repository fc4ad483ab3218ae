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
// collectors ask for the same ones: each is looked up once. It is made when the
// source was read, so that no path is looked up before what names it was read.
type lookups struct {
	*hostfs.Root

	mu    sync.Mutex
	stats map[string]hostfs.Entry
}

func newLookups(root *hostfs.Root) *lookups {
	return &lookups{Root: root, stats: map[string]hostfs.Entry{}}
}

// Stat is [hostfs.Root.Stat], as it was answered first.
func (l *lookups) Stat(path string) (hostfs.Stat, error) {
	l.mu.Lock()
	e, ok := l.stats[path]
	l.mu.Unlock()
	if !ok {
		e.Stat, e.Err = l.Root.Stat(path)
		l.mu.Lock()
		l.stats[path] = e
		l.mu.Unlock()
	}
	return e.Stat, e.Err
}
