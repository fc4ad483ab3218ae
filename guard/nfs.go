package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Where the kernel's NFS server is told what to export: what exportfs(8) has
// told it, and what it will at the next start (exports(5)).
const (
	etab        = "/var/lib/nfs/etab"
	exportsFile = "/etc/exports"
	exportsDir  = "/etc/exports.d"
)

// An nfsExport is one line of a table of exports.
type nfsExport struct {
	dir     string
	clients []string // each with its options in parentheses
	line    string
}

// parseNFSExports reads a table of exports (exports(5)): a directory in each line,
// in quotation marks or with octal escapes where it is odd, then clients. A
// comment begins with #, and a backslash at the end joins two lines.
func parseNFSExports(table string) ([]nfsExport, error) {
	var out []nfsExport
	for line := range strings.Lines(strings.ReplaceAll(table, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		dir, rest, ok := line, "", true
		if line[0] == '"' {
			dir, rest, ok = strings.Cut(line[1:], `"`)
		} else if i := strings.IndexAny(line, " \t"); i >= 0 {
			dir, rest = line[:i], line[i:]
		}
		if dir = unescape(dir); !ok || !strings.HasPrefix(dir, "/") {
			return out, fmt.Errorf("table of exports has a malformed line %q", line)
		}
		rest, _, _ = strings.Cut(rest, "#")
		out = append(out, nfsExport{dir, strings.Fields(rest), line})
	}
	return out, nil
}

// nfs doubts a file that this host exports: one below an exported
// directory, by its name or by its place in the file system of m.
func (w *localWalk) nfs(m *mount, name string, trail []storage) {
	tables := []string{etab, exportsFile}
	extra, err := w.host.FS.ReadDir(exportsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.s.Blind(exportsDir, err)
	}
	for _, e := range extra {
		if strings.HasSuffix(e, ".exports") && e[0] != '.' {
			tables = append(tables, exportsDir+"/"+e)
		}
	}
	for _, table := range tables {
		b, err := w.host.FS.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var es []nfsExport
		if err == nil {
			es, err = parseNFSExports(string(b))
		}
		if err == nil && table == etab && len(b) > 0 && b[len(b)-1] != '\n' {
			err = errors.New("it is cut off")
		}
		if err != nil {
			w.s.Blind(table, err)
		}
		for _, e := range es {
			in, err := w.exported(e.dir, m, name)
			if err != nil {
				w.s.Blind(e.dir, err)
			}
			if key := "export " + e.dir; in && !w.seen[key] {
				w.seen[key] = true // exports(5) and etab name the same ones
				w.doubt(e.finding(table), trail)
			}
		}
	}
}

func (e nfsExport) finding(table string) Finding {
	f := Finding{
		Code: LocalityExported, Relation: Named, Subject: "an NFS export", Key: e.dir, Source: table + ": " + quote(e.line),
		Detail: "of " + quote(e.dir) + " lets other hosts use it", Remedy: "take it out of " + quote(table) + " and run \"exportfs -ra\"",
	}
	if table == etab && len(e.clients) > 0 {
		client, _, _ := strings.Cut(e.clients[0], "(")
		f.Remedy = "end it with \"exportfs -u " + quote(client+":"+e.dir) + "\""
	}
	return f
}

// exported tells whether a file, known as name and reached through m, is below
// the exported directory dir.
func (w *localWalk) exported(dir string, m *mount, name string) (bool, error) {
	if within(name, path.Clean(dir)) {
		return true, nil
	}
	h, err := w.host.FS.Open(dir)
	if nothingThere(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer h.Close()
	em := mountOf(w.mounts, h.Stat.Dev, h.Real)
	if em == nil {
		return within(name, h.Real), nil
	}
	return within(name, h.Real) || em.dev == m.dev && within(m.inside(name), em.inside(h.Real)), nil
}

// inside gives the path in the mounted file system of what is reached as name.
func (m *mount) inside(name string) string {
	below, ok := strings.CutPrefix(name, strings.TrimSuffix(m.point, "/"))
	if !ok {
		return name // reached in a way that the table does not show
	}
	return path.Join(m.root, below)
}
