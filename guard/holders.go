package guard

import (
	"cmp"
	"context"
	"slices"
	"strings"
)

// holders reports every block device that stands on the target or shares its
// bytes: loop devices, which is how Xen attaches image files and which hold them
// without any process; device-mapper and md devices. The block layer was read for
// the look; only the openers of thin pools are asked for.
//
// Partitions are no users of their disk, nor is another way to the same disk, and
// what uses them is found by the other collectors through Relate.
type holders struct{}

func (holders) Name() string { return "holders" }

func (holders) Reads() []string { return append([]string{"dm-status"}, stackReads...) }

// Collect implements [Collector].
func (holders) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	devices := make([]*device, 0, len(t.stack.devices))
	for _, d := range t.stack.devices {
		devices = append(devices, d)
	}
	slices.SortFunc(devices, func(a, b *device) int { return cmp.Compare(a.name, b.name) })
	for _, d := range devices {
		rel := t.Relate(d.id)
		if rel != Above && rel != Beside || d.kind == "partition" || d.isDisk() {
			continue
		}
		if rel == Beside && idlePool(ctx, host, d) {
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

// idlePool tells the mapping over a whole thin pool that LVM makes read-only for
// each pool in use, for its name alone (lvmthin(7); lib/activate/dev_manager.c:
// the layer "pool"). It has the bytes of every volume of the pool, so while nobody
// has it open it must not stand against any of them.
func idlePool(ctx context.Context, host *Host, d *device) bool {
	if d.kind != "dm" || !strings.HasPrefix(d.uuid, "LVM-") || !strings.HasSuffix(d.uuid, "-pool") {
		return false
	}
	open, err := mapperOpeners(ctx, host, d.id)
	return err == nil && open == 0
}

// under names what a loop device stands on, by number.
func under(d *device) string {
	if len(d.under) == 0 {
		return "nothing"
	}
	return d.under[0].lower.String()
}
