package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"imgward/guard/hostfs"
)

// exports looks for what this host's kernel serves to others as a disk. None of
// these servers has a process or a descriptor, and most do not claim a device:
//
//   - LIO (since Linux 2.6.38), /sys/kernel/config/target/core/HBA/NAME: udev_path
//     and info, which tells the device's number where the kernel has one open
//     (target_core_iblock.c, target_core_file.c, target_core_pscsi.c)
//   - NVMe over fabrics (since 4.8), /sys/kernel/config/nvmet/subsystems/NQN/namespaces/N:
//     device_path (nvmet/configfs.c)
//   - SCST (out of tree), /sys/kernel/scst_tgt/devices/NAME/filename
//   - the USB mass storage gadget (since 3.10), /sys/kernel/config/usb_gadget/G/functions/F/lun.N/file
//
// What is there but switched off has nothing open and is no use. It does not see
// servers that are processes (procfd does), whole SCSI devices and NVMe controllers
// that are passed through, or configfs where it is not mounted.
type exports struct{}

func (exports) Name() string { return "exports" }

func (exports) Reads() []string {
	return []string{
		lioDir, lioDir + "/*", lioDir + "/*/*/enable", lioDir + "/*/*/udev_path", lioDir + "/*/*/info",
		nvmetDir, nvmetDir + "/*/namespaces", nvmetDir + "/*/namespaces/*/enable", nvmetDir + "/*/namespaces/*/device_path",
		scstDir, scstDir + "/*/filename", scstDir + "/*/handler",
		gadgetDir, gadgetDir + "/*/functions", gadgetDir + "/*/functions/mass_storage.*", gadgetDir + "/*/functions/mass_storage.*/lun.*/file",
	}
}

const (
	lioDir    = "/sys/kernel/config/target/core"
	nvmetDir  = "/sys/kernel/config/nvmet/subsystems"
	scstDir   = "/sys/kernel/scst_tgt/devices"
	gadgetDir = "/sys/kernel/config/usb_gadget"
)

// Collect implements [Collector].
func (exports) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	l := &exportLook{ctx: ctx, host: host, t: t, s: s}
	l.lio()
	l.nvmet()
	l.scst()
	l.gadgets()
	s.Looked(l.seen, "export")
}

type exportLook struct {
	ctx  context.Context
	host *Host
	t    *Target
	s    *Sheet
	seen int
}

// list gives what is in a directory of the kernel's, and nothing where the
// kernel or its module is without it.
func (l *exportLook) list(dir string) []string {
	names, err := l.host.FS.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.s.Blind(dir, err)
	}
	return names
}

