package guard

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"imgward/guard/hostfs"
	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

var update = flag.Bool("update", false, "write the verdicts of captured hosts into their files")

// A hostCase is a captured host: a file of testdata/hosts, and what is asked of
// it. Each question of its comment has an answer in a member of its own, "want"
// and the question, which holds the decision, the codes and the exact words.
type hostCase struct {
	file  string
	root  *hostfs.Root
	store Store
}

type question struct {
	op   Operation
	path string
	text string // as it stands in the file, and in the name of its answer
}

func hostCases(t *testing.T) []*hostCase {
	t.Helper()
	files, err := filepath.Glob("../testdata/hosts/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured hosts: %v", err)
	}
	var out []*hostCase
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		root, err := hostfs.Load(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		c := &hostCase{file: file, root: root}
		if dump, ok := root.Member("xenstore"); ok {
			server := xenstoretest.NewServer()
			t.Cleanup(func() { server.Close() })
			if err := server.Load(strings.NewReader(dump)); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			conn := xenstore.NewConn(server.Pipe())
			t.Cleanup(func() { conn.Close() })
			c.store = conn
		}
		out = append(out, c)
	}
	return out
}

func (c *hostCase) name() string { return strings.TrimSuffix(filepath.Base(c.file), ".txtar") }

func (c *hostCase) questions(t *testing.T) []question {
	t.Helper()
	qs, err := Questions(c.root)
	if err != nil {
		t.Fatalf("%s: %v", c.file, err)
	}
	var out []question
	for _, q := range qs {
		out = append(out, question{q.Operation, q.Path, q.String()})
	}
	if len(out) == 0 {
		t.Fatalf("%s: asks nothing", c.file)
	}
	return out
}

// examine looks at the captured host, or a changed one, and judges.
func examine(t *testing.T, root *hostfs.Root, store Store, q question, cs []Collector) (Verdict, []Finding, error) {
	t.Helper()
	host := &Host{FS: root, Store: store, State: "/var/lib/imgward"}
	target, err := Resolve(context.Background(), host, q.path)
	if err != nil {
		return Verdict{}, nil, err
	}
	defer target.Close()
	g := &Guard{Host: host, Policy: Policy{Operation: q.op}, Collectors: cs}
	e := g.look(context.Background(), target)
	return g.judge(target, e), e.Findings, nil
}

func TestCapturedHosts(t *testing.T) {
	for _, c := range hostCases(t) {
		t.Run(c.name(), func(t *testing.T) {
			answers := map[string]string{}
			for _, q := range c.questions(t) {
				v, found, err := examine(t, c.root, c.store, q, Collectors())
				if err != nil {
					t.Errorf("%s: %v", q.text, err)
					continue
				}
				for _, f := range found {
					if strings.Contains(f.Detail, hostfs.ErrNotCaptured.Error()) {
						t.Errorf("%s: the capture has a gap: %s", q.text, f.Detail)
					}
				}
				answers["want "+q.text] = v.Answer()
			}
			if *update {
				writeAnswers(t, c, answers)
				return
			}
			for name, got := range answers {
				want, ok := c.root.Member(name)
				if !ok {
					t.Errorf("%s has no member %q; run the test with -update and review it", c.file, name)
				} else if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s (-want +got; -update rewrites it):\n%s", c.file, name, diff)
				}
			}
			for _, m := range c.root.Members() {
				if _, ok := answers[m]; strings.HasPrefix(m, "want ") && !ok {
					t.Errorf("%s: the answer %q has no question", c.file, m)
				}
			}
		})
	}
}

func writeAnswers(t *testing.T, c *hostCase, answers map[string]string) {
	t.Helper()
	a, err := txtar.ParseFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want ") })
	for _, q := range c.questions(t) {
		a.Files = append(a.Files, txtar.File{Name: "want " + q.text, Data: []byte(answers["want "+q.text])})
	}
	if err := os.WriteFile(c.file, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// nameOf gives the name that an entry of a capture is about.
func nameOf(entry string) string {
	if i := strings.IndexByte(entry, '"'); i >= 0 {
		if name, err := strconv.Unquote(entry[i:]); err == nil {
			return name
		}
	}
	return entry[strings.LastIndexByte(entry, ' ')+1:]
}

// Whatever a collector cannot read must not turn its refusal into anything else,
// even when it is the only one that refuses. That it holds for each collector
// alone makes it hold for all together, because more findings never make the
// judgement bolder.
func TestBlindnessNeverMakesBolder(t *testing.T) {
	for _, c := range hostCases(t) {
		if c.store != nil {
			c.store = memo(c.store)
		}
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			done := map[string]bool{}
			for _, q := range c.questions(t) {
				for _, alone := range Collectors() {
					blindCase(t, c, q, alone, done)
				}
			}
		})
	}
}

// relies are the collectors that say for others what could not be read of the
// places that they have in common.
var relies = map[string][]Collector{"chain": {configs{}, saved{}}}

