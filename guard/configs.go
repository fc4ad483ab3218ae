package guard

import "context"

// configs looks for domains that are configured to have the target, whether they
// run or not: configuration files of xl (xl.cfg(5)) in /etc/xen and
// /etc/xen/auto, those that the processes of xl were given, libxl's records of
// running domains (/var/lib/xen/userdata-*, Xen since 4.5), and the domains of
// libvirt. It is also what shows a domain that reboots: for two seconds and more
// nothing else does.
//
// It does not see configurations that lie elsewhere and that no process of xl was
// given, those of toolstacks with a database of their own, and disks that another
// domain serves.
type configs struct{}

func (configs) Name() string { return "configs" }

func (configs) Reads() []string { return inventoryReads }

// Collect implements [Collector].
func (configs) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	inv := t.inventory(ctx, host)
	inv.say("configs", s)
	n := newNamer(host, t, s, inv)
	said := map[string]bool{}
	for _, d := range inv.disks {
		if d.Saved || ctx.Err() != nil {
			continue
		}
		rel := n.relate(d)
		if rel == Unrelated || said[d.Domain+"\x00"+d.Path] {
			continue
		}
		said[d.Domain+"\x00"+d.Path] = true
		f := Finding{
			Code: ConfigNamed, Relation: rel, Subject: "domain " + quote(d.Domain) + " (configured)", Key: d.Domain, Domain: d.Domain,
			Detail: d.use("is to have it", "is to boot from it", "is to share the directory"), Source: d.Source,
			Remedy: "make sure that " + quote(d.Domain) + " is shut down and that its disk is meant, and add --domain " + shellWord(d.Domain),
		}
		if d.Live {
			f.record = true
			f.Subject = "domain " + quote(d.Domain)
			f.Detail = d.use("has it", "booted from it", "shares the directory") + ", by its toolstack's record"
			f.Remedy = "shut down " + quote(d.Domain) + " or detach the disk"
		}
		f.Detail += n.where(d, rel)
		s.Found(f)
	}
	if inv.places > 0 {
		s.Looked(inv.configs, "configuration")
	}
}

// say tells what the inventory could not read, for the collector whose evidence
// it would have been.
func (inv *inventory) say(collector string, s *Sheet) {
	for _, b := range inv.blind {
		if b.collector == "" || b.collector == collector {
			s.Blind(b.where, b.err)
		}
	}
}
