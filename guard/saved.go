package guard

import "context"

// saved looks for saved domains whose memory has the target's file systems
// mounted: files of "xl save" in the directory of the xendomains service
// (xl.h, struct save_file_header), and libvirt's managed saves for Xen and for
// QEMU. Nothing else shows such a domain: it has no node in xenstore, and nobody
// holds its images.
//
// It does not see saved domains in files that lie elsewhere, and suspended ones
// of toolstacks with a database of their own.
type saved struct{}

func (saved) Name() string { return "saved" }

func (saved) Reads() []string { return inventoryReads }

// Collect implements [Collector].
func (saved) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	inv := t.inventory(ctx, host)
	inv.say("saved", s)
	n := newNamer(host, t, s, inv)
	for _, d := range inv.disks {
		if !d.Saved || ctx.Err() != nil {
			continue
		}
		rel := n.relate(d)
		if rel == Unrelated {
			continue
		}
		s.Found(Finding{
			Code: SavedNamed, Relation: rel, Subject: "domain " + quote(d.Domain) + " (saved)", Key: d.Domain, Domain: d.Domain,
			Detail: d.use("is saved with it", "was booted from it and is saved", "is saved while it shares the directory") + n.where(d, rel) +
				": to resume it would destroy the file systems on what is written",
			Source: d.Source,
			Remedy: "restore it from " + quote(d.file) + " and shut it down, or remove that file if its memory is worth nothing, or add --domain " + shellWord(d.Domain),
		})
	}
	if inv.saves > 0 {
		s.Looked(inv.saves, "saved domain")
	}
}
