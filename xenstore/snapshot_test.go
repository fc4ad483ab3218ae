package xenstore_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/xenstore"
	"imgward/xenstore/dump"
	"imgward/xenstore/xenstoretest"
)

const stored = `/local = ""
/local/domain/0/domid = "0"
/local/domain/0/name = "Domain-0"
/local/domain/7/name = "web"
/local/domain/7/secret:
/local/domain/7/half:
/local/domain/7/half/known = "1"
`

// parse reads a dump.
func parse(t *testing.T, text string) []dump.Node {
	t.Helper()
	nodes, err := dump.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// A snapshot answers as a daemon with the same nodes does, but for what the dump
// says nobody could read: there it knows less, and must say so.
func TestSnapshotAnswersAsTheDaemon(t *testing.T) {
	s := xenstoretest.NewServer()
	defer s.Close()
	if err := s.Load(strings.NewReader(stored)); err != nil {
		t.Fatal(err)
	}
	conn := xenstore.NewConn(s.Pipe())
	defer conn.Close()
	snap := xenstore.NewSnapshot("", parse(t, stored))
	paths := []string{
		"/", "/local", "/local/domain", "/local/domain/0", "/local/domain/0/name", "domid", "name", "nothing", "/none", "/none/at/all",
		"/local/domain/7/half", "/local/domain/7/half/known", "/local/domain/7/half/none", "", "/a//b", "/a/", "a b",
	}
	values, err := conn.ReadAll(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := conn.ListAll(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	got, err := snap.ReadAll(t.Context(), paths)
	if diff := cmp.Diff(values, got, cmp.Comparer(sameReason)); diff != "" || err != nil {
		t.Errorf("values (-daemon +snapshot), %v:\n%s", err, diff)
	}
	gotLists, err := snap.ListAll(t.Context(), paths)
	for i := range lists {
		slices.Sort(lists[i].Names)
		slices.Sort(gotLists[i].Names)
		// The daemon denies a node with all that is listed there; a dump has it.
		if lists[i].Path == "/local/domain/7/half" {
			lists[i] = gotLists[i]
		}
	}
	if diff := cmp.Diff(lists, gotLists, cmp.Comparer(sameReason)); diff != "" || err != nil {
		t.Errorf("lists (-daemon +snapshot), %v:\n%s", err, diff)
	}
	if snap.Domid() != "0" {
		t.Errorf("domid %q", snap.Domid())
	}
}

func sameReason(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	for _, errno := range []error{syscall.ENOENT, syscall.EACCES, syscall.EINVAL} {
		if errors.Is(a, errno) != errors.Is(b, errno) {
			return false
		}
	}
	return true
}

// What could not be read is not taken for what is not there.
func TestSnapshotOfTheUnreadable(t *testing.T) {
	snap := xenstore.NewSnapshot("", parse(t, stored))
	paths := []string{"/local/domain/7/secret", "/local/domain/7/secret/below", "/local/domain/7/secret/far/below"}
	vs, err := snap.ReadAll(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := snap.ListAll(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		var op *xenstore.OpError
		if !errors.Is(vs[i].Err, fs.ErrPermission) || !errors.Is(ls[i].Err, fs.ErrPermission) || !errors.As(ls[i].Err, &op) || op.Path != path {
			t.Errorf("%s: %v, %v", path, vs[i].Err, ls[i].Err)
		}
	}
}

// A store that is taken, printed, parsed and made again is the same store.
func TestTake(t *testing.T) {
	s := xenstoretest.NewServer()
	defer s.Close()
	if err := s.Load(strings.NewReader(stored + `/odd = "a\x00\n\"b\""` + "\n")); err != nil {
		t.Fatal(err)
	}
	conn := xenstore.NewConn(s.Pipe())
	defer conn.Close()
	snap, err := xenstore.Take(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, n := range snap.Nodes() {
		text.WriteString(n.String() + "\n")
	}
	again := xenstore.NewSnapshot(snap.Domid(), parse(t, text.String()))
	if diff := cmp.Diff(snap.Nodes(), again.Nodes()); diff != "" {
		t.Errorf("taken, and made of its dump:\n%s", diff)
	}
	if vs, err := again.ReadAll(t.Context(), []string{"/odd", "domid"}); err != nil || string(vs[0].Data) != "a\x00\n\"b\"" || string(vs[1].Data) != "0" {
		t.Errorf("%q, %v", vs, err)
	}
	ls, err := snap.ListAll(t.Context(), []string{"/local/domain/7/secret", "/local/domain/7/half"})
	if err != nil || !errors.Is(ls[0].Err, fs.ErrPermission) || !errors.Is(ls[1].Err, fs.ErrPermission) {
		t.Errorf("what the daemon refused: %v, %v", ls, err)
	}
}

// A store that another domain took has its own relative paths.
func TestSnapshotOfAnotherDomain(t *testing.T) {
	snap := xenstore.NewSnapshot("7", parse(t, `/local/domain/7/domid = "7"`))
	vs, err := snap.ReadAll(t.Context(), []string{"domid"})
	if err != nil || string(vs[0].Data) != "7" {
		t.Errorf("%q, %v", vs, err)
	}
	taken, err := xenstore.Take(t.Context(), snap)
	if err != nil || taken.Domid() != "7" {
		t.Errorf("taken again: %+v, %v", taken, err)
	}
}

func TestTakeFails(t *testing.T) {
	s := xenstoretest.NewServer()
	conn := xenstore.NewConn(s.Pipe())
	defer conn.Close()
	s.Close()
	if snap, err := xenstore.Take(t.Context(), conn); err == nil || snap != nil {
		t.Errorf("a store that is gone: %+v, %v", snap, err)
	}
}

// A node that goes away while it is taken was never there.
func TestTakeWhileNodesGo(t *testing.T) {
	snap := xenstore.NewSnapshot("", parse(t, "/a/b = \"1\"\n/c = \"2\""))
	taken, err := xenstore.Take(t.Context(), vanishing{snap, "/a/b"})
	if err != nil {
		t.Fatal(err)
	}
	ls, err := taken.ListAll(t.Context(), []string{"/a", "/a/b"})
	if err != nil || ls[0].Err != nil || len(ls[0].Names) != 0 || !errors.Is(ls[1].Err, fs.ErrNotExist) {
		t.Errorf("%+v, %v", ls, err)
	}
	if ls, err := snap.ListAll(t.Context(), []string{"/a"}); err != nil || len(ls[0].Names) != 1 {
		t.Errorf("taking changed what it was taken from: %+v, %v", ls, err)
	}
}

// A vanishing store lists a node that cannot be read any more.
type vanishing struct {
	*xenstore.Snapshot
	path string
}

func (v vanishing) ReadAll(ctx context.Context, paths []string) ([]xenstore.Value, error) {
	vs, err := v.Snapshot.ReadAll(ctx, paths)
	for i := range vs {
		if vs[i].Path == v.path {
			vs[i] = xenstore.Value{Path: v.path, Err: &xenstore.OpError{Op: "read", Path: v.path, Err: syscall.ENOENT}}
		}
	}
	return vs, err
}

func (v vanishing) ListAll(ctx context.Context, paths []string) ([]xenstore.Listing, error) {
	ls, err := v.Snapshot.ListAll(ctx, paths)
	for i := range ls {
		if ls[i].Path == v.path {
			ls[i] = xenstore.Listing{Path: v.path, Err: &xenstore.OpError{Op: "list", Path: v.path, Err: syscall.ENOENT}}
		}
	}
	return ls, err
}

func TestSnapshotWatch(t *testing.T) {
	snap := xenstore.NewSnapshot("", nil)
	ctx, cancel := context.WithCancel(t.Context())
	var fired []string
	err := snap.Watch(ctx, "/local/domain", func(p string) { fired = append(fired, p); cancel() })
	if !errors.Is(err, context.Canceled) || !slices.Equal(fired, []string{"/local/domain"}) {
		t.Errorf("%q, %v", fired, err)
	}
	if err := snap.Watch(t.Context(), "a b", nil); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no path: %v", err)
	}
}
