package main

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/blockio"
	"imgward/imageops/gpt"
)

// tableOptions are the options about what differs between source and target.
func tableOptions() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "grow", Usage: "move the backup of the source's GPT to the end of a larger target, so that all of it can be partitioned"},
		&cli.StringFlag{Name: "new-ids", Usage: "give the target identifiers of its own: `disk|all`: a GPT's disk GUID or an MBR's signature, or also the GUIDs of a GPT's partitions"},
		&cli.StringFlag{Name: "tail", Value: "keep", Usage: "what a target has behind the end of the source: `keep|zero`"},
	}
}

// fit reads them.
func (t *transfer) fit(c *cli.Context) error {
	t.grow, t.newIDs = c.Bool("grow"), c.String("new-ids")
	if t.newIDs != "" && t.newIDs != "disk" && t.newIDs != "all" {
		return usagef("new-ids %q: want disk or all", t.newIDs)
	}
	switch tail := c.String("tail"); tail {
	case "", "keep":
	case "zero":
		t.options.ZeroTail = true
	default:
		return usagef("tail %q: want keep or zero", tail)
	}
	if t.resize && (t.grow || t.options.ZeroTail) {
		return usagef("with --resize the target ends where the source does: nothing is left for --grow or --tail")
	}
	return nil
}

// fitted reports whether the partition table is to be fitted to the target.
func (t *transfer) fitted() bool { return t.grow || t.newIDs != "" }

// A fitting is what becomes of a partition table on one target.
type fitting struct {
	plan  gpt.Plan
	table *gpt.Table // nil: it was not asked for
	left  bool       // its backup is not at the end of the target
}

// fitting plans that for a target of size bytes, with sectors of so many bytes (0:
// not known), before anything is written to it.
func (t *transfer) fitting(in *input, size, sector int64) (f fitting, err error) {
	switch {
	case in.stream() && t.fitted():
		return f, usagef("the end of %s is not known before it was read, and its partition table has to be: decompress it first, or leave out --grow and --new-ids", printable(in.path))
	case in.stream():
		return f, nil
	}
	if t.resize {
		size = in.from.Size()
	}
	table, err := gpt.Read(in.from, in.from.Size())
	if !t.fitted() {
		f.left = err == nil && behind(table, size) // what is damaged is copied as it is
		return f, nil
	}
	if err == nil {
		var plan *gpt.Plan
		plan, err = table.Plan(gpt.Change{
			Size: size, Sector: sector, Grow: t.grow, DiskID: t.newIDs != "", PartitionIDs: t.newIDs == "all", Random: rand.Reader,
		})
		if err == nil {
			return fitting{*plan, table, !t.grow && behind(table, size)}, nil
		}
	}
	return f, fmt.Errorf("%s: %w", printable(in.path), err)
}

// behind reports whether the backup of a table is not at the end of size bytes.
func behind(table *gpt.Table, size int64) bool {
	if !table.GPT() {
		return false
	}
	plan, err := table.Plan(gpt.Change{Size: size, Grow: true})
	return err == nil && plan.Moved
}

// An amended is a target that differs from the source in the patches.
type amended struct {
	*blockio.File
	patches []imageops.Patch
}

func (a *amended) Patches() []imageops.Patch { return a.patches }

// dest is what is written for it to a file.
func (f fitting) dest(to *blockio.File) *amended {
	a := &amended{File: to}
	for _, p := range f.plan.Patches {
		a.patches = append(a.patches, imageops.Patch(p))
	}
	return a
}

// share makes a target share the source's blocks, but for where they differ. It is
// not done when the file systems cannot, and then nothing was changed.
func (t *transfer) share(o *outcome, to *blockio.File, in *input) (done bool, err error) {
	if done, err = o.reflink(to, in.file); done {
		if o.fitting, err = t.fitting(in, to.Size(), to.Sector()); err == nil {
			err = imageops.Amend(o.fitting.dest(to), t.options.Verify)
		}
	}
	return done, err
}

// ranges are the bytes in which the target is other than the source.
func (f fitting) ranges() (out []rangeJSON) {
	patches := slices.SortedFunc(slices.Values(f.plan.Patches), func(a, b gpt.Patch) int { return cmp.Compare(a.Off, b.Off) })
	for _, p := range patches {
		if n := len(out) - 1; n >= 0 && p.Off <= out[n].Offset+out[n].Length {
			out[n].Length = max(out[n].Length, p.Off+int64(len(p.Data))-out[n].Offset)
			continue
		}
		out = append(out, rangeJSON{p.Off, int64(len(p.Data))})
	}
	return out
}

// sayFitting says what became of the partition table.
func (t *transfer) sayFitting(f fitting) {
	switch {
	case f.left:
		t.remark("note: the backup of the GPT is where the source ends, and not at the end of the target: --grow moves it")
	case t.grow && !f.plan.Moved:
		t.result("the backup of the GPT was at the end of the target already")
	case t.grow:
		t.result("the backup of the GPT is at the end of the target now: %s more can be partitioned", guard.Bytes(f.plan.Added))
		t.remark("note: partitions and file systems have the sizes that they had: growpart, and then resize2fs or xfs_growfs, make them larger")
	}
	if t.newIDs != "" {
		parts := "; its partitions keep their GUIDs"
		switch {
		case !f.table.GPT():
			parts = "; with that begin the PARTUUIDs of its partitions"
		case t.newIDs == "all":
			parts = ", and its partitions have new GUIDs"
		}
		t.result("the disk is %s now, and was %s%s", f.plan.ID, f.table.ID(), parts)
	}
	var where []string
	for _, r := range f.ranges() {
		where = append(where, fmt.Sprintf("%d to %d", r.Offset, r.Offset+r.Length-1))
	}
	if len(where) > 0 {
		t.result("on purpose the target is not what the source is in bytes %s; digest and manifest are the source's", strings.Join(where, ", "))
	}
}
