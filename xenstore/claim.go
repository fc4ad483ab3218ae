package xenstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is the only one of the package that changes the store, and it can
// make and remove claims and nothing else.
//
// Xen's hotplug script (tools/hotplug/Linux/block, check_sharing) refuses a domain
// a block device whose number stands in the key "physical-device" of another
// domain's node below backend/vbd. A claim is such a node, of a domain that there
// cannot be:
//
//	/local/domain/32760/vm                            /vm/imgward
//	backend/vbd/32760/ID/imgward/{target,pid,...}     who claims it, and what for
//	backend/vbd/32760/ID/mode                         w
//	backend/vbd/32760/ID/physical-device              fd:0, in hexadecimal
//
// Without "vm" the script takes the claiming domain for the domain that starts,
// and without "mode" it lets read-only disks pass. There is no "state", so that
// the kernel's backend driver leaves the node alone, and no "params". Neither
// daemon ever removes it; it is lost with the store, at a reboot.

// ClaimDomid is the domain that claims are made for. Xen gives out no number from
// 32752 on (xen.h, DOMID_FIRST_RESERVED), and has no use of its own for this one.
const ClaimDomid = "32760"

const (
	claimant = "/local/domain/" + ClaimDomid // its home
	claimVM  = "/vm/imgward"                 // the machine that it belongs to
	claimDir = "backend/vbd/" + ClaimDomid   // its disks, below our own home
)

// A Claim says that a process is writing to a block device. It is comparable.
type Claim struct {
	ID        uint32 // names the node; each device that is claimed has one
	Device    uint64 // what Xen is to refuse: its number as in st_rdev
	Target    uint64 // what is written: Device itself, or what shares bytes with it
	PID       int
	Namespace string // the PID namespace that this number is of, as a link of /proc/PID/ns names it; "" if it is not known
	Start     uint64 // when the process started, in clock ticks since boot (proc(5))
	Boot      string // the host's boot (random(4), boot_id)
	Operation string // in a word or two
}

// keys lists what a claim's node holds, in the order in which it is written:
// what makes it one for Xen comes last.
func (cl Claim) keys() [][2]string {
	return [][2]string{
		{"imgward/target", hexNumber(cl.Target)},
		{"imgward/pid", strconv.Itoa(cl.PID)},
		{"imgward/pid-namespace", cl.Namespace},
		{"imgward/start", strconv.FormatUint(cl.Start, 10)},
		{"imgward/boot-id", cl.Boot},
		{"imgward/operation", cl.Operation},
		{"mode", "w"},
		{"physical-device", hexNumber(cl.Device)},
	}
}

// ParseClaim makes a claim of the name of its node and of the node's keys, such
// as "imgward/pid". What one that was cut short by a crash does say is returned
// beside the error: its ID and Target, if it has them.
func ParseClaim(id string, keys map[string]string) (Claim, error) {
	var cl Claim
	var errs []error
	for _, f := range []struct {
		text string
		read func(string) error
	}{
		{id, func(s string) error {
			n, err := decimal(s, 32)
			cl.ID = uint32(n)
			return err
		}},
		{keys["imgward/target"], func(s string) (err error) { cl.Target, err = parseHexNumber(s); return }},
		{keys["imgward/pid"], func(s string) error {
			n, err := decimal(s, 31)
			cl.PID = int(n)
			if err == nil && n == 0 {
				err = errors.New("no process has number 0")
			}
			return err
		}},
		{keys["imgward/start"], func(s string) (err error) { cl.Start, err = decimal(s, 64); return }},
		{keys["physical-device"], func(s string) (err error) { cl.Device, err = parseHexNumber(s); return }},
	} {
		errs = append(errs, f.read(f.text))
	}
	cl.Boot, cl.Operation, cl.Namespace = keys["imgward/boot-id"], keys["imgward/operation"], keys["imgward/pid-namespace"]
	if cl.Boot == "" {
		errs = append(errs, errors.New("no boot"))
	}
	if keys["mode"] != "w" {
		errs = append(errs, fmt.Errorf("mode %q", keys["mode"]))
	}
	return cl, errors.Join(errs...)
}

// decimal reads a number as Claim.keys writes it, and in no other form.
func decimal(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return n, nil
}

// hexNumber writes a device number as stat(1) does with %t:%T.
func hexNumber(dev uint64) string { return fmt.Sprintf("%x:%x", unix.Major(dev), unix.Minor(dev)) }