// blindCase tries everything that the collector reads. A host whose disks are
// used in one way several times is tried once for each way: done remembers.
func blindCase(t *testing.T, c *hostCase, q question, alone Collector, done map[string]bool) {
	t.Helper()
	read := &recorder{seen: map[string]bool{}}
	before, found, err := examine(t, c.root.Record(read.note), c.store, q, []Collector{alone})
	if err != nil || before.Decision == Proceed {
		return
	}
	way := alone.Name()
	for _, f := range found {
		way += fmt.Sprintf(" %s/%s", f.Code, f.Relation)
	}
	if done[way] {
		return
	}
	done[way] = true
	reached := read.reached(c.root)
	try := func(how, entry string, root *hostfs.Root) {
		v, _, err := examine(t, root, c.store, q, slices.Concat(relies[alone.Name()], []Collector{alone}))
		if err == nil && v.Decision == Proceed {
			t.Errorf("%s, looked at by %q alone: %s of %q turned a refusal because of %v into a verdict of %s", q.text, alone.Name(), how, entry, before.Codes(), v.Decision)
		}
	}
	for i, entry := range c.root.Entries() {
		if !reached[nameOf(entry)] {
			continue
		}
		// Which error it is makes no difference, but for the ones that mean an
		// answer; so the two take turns. What is in an image fails when it is
		// opened or when it is read.
		errnos := []syscall.Errno{syscall.EACCES, syscall.EIO}
		if !strings.HasPrefix(entry, "data ") {
			errnos = errnos[i%2:][:1]
		}
		for _, errno := range errnos {
			try(errno.Error(), entry, c.root.Fail(entry, errno))
		}
		if cut, ok := c.root.Truncate(entry); ok {
			try("truncation", entry, cut)
		}
	}
}

// The same for xenstore: no node that cannot be read makes the verdict bolder.
func TestBlindStoreNeverMakesBolder(t *testing.T) {
	for _, c := range hostCases(t) {
		if c.store == nil {
			continue
		}
		m := memo(c.store)
		t.Run(c.name(), func(t *testing.T) {
			for _, q := range c.questions(t) {
				before, _, err := examine(t, c.root, m, q, []Collector{xen{}})
				if err != nil || before.Decision == Proceed {
					continue
				}
				for _, p := range slices.Collect(maps.Keys(m.values)) {
					v, _, err := examine(t, c.root, denied{m, p}, q, []Collector{xen{}})
					if err == nil && v.Decision == Proceed {
						t.Errorf("%s: EACCES of %s turned a refusal because of %v into a verdict of %s", q.text, p, before.Codes(), v.Decision)
					}
				}
			}
		})
	}
}

// The source line of a finding is where the evidence is: without what lies
// there, the findings are others.
func TestSourcesTellTheTruth(t *testing.T) {
	for _, c := range hostCases(t) {
		if c.store != nil {
			c.store = memo(c.store)
		}
		t.Run(c.name(), func(t *testing.T) {
			entries := map[string][]string{}
			for _, e := range c.root.Entries() {
				name := nameOf(e)
				entries[name] = append(entries[name], e)
			}
			for _, q := range c.questions(t) {
				_, before, err := examine(t, c.root, c.store, q, Collectors())
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range before {
					name, _, _ := strings.Cut(f.Source, ":")
					if len(entries[name]) == 0 {
						continue // a question to the kernel, or a node of xenstore
					}
					root := c.root
					for _, e := range entries[name] {
						root = root.Delete(e)
					}
					_, after, err := examine(t, root, c.store, q, Collectors())
					if err == nil && slices.Equal(before, after) {
						t.Errorf("%s: nothing changes without %s, the source of %q", q.text, name, f.sentence())
					}
				}
			}
		})
	}
}

// A collector reads nothing that it does not declare, so that a capture made by
// its declaration has all that it needs.
func TestCollectorsReadWhatTheyDeclare(t *testing.T) {
	for _, c := range hostCases(t) {
		if c.store != nil {
			c.store = memo(c.store)
		}
		dump, _ := c.root.Member("xenstore")
		t.Run(c.name(), func(t *testing.T) {
			for _, q := range c.questions(t) {
				for _, alone := range Collectors() {
					target, err := Resolve(t.Context(), &Host{FS: c.root}, q.path)
					if err != nil {
						t.Fatal(err)
					}
					read := &recorder{seen: map[string]bool{}, target: target.Real}
					if err := target.Close(); err != nil {
						t.Fatal(err)
					}
					if _, _, err := examine(t, c.root.Record(read.note), c.store, q, []Collector{alone}); err != nil {
						t.Fatal(err)
					}
					for name := range read.seen {
						// The stack is read for every look; the target's own path is the operator's; names in
						// xenstore, in tables of mounts, swaps and exports and in descriptions of domains are what those sources are for.
						if declared(name, append(alone.Reads(), stackReads...)) || name == q.path || strings.HasPrefix(q.path, strings.TrimSuffix(name, "/")+"/") ||
							strings.Contains(dump, strings.TrimPrefix(name, "/dev/")) || inTables(c.root, name) || inDescriptions(c.root, name) ||
							alone == Collector(chain{}) && besideImage(c.root, q.path, name) {
							continue
						}
						t.Errorf("%s: collector %q read %s, which it does not declare", q.text, alone.Name(), name)
					}
				}
			}
		})
	}
}

