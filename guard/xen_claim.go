package guard

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"imgward/xenstore"
)

// A storeClaim is what an imgward, maybe one that has ended, wrote into xenstore.
type storeClaim struct {
	xenstore.Claim
	path   string
	broken error // why it is none; then at most its ID and Target are known
}

// lives reports whether the process that made the claim still runs. When that
// cannot be told, it does.
func (c storeClaim) lives(host *Host) bool {
	if c.broken != nil {
		return false // who made it was stopped in the middle, for claims are made under a lock
	}
	return writer{strconv.Itoa(c.PID), strconv.FormatUint(c.Start, 10), c.Boot, c.Namespace}.lives(host)
}

// who names the process that made the claim, as it is numbered where it runs.
func (c storeClaim) who(host *Host) string {
	who := "imgward (process " + strconv.Itoa(c.PID)
	if ours := pidNamespace(host); c.Namespace == "" || c.Namespace != ours {
		who += " of another PID namespace"
	}
	return who + ")"
}

// claimsDir is where claims lie on the host of domain self.
func claimsDir(self string) string {
	return domainsDir + "/" + self + "/backend/vbd/" + xenstore.ClaimDomid
}

// readClaims reads all claims and nothing else.
func readClaims(ctx context.Context, store Store) ([]storeClaim, error) {
	self, err := ownDomid(ctx, store)
	if err != nil {
		return nil, err
	}
	r := &storeReader{ctx: ctx, store: store, scan: &storeScan{self: self}}
	r.claims(r.children([]string{claimsDir(self)}))
	err = r.err
	for _, b := range r.scan.blind {
		err = errors.Join(err, b.err)
	}
	return r.scan.claims, err
}

// claims reads those of the given directories that are claims, and returns the
// others. What is where claims are, and gives a device by number without being
// one, is among both.
func (r *storeReader) claims(dirs []string) (others []string) {
	var nodes, both []string
	for _, d := range dirs {
		if path.Dir(d) != claimsDir(r.scan.self) {
			others = append(others, d)
			continue
		}
		nodes, both = append(nodes, d), append(both, d, d+"/imgward")
	}
	paths := r.children(both)
	values := r.readAll(paths)
	for _, d := range nodes {
		keys := map[string]string{}
		for _, p := range paths {
			if name, ok := strings.CutPrefix(p, d+"/"); ok {
				keys[name] = values[p]
			}
		}
		c := storeClaim{path: d}
		if c.Claim, c.broken = xenstore.ParseClaim(path.Base(d), keys); c.broken != nil && keys["physical-device"] != "" {
			others = append(others, d)
		}
		r.scan.claims = append(r.scan.claims, c)
	}
	return others
}

// judgeClaims reports the claims of other imgwards on the target. A target that is
// written claims all that shares bytes with it, so that only what is written
// counts, and each process once. Ours must be there as we made them, and are none
// of these while we make or withdraw them.
func (x *xenLook) judgeClaims(scan *storeScan) {
	for _, c := range scan.ours {
		if !slices.ContainsFunc(scan.claims, func(o storeClaim) bool { return o.Claim == c }) {
			x.s.Blind("xenstore", errors.New("the claim that was just made is not there any more"))
		}
	}
	said := map[xenstore.Claim]bool{}
	for _, c := range scan.claims {
		if c.broken != nil || slices.Contains(scan.ours, c.Claim) {
			continue
		}
		rel := x.t.Relate(BlockID(c.Target))
		live := c.lives(x.host)
		if h := x.t.held; live && h != nil && !h.reading && c.PID == h.pid && c.Namespace == pidNamespace(x.host) && BlockID(c.Target) == x.t.ID {
			continue
		}
		if rel == Unrelated && !live && x.t.orphan(c) {
			rel = Same
		}
		writer := c.Claim
		writer.ID, writer.Device = 0, 0
		if rel == Unrelated || said[writer] {
			continue
		}
		said[writer] = true
		f := Finding{
			Relation: rel, Subject: c.who(x.host), Key: "imgward." + strconv.Itoa(c.PID),
			Source: fmt.Sprintf("%s: imgward/operation = %s, imgward/start = %d", quote(c.path), quote(c.Operation), c.Start),
		}
		if live {
			f.Code, f.Detail, f.Remedy = SelfWriting, "is writing to it, says its claim in xenstore"+x.t.via(rel, BlockID(c.Target)), "wait until it is done"
		} else {
			f.Code = ClaimLeft
			f.Detail = fmt.Sprintf("ended without finishing, and Xen starts no domain on it%s: overwrite it with a whole image, or type %q",
				x.t.via(rel, BlockID(c.Target)), "imgward release "+shellWord(x.t.nameOf(rel, BlockID(c.Target))))
		}
		x.s.Found(f)
	}
}

// refuses reports whether Xen refuses the device of a node, which names it, because
// we claimed it: what came after the look behind the claim meets it, if it is
// attached by the script that looks for claims. That script writes the number of
// a device that it does not refuse, and makes a loop device, which nobody claimed,
// of a file.
func (h *held) refuses(n node, paths viewer) bool {
	_, opened := n.get("physical-device")
	if h == nil {
		return false
	}
	ours := h.claims.Load()
	if ours == nil || !ours.refusing || n.kind != "vbd" || opened || path.Base(n.keys["script"]) != "block" {
		return false
	}
	return slices.ContainsFunc(n.paths("params"), func(p string) bool {
		st, err := paths.Stat(p)
		id, ok := idOf(st)
		return err == nil && ok && slices.ContainsFunc(ours.made, func(c xenstore.Claim) bool { return BlockID(c.Device) == id })
	})
}

// orphan reports whether the claim is on the target itself, for the sake of a
// device that does not exist any more.
func (t *Target) orphan(c storeClaim) bool {
	return BlockID(c.Device) == t.ID && t.stack != nil && t.stack.devices[BlockID(c.Target)] == nil
}

// nameOf is the path of a device that overlaps the target.
func (t *Target) nameOf(rel Relation, id ID) string {
	if d := t.stack.devices[id]; rel != Same && d != nil {
		return d.path()
	}
	return t.Path
}