func parseHexNumber(s string) (uint64, error) {
	major, minor, _ := strings.Cut(s, ":")
	ma, err1 := strconv.ParseUint(major, 16, 32)
	mi, err2 := strconv.ParseUint(minor, 16, 32)
	if dev := unix.Mkdev(uint32(ma), uint32(mi)); err1 == nil && err2 == nil && hexNumber(dev) == s {
		return dev, nil
	}
	return 0, fmt.Errorf("%q is no device number", s)
}

// ErrLeft says of a claim that could not be made that something of it may be in
// the store all the same, or come there yet: what was to remove it failed, too.
var ErrLeft = errors.New("a claim may be left in xenstore")

// Claim makes a claim under an ID that is free and returns that. It reads back
// what it wrote. If it fails, it removes what it made, and what a request makes that
// was not answered: the daemon serves one connection in order. Whoever else makes or
// removes claims must wait meanwhile: there is nothing in the store that keeps two
// from taking one ID. The error is an *OpError, maybe joined with another and with
// [ErrLeft].
func (c *Conn) Claim(ctx context.Context, cl Claim) (id uint32, err error) {
	taken, err := c.claims(ctx)
	if err != nil {
		return 0, err
	}
	cl.ID = 1
	for slices.Contains(taken, strconv.FormatUint(uint64(cl.ID), 10)) {
		cl.ID++
	}
	err = c.write(ctx, claimant+"/vm", claimVM)
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return 0, err // as a rule because we may not, and then nothing was made
	}
	defer func() {
		if err == nil {
			return
		}
		if left := c.Unclaim(context.WithoutCancel(ctx), cl.ID); left != nil {
			err = errors.Join(err, left, ErrLeft)
		}
	}()
	if err != nil {
		return 0, err
	}
	want := [][2]string{{claimant + "/vm", claimVM}}
	for _, kv := range cl.keys() {
		kv[0] = claimNode(cl.ID) + "/" + kv[0]
		if err := c.write(ctx, kv[0], kv[1]); err != nil {
			return 0, err
		}
		want = append(want, kv)
	}
	paths := make([]string, len(want))
	for i, kv := range want {
		paths[i] = kv[0]
	}
	values, err := c.ReadAll(ctx, paths)
	if err != nil {
		return 0, err
	}
	for i, v := range values {
		if v.Err == nil && string(v.Data) != want[i][1] {
			v.Err = failure(opWrite, v.Path, fmt.Errorf("%q was written, and %q is there", want[i][1], v.Data))
		}
		if v.Err != nil {
			return 0, v.Err
		}
	}
	return cl.ID, nil
}

// Unclaim removes the claim of this ID, and with the last one what all claims
// have in common. One that is not there is no error. What is said of others for
// Claim holds here. The error is an *OpError.
func (c *Conn) Unclaim(ctx context.Context, id uint32) error {
	if err := c.remove(ctx, claimNode(id)); err != nil {
		return err
	}
	left, err := c.claims(ctx)
	if err != nil || len(left) > 0 {
		return err
	}
	if err := c.remove(ctx, claimDir); err != nil {
		return err
	}
	return c.remove(ctx, claimant)
}

func claimNode(id uint32) string { return claimDir + "/" + strconv.FormatUint(uint64(id), 10) }

// claims lists the names of the claims' nodes.
func (c *Conn) claims(ctx context.Context) ([]string, error) {
	names, err := c.List(ctx, claimDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// The operations that change the store. No other file may name them.
const (
	opWrite  op = 11 // makes the parents that are missing
	opRemove op = 13 // removes what is beneath, too
)

// change is the name of an operation that changes the store, "" of any other.
func (o op) change() string {
	switch o {
	case opWrite:
		return "write"
	case opRemove:
		return "rm"
	}
	return ""
}

// checkChange keeps the encoder from sending a change of anything but a claim.
func checkChange(o op, path string) error {
	if o.change() == "" || path == claimant && o == opRemove || path == claimant+"/vm" || path == claimDir || strings.HasPrefix(path, claimDir+"/") {
		return nil
	}
	return fmt.Errorf("%v of %q, which is no claim, is not sent by this client", o, path)
}

// write writes a value. The error is an *OpError.
func (c *Conn) write(ctx context.Context, path, value string) error {
	return c.alter(ctx, opWrite, path, value)
}

// remove removes a node with all beneath it; one that is not there is no error.
// The error is an *OpError.
func (c *Conn) remove(ctx context.Context, path string) error {
	if err := c.alter(ctx, opRemove, path); !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return nil
}

func (c *Conn) alter(ctx context.Context, o op, parts ...string) error {
	r, err := c.roundTrip(ctx, o, parts...)
	if err == nil {
		_, err = r.payload(o)
	}
	return failure(o, parts[0], err)
}
