package guard

import (
	"context"
	"strconv"

	"imgward/guard/hostfs"
)

// dm asks device-mapper how often the target is open (dm-ioctl.h,
// DM_DEV_STATUS): the count includes the Xen block backend and every other part
// of the kernel, which show in no descriptor. For a logical volume it is what
// the lease is for a file. udev and LVM's tools open volumes for milliseconds,
// so a count that nothing explains is read again a few times.
//
// It says nothing of devices that are not device-mapper's.
type dm struct{}

func (dm) Name() string { return "dm" }

func (dm) Reads() []string { return []string{"dm-status"} }

// Collect implements [Collector].
func (dm) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	d := t.stack.devices[t.ID]
	if d == nil || d.kind != "dm" {
		return
	}
	number := hostfs.FormatDev(t.ID.Rdev)
	expect := t.ownReaders()
	if t.held != nil {
		expect++
	}
	for i := 0; ; i++ {
		open, err := mapperOpeners(ctx, host, t.ID)
		if err != nil {
			s.Blind("the device-mapper count of "+number, err)
			return
		}
		source := "device-mapper " + number + ": open count = " + strconv.Itoa(open)
		switch {
		case open == expect:
			s.Found(Finding{Code: DMFree, Relation: Same, Subject: d.label(), Key: d.name, Detail: "is open nowhere, says device-mapper", Source: source})
			return
		case !host.again(ctx, i):
			s.Found(Finding{
				Code: DMOpen, Relation: Same, Subject: d.label(), Key: d.name,
				Detail: "is open " + count(open-expect, "time") + ", says device-mapper", Source: source,
				Remedy: "find out who has it open with \"dmsetup info\" and \"xl block-list\"",
			})
			return
		}
	}
}

// mapperOpeners gives device-mapper's count of openers of one of its devices.
func mapperOpeners(ctx context.Context, host *Host, id ID) (int, error) {
	answer, err := host.FS.Ask(ctx, hostfs.DMStatus, hostfs.FormatDev(id.Rdev))
	if err != nil {
		return 0, err
	}
	f, err := fields(answer)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(f["open"])
}
