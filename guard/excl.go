package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"imgward/guard/hostfs"
)

// excl opens a block device exclusively (open(2), O_EXCL without O_CREAT) and
// closes it at once: the kernel refuses while a mount, swap, md, device-mapper
// or another claimant has the device, its disk or one of its partitions. One who
// is gone when it is asked again was another's question. Whether the kernel has
// the device set read-only is asked with it.
//
// It does not see the Xen block backend, loop devices, QEMU, tapdisk and plain
// openers, none of which claims the device.
type excl struct{}

func (excl) Name() string { return "excl" }

func (excl) Reads() []string { return []string{"excl", "ro"} }

// Collect implements [Collector].
func (excl) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind != KindBlock {
		return
	}
	f := Finding{Relation: Same, Subject: "the kernel", Key: "kernel", Source: "open O_EXCL of " + quote(t.Real)}
	answer, err := "free", error(nil)
	if t.held == nil || t.held.reading || t.held.inherited { // else our own exclusive open is the answer
		for i := 0; ; i++ {
			answer, err = host.FS.Ask(ctx, hostfs.Excl, t.handle.Name())
			if !errors.Is(err, syscall.EBUSY) || !host.again(ctx, i) {
				break
			}
		}
	}
	switch {
	case errors.Is(err, syscall.EBUSY):
		f.Code, f.Detail, f.Remedy = ExclHeld, "refuses an exclusive open: it is claimed by a mount, swap, md, device-mapper or the like", "find out by what with \"lsblk\""
		s.Found(f)
	case err != nil:
		s.Blind("excl", err)
	case answer != "free":
		s.Blind("excl", fmt.Errorf("unexpected answer %q", answer))
	default:
		f.Code, f.Detail = ExclFree, "grants an exclusive open: no mount, swap, md or device-mapper claims it"
		s.Found(f)
	}
	ro, err := host.FS.Ask(ctx, hostfs.ReadOnly, t.handle.Name())
	switch strings.TrimSpace(ro) {
	case "0":
	case "1":
		s.Found(Finding{
			Code: DeviceReadOnly, Relation: Same, Subject: "the kernel", Key: "kernel", Detail: "has the device set read-only",
			Source: "BLKROGET of " + quote(t.Real) + " = 1", Remedy: "make it writable if that is right (\"blockdev --setrw\")",
		})
	default:
		s.Blind("excl", errors.Join(err, fmt.Errorf("cannot tell whether it is read-only")))
	}
}
