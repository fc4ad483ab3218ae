package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard/hostfs"
	"imgward/xenstore"
)

// A Host is what the guard looks at.
type Host struct {
	FS *hostfs.Root

	// Store is the host's xenstore. When nil there is none to ask, and StoreErr
	// says why: nil means that no daemon and no device for one exist.
	Store    Store
	StoreErr error

	// Claims makes claims in the same xenstore. When nil none are made.
	Claims Claimer

	// State is the directory of imgward's own marks, /var/lib/imgward unless
	// the operator moved it.
	State string

	// Local is the file of the statements that storage is only this host's,
	// /etc/imgward/local where it is empty.
	Local string

	// Patience is the pause before what short-lived openers disturb is looked at
	// again. Zero looks once.
	Patience time.Duration

	// Settle is the pause after which it is looked again at a domain that may be
	// about to start. Zero looks again at once.
	Settle time.Duration

	Log *slog.Logger
}

// looks is how often at most something that may be a passing probe is looked at.
const looks = 4

// again waits before another look at something that may be a passing probe. It is
// false, at once, after the last of them (the first is look 0), and when ctx ends.
func (h *Host) again(ctx context.Context, look int) bool {
	if h.Patience == 0 || look >= looks-1 {
		return false
	}
	select {
	case <-time.After(h.Patience):
		return true
	case <-ctx.Done():
		return false
	}
}

// Store is the part of xenstore that the guard reads. *xenstore.Conn is one.
type Store interface {
	ReadAll(ctx context.Context, paths []string) ([]xenstore.Value, error)
	ListAll(ctx context.Context, paths []string) ([]xenstore.Listing, error)
	Watch(ctx context.Context, path string, fire func(path string)) error
}

// A Target is a path that was resolved once and is known by its identity from
// then on. It holds a descriptor that was opened with O_PATH (open(2)), which
// counts as no opener anywhere; Close releases it.
type Target struct {
	Path string // as it was given
	Real string // the path without symbolic links, as the kernel gives it
	ID   ID
	Size int64  // bytes; 0 for a missing target
	Base string // the last element of Real

	handle *pin   // the target, or its directory when it is missing
	stack  *stack // as of the look that is going on
	foot   []span
	held   *held      // what we hold of the target ourselves, from the second look on
	own    []*os.File // what we read, which may be the target

	// glance is how xenstore is scanned by one who watches it for changes; nil for
	// all others, who scan it until it is quiet.
	glance func(context.Context, Store) (*storeScan, error)

	// scan is what xenstore says during the look that is going on, for all
	// collectors; read when the first one asks. Without a store it gives nil.
	scan func() (*storeScan, error)

	// descriptions is what describes domains during the look that is going on,
	// for all collectors; see inventory.
	descriptions *lookedUp
}

// A TypeError says that a path leads to something that is neither a regular
// file nor a block device.
type TypeError struct {
	Path string
	Type hostfs.FileType
}

func (e *TypeError) Error() string {
	return fmt.Sprintf("%s is a %s, not an image file or a block device", quote(e.Path), e.Type)
}

// Resolve follows path once and pins what it leads to. A path that does not
// exist yields a target of KindMissing, pinned by its directory. The caller
// closes the target.
func Resolve(ctx context.Context, host *Host, path string) (*Target, error) {
	if path == "" {
		return nil, errors.New("open \"\": the path is empty")
	}
	if strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("open %s: the path contains a NUL byte", quote(path))
	}
	full, err := fromRoot(path)
	if err != nil {
		return nil, openError(path, err)
	}
	h, err := host.FS.Open(full)
	if errors.Is(err, fs.ErrNotExist) {
		return resolveMissing(host, path, full)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	id, ok := idOf(h.Stat)
	if !ok {
		h.Close()
		return nil, &TypeError{path, h.Stat.Type}
	}
	t := &Target{Path: path, Real: h.Real, ID: id, Size: h.Stat.Size, Base: filepath.Base(h.Real), handle: newPin(h)}
	if id.Kind == KindBlock {
		text, err := host.FS.Ask(ctx, hostfs.Size, h.Name())
		if err == nil {
			t.Size, err = strconv.ParseInt(text, 10, 64)
		}
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("size of %s: %w", quote(path), reason(err))
		}
	}
	return t, nil
}

// fromRoot gives a path from the root. It is not cleaned: after a symbolic link
// ".." means something else.
func fromRoot(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := os.Getwd()
	return wd + "/" + path, err
}