func declared(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// besideImage tells a name in the target's directory, and one that is a directory
// of the capture's images or lies in one, which is where the chain collector looks.
func besideImage(root *hostfs.Root, target, name string) bool {
	dir := path.Dir(name)
	return dir == path.Dir(target) || strings.HasPrefix(name, "/srv/") &&
		(slices.Contains(root.Entries(), "dir "+dir) || slices.Contains(root.Entries(), "dir "+name))
}

// inTables tells a name that stands in a table of mounts, swap areas or exports.
func inTables(root *hostfs.Root, name string) bool {
	for _, table := range []string{"/proc/self/mountinfo", "/proc/swaps", "/proc/1/mountinfo", etab, exportsFile} {
		if b, err := root.ReadFile(table); err == nil && bytes.Contains(b, []byte(name)) {
			return true
		}
	}
	// What the kernel exports it knows by name.
	for _, e := range root.Entries() {
		if file, ok := strings.CutPrefix(e, "bytes "); ok && declared(file, exports{}.Reads()) {
			if b, err := root.ReadFile(file); err == nil && bytes.Contains(b, []byte(name)) {
				return true
			}
		}
	}
	return false
}

// inDescriptions tells a name that a description of a domain, or a process of
// xl, leads to.
func inDescriptions(root *hostfs.Root, name string) bool {
	inv := readInventory(context.Background(), &Host{FS: root}, ID{})
	return slices.ContainsFunc(inv.disks, func(d disk) bool { return d.Path == name || d.file == name })
}

// A recorder notes which names were asked for.
type recorder struct {
	mu     sync.Mutex
	seen   map[string]bool
	asked  []string
	target string // its real path
}

func (r *recorder) note(op, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !strings.HasPrefix(op, "ask ") && (op != "content" || name != r.target) {
		r.seen[name] = true
		return
	}
	// A question is declared by its own name, not by whom it is about; what is on
	// the target is one.
	r.seen[strings.TrimPrefix(op, "ask ")] = true
	r.asked = append(r.asked, name)
}

// reached gives what the noted names lead to, and every link on the way.
func (r *recorder) reached(root *hostfs.Root) map[string]bool {
	out := map[string]bool{}
	for _, name := range slices.Concat(r.asked, slices.Collect(maps.Keys(r.seen))) {
		at, rest := "", strings.Split(strings.TrimPrefix(name, "/"), "/")
		for hops := 0; len(rest) > 0 && hops < 200; hops++ {
			next := path.Join(at+"/", rest[0])
			out[next], rest = true, rest[1:]
			if link, err := root.Readlink(next); err == nil && len(rest) > 0 {
				if !strings.HasPrefix(link, "/") {
					link = path.Join(at+"/", link)
				}
				at, rest = "", append(strings.Split(strings.TrimPrefix(path.Clean(link), "/"), "/"), rest...)
				continue
			}
			at = next
		}
		out[name] = true
	}
	return out
}

// A memoStore answers from what another store said the first time.
type memoStore struct {
	under  Store
	mu     sync.Mutex
	values map[string]xenstore.Value
	lists  map[string]xenstore.Listing
}

func memo(s Store) *memoStore {
	if m, ok := s.(*memoStore); ok {
		return m
	}
	return &memoStore{under: s, values: map[string]xenstore.Value{}, lists: map[string]xenstore.Listing{}}
}

func (m *memoStore) ReadAll(ctx context.Context, paths []string) ([]xenstore.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]xenstore.Value, len(paths))
	var missing []string
	for _, p := range paths {
		if _, ok := m.values[p]; !ok {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		vs, err := m.under.ReadAll(ctx, missing)
		if err != nil {
			return nil, err
		}
		for _, v := range vs {
			m.values[v.Path] = v
		}
	}
	for i, p := range paths {
		out[i] = m.values[p]
	}
	return out, nil
}

func (m *memoStore) ListAll(ctx context.Context, paths []string) ([]xenstore.Listing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]xenstore.Listing, len(paths))
	for i, p := range paths {
		if _, ok := m.lists[p]; !ok {
			ls, err := m.under.ListAll(ctx, []string{p})
			if err != nil {
				return nil, err
			}
			m.lists[p] = ls[0]
		}
		out[i] = m.lists[p]
	}
	return out, nil
}

func (m *memoStore) Watch(ctx context.Context, p string, fire func(string)) error {
	fire(p)
	<-ctx.Done()
	return ctx.Err()
}

// A denied store refuses one path.
type denied struct {
	*memoStore
	path string
}

func (d denied) ReadAll(ctx context.Context, paths []string) ([]xenstore.Value, error) {
	out, err := d.memoStore.ReadAll(ctx, paths)
	out = slices.Clone(out)
	for i := range out {
		if out[i].Path == d.path {
			out[i] = xenstore.Value{Path: d.path, Err: syscall.EACCES}
		}
	}
	return out, err
}
