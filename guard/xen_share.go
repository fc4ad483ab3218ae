package guard

import "imgward/guard/hostfs"

// judgeShares reports the directories of this host that a living domain has as
// a file system of its own, through 9pfs or virtiofs: it may open any file
// below them at any time, and no node tells which. libxl writes the directory as
// the key "path" of the backend (kinds 9pfs and xen_9pfs); of any other kind the
// key counts where it leads to a directory.
func (x *xenLook) judgeShares(scan *storeScan) {
	if len(scan.shares) == 0 || x.t.ID.Kind != KindFile {
		return
	}
	as, where, err := x.t.ancestors(x.host.FS)
	if err != nil {
		x.s.Blind(where, err)
	}
	for _, n := range scan.shares {
		if !scan.lives(n.domid) {
			continue
		}
		for _, p := range n.paths("path") {
			st, err := x.host.FS.Stat(p)
			if err != nil && !nothingThere(err) {
				x.s.Blind(p, err)
			}
			if err != nil || st.Type != hostfs.Directory {
				continue
			}
			if _, ok := inside(as, st); ok {
				x.s.Found(x.about(scan, n, Finding{
					Code: XenSharedDir, Relation: Same,
					Detail: "has the directory " + quote(p) + ", in which it lies, as a file system of its own (" + quote(n.kind) + ")",
					Source: quote(n.path) + ": " + n.show("path"),
					Remedy: "shut down domain " + quote(scan.owner(n.domid)) + ", or make sure that it has not opened the file",
				}))
				break
			}
		}
	}
}