// resolveMissing pins the directory of a path that does not exist. full is the
// path from the root.
func resolveMissing(host *Host, path, full string) (*Target, error) {
	if to, err := host.FS.Readlink(full); err == nil {
		return nil, &danglingError{path, full, to}
	}
	dir, base := filepath.Split(full)
	if base == "" || base == "." || base == ".." {
		return nil, openError(path, syscall.ENOENT)
	}
	h, err := host.FS.Open(dir)
	if err != nil {
		return nil, openError(path, err)
	}
	if h.Stat.Type != hostfs.Directory {
		h.Close()
		return nil, openError(path, syscall.ENOTDIR)
	}
	return &Target{
		Path: path, Real: filepath.Join(h.Real, base), Base: base, handle: newPin(h),
		ID: ID{Kind: KindMissing, Dev: h.Stat.Dev, Ino: h.Stat.Ino},
	}, nil
}

// A danglingError is about a symbolic link that leads nowhere.
type danglingError struct {
	path string // as it was given
	from string // from the root
	to   string // what the link says
}

func (e *danglingError) Error() string {
	return fmt.Sprintf("open %s: it is a symbolic link to %s, which does not exist", quote(e.path), quote(e.to))
}

func openError(path string, err error) error {
	return fmt.Errorf("open %s: %w", quote(path), reason(err))
}

// reason strips what os and fs wrap around an errno, so that a path is not
// said twice in one line.
func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// Close releases the descriptor that pins the target. It stays open while a
// collector that is late still looks.
func (t *Target) Close() error { return t.handle.release() }

// A pin keeps a descriptor open while the target or a collector uses it: one
// that is late must not ask about what has the descriptor's number by then.
type pin struct {
	*hostfs.Handle

	mu    sync.Mutex
	users int
}

func newPin(h *hostfs.Handle) *pin { return &pin{Handle: h, users: 1} }

func (p *pin) use() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users++
}

func (p *pin) release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users > 0 {
		return nil
	}
	return p.Handle.Close()
}

// Exists reports whether the target was there when it was resolved.
func (t *Target) Exists() bool { return t.ID.Kind != KindMissing }

// Relate says how id overlaps the target, through partitions, loop devices,
// device-mapper, md and what LVM makes of them, as of the last look.
func (t *Target) Relate(id ID) Relation {
	if t.ID.Kind == KindMissing || t.stack == nil {
		if id == t.ID && t.ID.Kind != KindMissing {
			return Same
		}
		return Unrelated
	}
	return t.stack.relate(t.ID, t.foot, id)
}

// via says, for the end of a sentence, how id leads to the target.
func (t *Target) via(rel Relation, id ID) string {
	name := id.String()
	if t.stack != nil {
		if d := t.stack.devices[id]; d != nil {
			name = d.label()
		}
	}
	switch rel {
	case Partition:
		return ", through its partition " + name
	case Whole:
		return ", through the whole disk " + name
	case Above:
		return ", through " + name + ", which stands on it"
	case Below:
		return ", through " + name + ", on which it stands"
	case Beside:
		return ", through " + name + ", which uses the same bytes"
	}
	return ""
}

// look takes in the block layer as it is now. The returned target shares the
// descriptor. A device that is not in sysfs says that what stands on it cannot
// be seen either.
func (t *Target) look(ctx context.Context, host *Host, blind func(string, error)) *Target {
	view := *t
	view.stack = readStack(ctx, host.FS, blind)
	if t.ID.Kind == KindBlock && view.stack.devices[t.ID] == nil {
		blind("/sys/block", fmt.Errorf("device %s is not there", t.ID))
	}
	view.foot = view.stack.footprint(t.ID)
	view.scan = sync.OnceValues(func() (*storeScan, error) {
		if host.Store == nil {
			return nil, host.StoreErr
		}
		ours := t.held.claimed() // before the scan, which has to find them
		var scan *storeScan
		var err error
		if t.glance != nil {
			scan, err = limited(ctx, host.Store, t.glance)
		} else {
			scan, err = settledScan(ctx, host.Store, view.toAsk(host.FS))
		}
		if err != nil {
			return nil, err
		}
		scan.paths, scan.ours = newLookups(host.FS), ours
		return scan, nil
	})
	view.descriptions = new(lookedUp)
	return &view
}

