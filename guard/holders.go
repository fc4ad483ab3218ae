package guard

import (
	"cmp"
	"context"
	"slices"
)

// holders reports every block device that stands on the target or shares its
// bytes: loop devices, which is how Xen attaches image files and which hold them
// without any process; device-mapper and md devices. It reads nothing itself:
// the block layer was read for the look.
//
// Partitions are no users of their disk, and what uses a partition is found by
// the other collectors through Relate.
type holders struct{}

func (holders) Name() string { return "holders" }

func (holders) Reads() []string { return stackReads }

// Collect implements [Collector].
func (holders) Collect(_ context.Context, _ *Host, t *Target, s *Sheet) {
	devices := make([]*device, 0, len(t.stack.devices))
	for _, d := range t.stack.devices {
		devices = append(devices, d)
	}
	slices.SortFunc(devices, func(a, b *device) int { return cmp.Compare(a.name, b.name) })
	for _, d := range devices {
		rel := t.Relate(d.id)
		if rel != Above && rel != Beside || d.kind == "partition" {
			continue
		}
		f := Finding{Relation: rel, Subject: d.label(), Key: d.name, Detail: "stands on it"}
		if rel == Beside {
			f.Detail = "uses the same bytes"
		}
		switch {
		case d.kind == "loop" && d.ro:
			f.Code, f.Detail = LoopReadOnly, f.Detail+", read-only"
			f.Source, f.Remedy = "/sys/block/"+d.name+"/loop: ro = 1", "detach it with \"losetup -d /dev/"+d.name+"\""
		case d.kind == "loop":
			f.Code = LoopAttached
			f.Source, f.Remedy = "/sys/block/"+d.name+"/loop: "+under(d), "if no domain uses it, detach it with \"losetup -d /dev/"+d.name+"\""
		case d.kind == "dm":
			f.Code = HolderDM
			f.Source, f.Remedy = "/sys/block/"+d.name+"/dm: uuid = "+quote(d.uuid), "deactivate "+d.label()
		case d.kind == "md":
			f.Code = HolderMD
			f.Source, f.Remedy = "/sys/block/"+d.name+"/slaves", "stop the array "+d.label()
		default:
			f.Code = HolderOther
			f.Source, f.Remedy = "/sys/block/"+d.name+"/slaves", "stop "+d.label()
		}
		s.Found(f)
	}
	s.Looked(len(devices), "block device")
}

// under names what a loop device stands on, by number.
func under(d *device) string {
	if len(d.under) == 0 {
		return "nothing"
	}
	return d.under[0].lower.String()
}
