package domcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// As libxl writes it for a domain with odd disks, shortened.
const record = `{
    "c_info": { "type": "pv", "name": "web1", "domid": 4294967295, "run_hotplug_scripts": "True" },
    "b_info": { "kernel": "/boot/domu/vmlinux", "ramdisk": "/boot/domu/initrd", "type.pv": {  } },
    "disks": [
        { "pdev_path": "/srv/images/web1.img", "vdev": "xvda", "format": "raw", "readwrite": 1, "colo_restore_enable": "False" },
        { "pdev_path": "/srv/images/a b\"c.img", "vdev": "xvdh", "format": "raw" },
        { "pdev_path": "spare.img", "vdev": "xvdi", "format": "raw", "script": "block-dummy" },
        { "backend_domid": 3, "pdev_path": "/dev/vg0/far", "vdev": "xvdj" },
        { "backend_domname": "storage", "pdev_path": "/dev/vg0/far", "vdev": "xvdk" },
        { "pdev_path": "/x.iso", "vdev": "hdc", "format": "empty", "is_cdrom": 1 },
        { "pdev_path": "/srv/top", "vdev": "xvdl", "active_disk": "/srv/act", "hidden_disk": "/srv/hid" }
    ],
    "p9s": [ { "tag": "t", "path": "/srv/share", "security_model": "none" } ],
    "on_reboot": "restart"
}
` + "\x00"

const recordDisks = `web1 ["/boot/domu/vmlinux boot" "/boot/domu/initrd boot" "/srv/images/web1.img@xvda" "/srv/images/a b\"c.img@xvdh" ` +
	`"spare.img@xvdi by block-dummy" "/dev/vg0/far@xvdj of 3" "/dev/vg0/far@xvdk of storage" "/srv/top@xvdl" "/srv/act@xvdl" "/srv/hid@xvdl" "/srv/share@t dir"]`

func TestUserdata(t *testing.T) {
	for text, want := range map[string]string{
		record:                          recordDisks,
		`{"c_info":{"type":"pv"}}`:      ` []`,
		`{}`:                            ` []`,
		"":                              "unexpected end of JSON input",
		"{\n\n\"disks\": [,]}":          "line 3: ",
		`{"disks": "none"}`:             "line 1: ",
		`{"c_info":{"name":"a` + "\xff": "not UTF-8",
		`{} {}`:                         "line 1: ",
		`{"disks":[{"pdev_path":7}]}`:   "line 1: ",
		record[:400]:                    "unexpected end of JSON input",
	} {
		d, err := ParseUserdata([]byte(text))
		got := fmt.Sprintf("%s %q", d.Name, shown(d.Disks))
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%.40q: %s, want %s", text, got, want)
		}
	}
}

const running = `<?xml version="1.0"?>
<!-- WARNING: THIS IS AN AUTO-GENERATED FILE. -->
<domstatus state='running' reason='booted' pid='812'>
  <domain type='kvm' id='3'>
    <name>web&amp;1</name>
    <metadata><x:name xmlns:x='urn:x'>other</x:name></metadata>
    <devices>
      <disk type='file' device='disk'>
        <driver name='qemu' type='qcow2'/>
        <source file='/srv/top.qcow2' index='3'>
          <dataStore type='file'><format type='raw'/><source file='/srv/data.raw'/></dataStore>
        </source>
        <backingStore type='file'>
          <format type='qcow2'/><source file='/srv/mid.qcow2'/>
          <backingStore type='block'><format type='raw'/><source dev='/dev/vg/base'/><backingStore/></backingStore>
        </backingStore>
        <mirror type='file' job='copy'><source file='/srv/copy.img'/></mirror>
        <target dev='vda' bus='virtio'/>
      </disk>
      <disk type='volume'><source pool='default' volume='vol.img'/><target dev='vdb'/></disk>
      <disk type='network'><source protocol='rbd' name='pool/img'><host name='h'/></source><target dev='vdc'/></disk>
      <disk type='dir'><source dir='/srv/fat'/><target dev='vdd'/></disk>
      <disk type='block'><source dev='/dev/sdz'/><target dev='vde'/><backenddomain name='storage'/></disk>
      <disk type='file' device='cdrom'><target dev='hdc'/></disk>
      <disk type='file'><source file='/srv/old.img'/><mirror file='/srv/oldcopy.img'/><target dev='vdf'/></disk>
      <filesystem type='mount'><source dir='/srv/share'/><target dir='tag'/></filesystem>
      <filesystem type='block'><source dev='/dev/sdy'/><target dir='/'/></filesystem>
      <interface type='bridge'><source bridge='br0' dev='eth0'/><target dev='vnet0'/></interface>
      <serial type='dev'><source path='/dev/ttyS0' dev='/dev/x'/></serial>
    </devices>
  </domain>
</domstatus>
`