// read gives the first line of an attribute; of one that is not there, nothing.
func (l *exportLook) read(name string) string {
	b, err := l.host.FS.ReadFile(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.s.Blind(name, err)
		}
		return ""
	}
	text, whole := string(b), len(b) == 0 || b[len(b)-1] == '\n'
	if !whole {
		l.s.Blind(name, fmt.Errorf("cut off after %d bytes", len(b)))
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// off tells an export that is switched off. One that does not say so is on.
func (l *exportLook) off(name string) bool { return l.read(name) == "0" }

func (l *exportLook) lio() {
	for _, hba := range l.list(lioDir) {
		if hba == "alua" {
			continue // groups of ports, no devices
		}
		for _, name := range l.list(lioDir + "/" + hba) {
			if name == "hba_info" || name == "hba_mode" {
				continue // attributes of the adapter
			}
			dir := lioDir + "/" + hba + "/" + name
			if l.off(dir + "/enable") {
				continue
			}
			e := export{server: "LIO", name: hba + "/" + name, remedy: lioRemedy(hba, name)}
			if node := l.read(dir + "/udev_path"); node != "" {
				e.source, e.paths = dir+"/udev_path", []string{node}
			}
			info, err := l.host.FS.ReadFile(dir + "/info")
			if err == nil {
				var file string
				if e.id, file, err = parseLIOInfo(string(info)); file != "" && !slices.Contains(e.paths, file) {
					e.paths = append(e.paths, file)
				}
				if e.id != (ID{}) || e.source == "" {
					e.source = dir + "/info"
				}
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.s.Blind(dir+"/info", err)
			}
			l.judge(e)
		}
	}
}

// lioRemedy is the command that deletes a backstore. HBAs are called by their
// kind and a number.
func lioRemedy(hba, name string) string {
	kind := strings.TrimRight(hba, "0123456789_")
	if kind == "iblock" {
		kind = "block"
	}
	return "run \"targetcli /backstores/" + quote(kind) + " delete " + quote(name) + "\""
}

// parseLIOInfo reads the status of a LIO backstore, which is, for a block device
// and for a file,
//
//	Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 32768
//	        iBlock device: dm-3  UDEV PATH: /dev/vg0/x  readonly: 0
//	        Major: 253 Minor: 3  CLAIMED: IBLOCK
//
//	Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384
//	        TCM FILEIO ID: 0        File: /srv/x.img  Size: 67108864  Mode: Buffered-WCE Async: 0
//
// It gives the device's number and the file's name, where there are such.
func parseLIOInfo(info string) (id ID, file string, err error) {
	if info != "" && !strings.HasSuffix(info, "\n") {
		return ID{}, "", fmt.Errorf("status is cut off at %q", info[strings.LastIndexByte(info, '\n')+1:])
	}
	for line := range strings.Lines(info) {
		line = strings.TrimSpace(line)
		if numbers, ok := strings.CutPrefix(line, "Major: "); ok {
			major, rest, _ := strings.Cut(numbers, " Minor: ")
			minor, _, _ := strings.Cut(rest, " ")
			ma, err1 := strconv.ParseUint(major, 10, 32)
			mi, err2 := strconv.ParseUint(minor, 10, 32)
			if err := errors.Join(err1, err2); err != nil {
				return ID{}, file, fmt.Errorf("malformed numbers %q", line)
			}
			if ma != 0 || mi != 0 {
				id = BlockID(hostfs.Mkdev(uint32(ma), uint32(mi)))
			}
		}
		if _, after, ok := strings.Cut(line, "File: "); ok && strings.HasPrefix(line, "TCM FILEIO ID: ") {
			if i := strings.LastIndex(after, "  Size: "); i >= 0 {
				file = after[:i]
			}
		}
	}
	return id, file, nil
}

func (l *exportLook) nvmet() {
	for _, nqn := range l.list(nvmetDir) {
		spaces := nvmetDir + "/" + nqn + "/namespaces"
		for _, n := range l.list(spaces) {
			dir := spaces + "/" + n
			if l.off(dir + "/enable") {
				continue
			}
			e := export{server: "NVMe over fabrics", name: nqn + "/" + n, source: dir + "/device_path", remedy: "run \"echo 0 > " + quote(dir+"/enable") + "\""}
			if node := l.read(e.source); node != "" && node != "(null)" {
				e.paths = []string{node}
			}
			l.judge(e)
		}
	}
}

func (l *exportLook) scst() {
	for _, name := range l.list(scstDir) {
		e := export{server: "SCST", name: name, source: scstDir + "/" + name + "/filename"}
		handler, err := l.host.FS.Readlink(scstDir + "/" + name + "/handler")
		if err != nil {
			handler = "HANDLER"
		}
		e.remedy = "run \"scstadmin -close_dev " + quote(name) + " -handler " + quote(path.Base(handler)) + "\""
		if file := l.read(e.source); file != "" {
			e.paths = []string{file}
		}
		l.judge(e)
	}
}

func (l *exportLook) gadgets() {
	for _, g := range l.list(gadgetDir) {
		functions := gadgetDir + "/" + g + "/functions"
		for _, f := range l.list(functions) {
			if !strings.HasPrefix(f, "mass_storage.") {
				continue
			}
			for _, lun := range l.list(functions + "/" + f) {
				if !strings.HasPrefix(lun, "lun.") {
					continue
				}
				file := functions + "/" + f + "/" + lun + "/file"
				e := export{server: "a USB gadget", name: g + "/" + f + "/" + lun, source: file, remedy: "run \"echo > " + quote(file) + "\""}
				if image := l.read(file); image != "" {
					e.paths = []string{image}
				}
				l.judge(e)
			}
		}
	}
}

// An export is one disk that the kernel serves.
type export struct {
	server, name string
	id           ID       // the device, where the kernel tells its number
	paths        []string // what the operator gave it
	source       string   // the file that says so
	remedy       string
}

// judge compares what is exported with the target, by number and by name. What
// has no path is no copy of anything on this host (a RAM disk).
func (l *exportLook) judge(e export) {
	if e.id == (ID{}) && len(e.paths) == 0 {
		return
	}
	l.seen++
	rel, by := Unrelated, e.id
	if e.id != (ID{}) {
		rel = l.t.Relate(e.id)
	}
	for _, p := range e.paths {
		// Where the kernel tells what it has open, a path is what was meant once.
		if e.id != (ID{}) || rel != Unrelated {
			break
		}
		if !strings.HasPrefix(p, "/") {
			continue // what an operator calls it
		}
		st, err := l.host.FS.Stat(p)
		if id, ok := idOf(st); err == nil && ok {
			rel, by = l.t.Relate(id), id
		}
		named, nerr := l.t.names(l.host.FS, p)
		if nerr != nil {
			l.s.Blind(p, nerr)
		}
		if named && rel == Unrelated {
			rel = Named
		}
	}
	if rel == Unrelated {
		return
	}
	said := quote(strings.Join(e.paths, " "))
	if e.id != (ID{}) {
		said += ", " + e.id.String()
	}
	l.s.Found(Finding{
		Code: ExportBlock, Relation: rel, Subject: e.server + " (" + quote(e.name) + ")", Key: e.name,
		Detail: "serves it to others as a disk" + l.t.via(rel, by), Source: e.source + ": " + said, Remedy: e.remedy,
	})
}