// glancing is the same target, for one who watches xenstore for changes.
func (t *Target) glancing(scan func(context.Context, Store) (*storeScan, error)) *Target {
	view := *t
	view.glance = scan
	return &view
}

// layered tells a file of overlayfs, of which a lease does not count the mappings:
// they keep the file of the layer open (fs/backing-file.c, backing_file_mmap), and
// not the one that they were made from. What cannot be asked may be one.
func (t *Target) layered() bool {
	if t.ID.Kind != KindFile || t.handle == nil || t.handle.Fd() < 0 {
		return false
	}
	var st unix.Statfs_t
	err := unix.Fstatfs(t.handle.Fd(), &st)
	return err != nil || st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// severalWays tells a target on a disk that is reached in more than one way.
func (t *Target) severalWays() bool {
	return slices.ContainsFunc(t.foot, func(sp span) bool { return sp.on.Kind == kindUnit })
}

// toAsk gives what is asked of xenstore about a disk's node beside what it is
// about: nothing where that is not the target.
func (t *Target) toAsk(root viewer) asking {
	return func(n node, foreign bool) []string {
		if foreign || !n.isDisk() {
			return nil
		}
		about := t.Relate(n.deviceID()) != Unrelated
		for _, key := range pathKeys {
			for _, p := range n.paths(key) {
				rel, err := t.reach(root, p)
				about = about || rel != Unrelated || err != nil
			}
		}
		if !about {
			return nil
		}
		return howKeys
	}
}

// reach says how what path leads to, as some description or node spells it,
// overlaps the target: by what lies there now, or else as [Named] when the name
// alone leads to the target's place.
func (t *Target) reach(root viewer, path string) (Relation, error) {
	st, err := root.Stat(path)
	if err == nil {
		if id, ok := idOf(st); ok {
			if rel := t.Relate(id); rel != Unrelated {
				return rel, nil
			}
		}
		if path != t.Real && path != t.Path {
			return Unrelated, nil
		}
		return Named, nil
	}
	named, err := t.names(root, path)
	if named {
		return Named, nil
	}
	return Unrelated, err
}

// names reports whether path, as some configuration or node spells it, leads
// to the target's place in the file system: to the target itself, or, when
// nothing is there, to the directory and name where it would be.
func (t *Target) names(root viewer, path string) (bool, error) {
	if path == t.Real || path == t.Path {
		return true, nil
	}
	for range maxLinks {
		st, err := root.Stat(path)
		if err == nil {
			id, ok := idOf(st)
			return ok && id == t.ID, nil
		}
		if !nothingThere(err) {
			return false, err
		}
		if t.ID.Kind != KindMissing {
			return false, nil
		}
		dir, base := filepath.Split(path)
		if to, err := root.Readlink(path); err == nil {
			// A link that leads nowhere; what it leads to can be the target.
			if !filepath.IsAbs(to) {
				to = dir + to
			}
			path = to
			continue
		}
		if base != t.Base {
			return false, nil
		}
		at, err := root.Stat(dir)
		if nothingThere(err) {
			return false, nil
		}
		return err == nil && at.Dev == t.ID.Dev && at.Ino == t.ID.Ino, err
	}
	return false, nil
}

// maxLinks is how many links the kernel follows for one path (path_resolution(7)).
const maxLinks = 40

// nothingThere tells that no file has the name, from that it cannot be told.
func nothingThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.ELOOP)
}

// String describes the target for the head line of an explanation.
func (t *Target) String() string {
	switch t.ID.Kind {
	case KindMissing:
		return quote(t.Path) + " (a new file)"
	case KindBlock:
		return fmt.Sprintf("%s (%s, %s, %s)", quote(t.Path), quote(t.Base), t.ID, Bytes(t.Size))
	}
	return fmt.Sprintf("%s (file, %s, %s)", quote(t.Path), t.ID, Bytes(t.Size))
}

// Bytes writes a size as people say it: "512 MiB", "1.5 GiB", "100 bytes".
// Sizes that a unit does not divide are rounded to one decimal.
func Bytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, u := float64(n), -1
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	return strings.Replace(fmt.Sprintf("%.1f %ciB", f, units[u]), ".0 ", " ", 1)
}

// quote makes foreign text safe to print: text of ordinary path characters is
// left alone, anything else is quoted as a Go string, so that no control
// character, space or escape sequence reaches the terminal unseen.
func quote(s string) string {
	if s != "" && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strconv.Quote(s)
}

func odd(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+:@=,%~#", r))
}