func TestLibvirt(t *testing.T) {
	for text, want := range map[string]string{
		running: `web&1 ["/srv/top.qcow2@vda" "/srv/data.raw@vda" "/srv/mid.qcow2@vda" "/dev/vg/base@vda" "/srv/copy.img@vda" "default/vol.img@vdb" ` +
			`"/srv/fat@vdd" "/dev/sdz@vde of storage" "/srv/old.img@vdf" "/srv/oldcopy.img@vdf" "/srv/share dir" "/dev/sdy"]`,
		"<domain><name>a</name></domain>":   `a []`,
		"<domain>\n<name>a</name>\n":        "line 3: cut off in <domain>",
		"":                                  "line 1: no domain in it",
		"<network><name>a</name></network>": "line 1: no domain in it",
		"<!DOCTYPE d [<!ENTITY x SYSTEM '/etc/passwd'>]><domain>": "line 1: a document type is not understood",
		"<domain>\n<name>&x;</name></domain>":                     "line 2: invalid character entity &x;",
		"<domain></devices></domain>":                             "line 1: </devices> closes nothing",
		"<domain\n":                                               "line 2: ",
		"<domain><name>\xff</name></domain>":                      "line 1: invalid UTF-8",
		"<?php x?><domain/>":                                      "line 1: the instruction php is not understood",
		"<?xml version='1.0' encoding='latin1'?><domain/>":        "encoding",
		strings.Repeat("<domain>", maxDepth+1):                    "line 1: too deep",
	} {
		d, err := ParseLibvirt([]byte(text))
		got := fmt.Sprintf("%s %q", d.Name, shown(d.Disks))
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%.40q: %s, want %s", text, got, want)
		}
	}
}

