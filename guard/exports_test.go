package guard

import (
	"strings"
	"syscall"
	"testing"
)

func TestExports(t *testing.T) {
	const lio, nvme = lioDir + "/iblock_0/lun", nvmetDir + "/nqn/namespaces/1"
	info := func(numbers string) string {
		return "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 32768\n" +
			"        iBlock device: sdb  UDEV PATH: /dev/sdb  readonly: 0\n  exclusive: 1\n        " + numbers + "\n"
	}
	for _, tt := range []struct {
		name   string
		build  func(m *machine)
		target string
		want   []string
	}{
		{"nothing", func(m *machine) {}, image, nil},
		{"a block device, by number", func(m *machine) {
			m.file(lio+"/udev_path", "/dev/gone\n")
			m.file(lio+"/info", info("Major: 8 Minor: 16  CLAIMED: IBLOCK"))
		}, "/dev/sdb", []string{"export.block same iblock_0/lun"}},
		{"a partition of it", func(m *machine) { m.file(lio+"/info", info("Major: 8 Minor: 17")) }, "/dev/sdb", []string{"export.block partition iblock_0/lun"}},
		{"a name that leads elsewhere by now", func(m *machine) {
			m.file(lio+"/udev_path", "/dev/sdb\n")
			m.file(lio+"/info", info("Major: 8 Minor: 0  CLAIMED: IBLOCK"))
		}, "/dev/sdb", nil},
		{"switched off", func(m *machine) {
			m.file(lio+"/enable", "0\n")
			m.file(lio+"/udev_path", "/dev/sdb\n")
		}, "/dev/sdb", nil},
		{"whether it is switched off cannot be read", func(m *machine) {
			m.fs.SetErr(lio+"/enable", syscall.EIO)
			m.list(lio + "/enable")
			m.file(lio+"/udev_path", "/dev/sdb\n")
		}, "/dev/sdb", []string{"blind.exports unrelated " + lio + "/enable", "export.block same iblock_0/lun"}},
		{"numbers that are none", func(m *machine) {
			m.file(lio+"/udev_path", "/dev/sdb\n")
			m.file(lio+"/info", info("Major: eight Minor: 16"))
		}, "/dev/sdb", []string{"blind.exports unrelated " + lio + "/info", "export.block same iblock_0/lun"}},
		{"a file", func(m *machine) {
			m.file(lioDir+"/fileio_0/x/info", "Status: ACTIVATED\n        TCM FILEIO ID: 0        File: "+image+"  Size: 1  Mode: O_DSYNC Async: 0\n")
		}, image, []string{"export.block same fileio_0/x"}},
		{"a file that the operator calls otherwise", func(m *machine) {
			m.file(lioDir+"/fileio_0/x/udev_path", "disk one\n")
			m.file(lioDir+"/fileio_0/x/info", "Status: ACTIVATED\n        TCM FILEIO ID: 0        File: "+image+"  Size: 1  Mode: O_DSYNC Async: 0\n")
		}, image, []string{"export.block same fileio_0/x"}},
		{"a file whose name was taken away", func(m *machine) { m.file(lioDir+"/fileio_0/x/udev_path", "/srv/images/gone.img\n") },
			"/srv/images/gone.img", []string{"export.block named fileio_0/x"}},
		{"a RAM disk", func(m *machine) { m.file(lioDir+"/rd_mcp_0/ram/info", "Status: ACTIVATED\n") }, image, nil},
		{"NVMe", func(m *machine) {
			m.file(nvme+"/device_path", "/dev/sdb\n")
			m.file(nvme+"/enable", "1\n")
		}, "/dev/sdb1", []string{"export.block whole nqn/1"}},
		{"NVMe, nothing set", func(m *machine) { m.file(nvme+"/device_path", "(null)\n") }, "/dev/sdb", nil},
		{"SCST", func(m *machine) { m.file(scstDir+"/disk1/filename", image+"\n[key]\n") }, image, []string{"export.block same disk1"}},
		{"a gadget", func(m *machine) { m.file(gadgetDir+"/g1/functions/mass_storage.0/lun.0/file", image+"\n") }, image,
			[]string{"export.block same g1/mass_storage.0/lun.0"}},
		{"a gadget of another kind", func(m *machine) { m.file(gadgetDir+"/g1/functions/printer.0/lun.0/file", image+"\n") }, image, nil},
		{"a name that is cut off", func(m *machine) { m.file(nvme+"/device_path", "/dev/sd") }, "/dev/sdb",
			[]string{"blind.exports unrelated " + nvme + "/device_path"}},
		{"a list that cannot be read", func(m *machine) {
			m.list(nvmetDir)
			m.fs.SetErr(nvmetDir, syscall.EACCES)
		}, "/dev/sdb",
			[]string{"blind.exports unrelated " + nvmetDir}},
		{"a path that cannot be looked up", func(m *machine) {
			m.fs.SetErr("/far", syscall.EACCES)
			m.file(scstDir+"/disk1/filename", "/far/x\n")
		}, image, []string{"blind.exports unrelated /far/x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine()
			m.disk("sdb", "8:16", "sdb1 8:17 2048 1000")
			tt.build(m)
			wantFound(t, m.collect(t, exports{}, tt.target), tt.want...)
		})
	}
}

func FuzzParseLIOInfo(f *testing.F) {
	f.Add("Status: ACTIVATED\n        iBlock device: dm-3  UDEV PATH: /dev/vg0/x  readonly: 0\n        Major: 253 Minor: 3  CLAIMED: IBLOCK\n")
	f.Add("Status: ACTIVATED\n        TCM FILEIO ID: 0        File: /srv/a  Size: b.img  Size: 1  Mode: O_DSYNC Async: 0\n")
	f.Add("Major: 0 Minor: 0\n")
	f.Add("Major: 8")
	f.Fuzz(func(t *testing.T, info string) {
		id, file, err := parseLIOInfo(info)
		if id != (ID{}) && (id.Kind != KindBlock || err != nil) {
			t.Errorf("device %v, %v", id, err)
		}
		if !strings.Contains(info, file) || err == nil && info != "" && !strings.HasSuffix(info, "\n") {
			t.Errorf("file %q, %v", file, err)
		}
	})
}
