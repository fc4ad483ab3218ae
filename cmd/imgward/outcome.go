package main

import (
	"encoding/hex"
	"errors"
	"fmt"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/blockio"
)

// An outcome is what became of one target.
type outcome struct {
	source    string
	target    string
	created   bool
	how       string // the bytes went
	delta     bool   // only what differed was written
	joined    bool   // the copy that several targets have in common
	reflinked bool
	fitting   fitting
	size      int64
	report    imageops.Report
}

// reflink makes the target share the source's blocks. It is not done when the
// file systems cannot, and then nothing was changed.
func (o *outcome) reflink(to, from *blockio.File) (done bool, err error) {
	err = to.Reflink(from)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	if err == nil {
		err = to.Sync()
	}
	o.reflinked, o.size = true, from.Size()
	o.report.Ranges = []imageops.Extent{{Len: from.Size()}}
	o.report.Tail = to.Size() - from.Size()
	return err == nil, err
}

type outcomeJSON struct {
	Command   string        `json:"command"`
	Source    string        `json:"source"`
	Target    string        `json:"target"`
	Size      int64         `json:"size"`
	Read      int64         `json:"read"`
	Written   int64         `json:"written"`
	Zeroed    int64         `json:"zeroed"`
	Same      int64         `json:"same,omitempty"`
	Verified  int64         `json:"verified"`
	Tail      int64         `json:"tail"`
	Amended   []rangeJSON   `json:"amended,omitempty"` // where the target is not what the source is
	Disk      string        `json:"disk,omitempty"`    // its identifier, where the table was fitted
	Reflinked bool          `json:"reflinked"`
	Digest    string        `json:"digest,omitempty"`
	Also      []string      `json:"also,omitempty"` // more digests
	How       string        `json:"how,omitempty"`
	Delta     bool          `json:"delta,omitempty"`
	Engine    string        `json:"engine,omitempty"`
	Chunk     int           `json:"chunk,omitempty"`
	Seconds   string        `json:"seconds"`
	Notes     []findingJSON `json:"notes,omitempty"` // what was told beside the work
	Exit      int           `json:"exit"`
}

// say reports a finished transfer.
func (t *transfer) say(command, verb string, o *outcome) {
	r := o.report
	size := r.Written + r.Zeroed + r.Same
	if o.reflinked {
		size = o.size
	}
	how := rate(size, r.Elapsed)
	switch {
	case o.reflinked:
		how = "sharing its blocks"
	case t.options.Verify:
		how += ", read back and equal"
	default:
		how += ", not read back"
	}
	t.result("%s %s to %s: %s (%s zeros), %s", verb, printable(o.source), printable(o.target), guard.Bytes(size), guard.Bytes(r.Zeroed), how)
	if o.how != "" && !o.reflinked {
		t.result("%s, in chunks of %s by a %s", o.how, guard.Bytes(int64(r.ChunkSize)), r.Engine)
	}
	if o.delta {
		t.result("read %s, equal already %s, written %s, zeroed %s", guard.Bytes(r.Read), guard.Bytes(r.Same), guard.Bytes(r.Written), guard.Bytes(r.Zeroed))
	}
	digest := ""
	if len(r.Digest) > 0 {
		digest = r.DigestKind.String() + ":" + hex.EncodeToString(r.Digest)
		t.result("digest %s", digest)
	}
	var also []string
	for _, sum := range r.Also {
		also = append(also, sum.String())
		t.result("digest %s", sum)
	}
	t.expected(r)
	if r.Tail > 0 {
		tail := "kept as they were"
		if t.options.ZeroTail {
			tail = "made zero"
		}
		if o.fitting.plan.Moved {
			tail += ", but for the partition table"
		}
		t.result("%s at the end of the target were %s", guard.Bytes(r.Tail), tail)
	}
	t.sayFitting(o.fitting)
	t.object(outcomeJSON{
		Command: command, Source: o.source, Target: o.target, Size: size, Read: r.Read, Written: r.Written, Zeroed: r.Zeroed, Same: r.Same, How: o.how, Delta: o.delta, Engine: r.Engine, Chunk: r.ChunkSize,
		Verified: r.Verified, Tail: r.Tail, Reflinked: o.reflinked, Digest: digest, Also: also, Seconds: fmt.Sprintf("%.3f", r.Elapsed.Seconds()),
		Notes: t.told(), Amended: o.fitting.ranges(), Disk: o.fitting.plan.ID,
	})
}