func TestPool(t *testing.T) {
	for text, want := range map[string]string{
		"<pool type='dir'><name>default</name><source/><target><path>/var/lib/libvirt/images</path></target></pool>": "default /var/lib/libvirt/images",
		"<pool type='rbd'><name>r</name><source><name>pool</name></source></pool>":                                   "r ",
		"<domain><name>r</name></domain>": "line 1: no domain in it",
	} {
		name, dir, err := ParsePool([]byte(text))
		got := name + " " + dir
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// xlSave makes the head of a file of "xl save", and something behind it.
func xlSave(order binary.ByteOrder, flags uint32, text string) []byte {
	b := []byte(xlMagic)
	for _, n := range []uint32{0x01020304, flags, 0, uint32(4 + len(text)), uint32(len(text))} {
		b, _ = binary.Append(b, order, n)
	}
	return append(append(b, text...), "LIBXLFMT and pages"...)
}

// libvirtSave makes the head of a managed save, whose XML begins at xmlAt.
func libvirtSave(magic string, order binary.ByteOrder, xmlAt int, text string) []byte {
	b := []byte(magic)
	for _, n := range []uint32{2, uint32(len(text))} {
		b, _ = binary.Append(b, order, n)
	}
	b = append(b, make([]byte, xmlAt-len(b))...)
	return append(append(b, text...), "pages"...)
}

func TestSaves(t *testing.T) {
	little, big := binary.LittleEndian, binary.BigEndian
	const vm = "<domain><name>a</name><devices><disk><source file='/x'/></disk></devices></domain>"
	longer := xlSave(little, 3, record)
	binary.LittleEndian.PutUint32(longer[48:], uint32(len(record)+1))
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"of xl", xlSave(little, 3, record), recordDisks},
		{"of another machine", xlSave(big, 3, record), recordDisks},
		{"of an old xl", xlSave(little, 0, "name='a'\ndisk=['/x,,xvda']"), `a ["/x@xvda"]`},
		{"of libvirt for Xen", libvirtSave(libxlMagic, little, 64, vm+"\x00"), `a ["/x"]`},
		{"of libvirt for QEMU", libvirtSave(qemuMagic, little, 92, vm+"\x00<cookie/>"), `a ["/x"]`},
		{"of libvirt on another machine", libvirtSave(qemuMagic, big, 92, vm), `a ["/x"]`},
		{"while it is written", libvirtSave(qemuPartMagic, little, 92, vm), `a ["/x"]`},

		{"a flag that must be understood", xlSave(little, 7, record), "flags 0x7"},
		{"no order of bytes", append([]byte(xlMagic), make([]byte, 100)...), "order of bytes"},
		{"longer than its room", longer, "longer than its room"},
		{"cut off", xlSave(little, 3, record)[:200], "cut off"},
		{"cut off in the head", xlSave(little, 3, record)[:40], "cut off"},
		{"cut off behind the magic", []byte(xlMagic), "cut off"},
		{"of QEMU, cut off", libvirtSave(qemuMagic, little, 92, vm)[:100], "cut off"},
		{"empty", nil, ErrNoSave.Error()},
		{"text", []byte("# what lies in this directory\n"), ErrNoSave.Error()},
		{"nearly", []byte(xlMagic[:31] + "x more and more and more and more and more"), ErrNoSave.Error()},
	} {
		d, err := ReadSave(bytes.NewReader(tt.file), int64(len(tt.file)))
		got := fmt.Sprintf("%s %q", d.Name, shown(d.Disks))
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	// A file that shrinks while it is read.
	b := xlSave(little, 3, record)
	if _, err := ReadSave(bytes.NewReader(b[:100]), int64(len(b))); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("a shorter file: %v", err)
	}
	// One that says that gigabytes of description follow is not read.
	huge := xlSave(little, 3, "")
	binary.LittleEndian.PutUint32(huge[44:], 1<<31)
	binary.LittleEndian.PutUint32(huge[48:], 1<<30)
	if _, err := ReadSave(bytes.NewReader(huge), 1<<40); err == nil || !strings.Contains(err.Error(), "not understood") {
		t.Errorf("a gigabyte: %v", err)
	}
}

func FuzzParseUserdata(f *testing.F) {
	f.Add([]byte(record))
	f.Add([]byte(`{"disks":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseUserdata(text)
		checkDomain(t, d, err, bytes.Count(text, []byte("\n"))+1)
	})
}

func FuzzParseLibvirt(f *testing.F) {
	f.Add([]byte(running))
	f.Add([]byte("<domain><devices><disk><source file='/x'/></disk></devices></domain>"))
	f.Add([]byte("<!DOCTYPE x><domain/>"))
	f.Add([]byte("<pool><name>a</name><target><path>/x</path></target></pool>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := bytes.Count(text, []byte("\n")) + 1
		d, err := ParseLibvirt(text)
		checkDomain(t, d, err, lines)
		name, dir, err := ParsePool(text)
		checkDomain(t, Domain{}, err, lines)
		if (name != "" || dir != "") && !bytes.Contains(text, []byte("pool")) {
			t.Errorf("%q, %q", name, dir)
		}
	})
}

func FuzzReadSave(f *testing.F) {
	f.Add(xlSave(binary.LittleEndian, 3, record))
	f.Add(xlSave(binary.BigEndian, 0, "name='a'"))
	f.Add(libvirtSave(libxlMagic, binary.LittleEndian, 64, "<domain/>"))
	f.Add(libvirtSave(qemuMagic, binary.LittleEndian, 92, "<domain><name>x</name></domain>\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		d, err := ReadSave(bytes.NewReader(file), int64(len(file)))
		if !errors.Is(err, ErrNoSave) {
			checkDomain(t, d, err, bytes.Count(file, []byte("\n"))+1)
		}
	})
}
