package domcfg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// shown gives disks as "path[@dev][ of backend][ by script]".
func shown(ds []Disk) []string {
	out := []string{}
	for _, d := range ds {
		s := d.Path
		if d.Pool != "" {
			s = d.Pool + "/" + s
		}
		if d.Dev != "" {
			s += "@" + d.Dev
		}
		if d.Backend != "" {
			s += " of " + d.Backend
		}
		if d.Script != "" {
			s += " by " + d.Script
		}
		s += [...]string{"", " dir", " boot"}[d.Kind]
		out = append(out, s)
	}
	return out
}

// A specification by xl-disk-configuration(5), and what it names.
func TestDiskSpecifications(t *testing.T) {
	for _, tt := range []struct {
		spec string
		want []string // nil: not understood
	}{
		// The examples of the manual page.
		{"/dev/vg/guest-volume,,hda", []string{"/dev/vg/guest-volume@hda"}},
		{"/dev/vg/guest-volume,raw,hda,rw", []string{"/dev/vg/guest-volume@hda"}},
		{"format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", []string{"/dev/vg/guest-volume@hda"}},
		{"raw:/dev/vg/guest-volume,hda,w", []string{"/dev/vg/guest-volume@hda"}},
		{"/root/image.iso,,hdc,cdrom", []string{"/root/image.iso@hdc"}},
		{"/root/image.iso,,hdc,,cdrom", []string{"/root/image.iso@hdc"}},
		{"/root/image.iso,hdc,cdrom", nil}, // no format in its place
		{"/root/image.iso,raw,hdc,devtype=cdrom", []string{"/root/image.iso@hdc"}},
		{"format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso", []string{"/root/image.iso@hdc"}},
		{"raw:/root/image.iso,hdc:cdrom,ro", []string{"/root/image.iso@hdc"}},
		// target= takes the rest.
		{"vdev=xvda,target=/srv/a,b=c,w", []string{"/srv/a,b=c,w@xvda"}},
		{"vdev=xvda,target=/srv/a b ", []string{"/srv/a b @xvda"}},
		{"xvda,raw,target=/srv/a", nil}, // "xvda" is the target's place
		// Stacked prefixes.
		{"tap:aio:/srv/a.img,xvda,w", []string{"/srv/a.img@xvda"}},
		{"tap2:tapdisk:qcow2:/srv/a.img,xvda,w", []string{"/srv/a.img@xvda"}},
		{"phy:vg/web1,xvda1,w", []string{"vg/web1@xvda1"}},
		{"phy:/dev/vg/web1,ioemu:hda,w", []string{"/dev/vg/web1@hda"}},
		{"file:/srv/web1.img,hda:disk,w", []string{"/srv/web1.img@hda"}},
		{"iscsi:iqn.2001-05:x,xvda,w", []string{"iqn.2001-05:x@xvda by block-iscsi"}},
		{"drbd:web1,xvda,w", []string{"web1@xvda by block-drbd"}},
		{"unknown:/srv/a.img,xvda,w", nil},
		{"rbd:pool/img,raw,xvda,w", []string{"rbd:pool/img@xvda"}},
		// Keys anywhere.
		{"/srv/a.img,backendtype=qdisk,qcow2,xvda,w", []string{"/srv/a.img@xvda"}},
		{"script=block-nbd,vdev=xvda,target=host:1", []string{"host:1@xvda by block-nbd"}},
		{"/dev/vg/a,raw,xvda,rw,backend=storage", []string{"/dev/vg/a@xvda of storage"}},
		{"/dev/vg/a,raw,xvda,rw,backend=Domain-0", []string{"/dev/vg/a@xvda"}},
		{"/dev/vg/a,raw,xvda,rw,backend=0", []string{"/dev/vg/a@xvda"}},
		{"/srv/a,raw,xvda,w,colo,colo-host=h,colo-port=9,colo-export=e,active-disk=/srv/act,hidden-disk=/srv/hid",
			[]string{"/srv/a@xvda", "/srv/act@xvda", "/srv/hid@xvda"}},
		{"/srv/a,raw,xvda,w,discard,direct-io-safe,no-discard,untrusted,specification=virtio,grant_usage=1", []string{"/srv/a@xvda"}},
		// What a later xl may add is a name if it can be one.
		{"/srv/a,raw,xvda,w,shadow=/srv/b", []string{"/srv/a@xvda", "/srv/b@xvda"}},
		{"/srv/a,raw,xvda,w,speed=12", []string{"/srv/a@xvda"}},
		// Drives with nothing in them.
		{",,hdc,cdrom", []string{}},
		{",hdc:cdrom,r", []string{}},
		{"devtype=cdrom,vdev=hdc,format=empty,target=/srv/a.iso", []string{}},
		{"vdev=hdc,cdrom", []string{}},
		// What is not understood.
		{"", nil}, {"/srv/a", nil}, {"/srv/a,raw", nil},
		{"/srv/a,floppy,xvda,w", nil}, {"/srv/a,raw,xvda,x", nil}, {"/srv/a,raw,xvda,w,more", nil},
		{"/srv/a=b,raw,xvda,w", nil}, {"/srv/a,raw,xvda,target=/srv/b", nil}, {"qcow2:/srv/a,raw,xvda", nil},
	} {
		ds, err := parseXLDisk(tt.spec)
		if (err == nil) != (tt.want != nil) {
			t.Errorf("%q: %v, %v", tt.spec, shown(ds), err)
		} else if err == nil && !slices.Equal(shown(ds), tt.want) {
			t.Errorf("%q: %q, want %q", tt.spec, shown(ds), tt.want)
		}
	}
}

func TestXLFiles(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		extra      []string
		want       string // name and disks, or the error
	}{
		{"one of today", "# web\nname = \"web1\"\nmemory=512\nkernel = '/boot/vmlinuz'\ndisk = [ 'phy:/dev/vg/web1,xvda,w', # root\n  \"/srv/swap.img,raw,xvdb,w\",\n]\nvif = ['']\n", nil,
			"web1 [/boot/vmlinuz boot /dev/vg/web1@xvda /srv/swap.img@xvdb]"},
		{"no end of line", "name='web1'", nil, "web1 []"},
		{"nothing", "", nil, " []"},
		{"statements on one line", "name='a'; name='b';disk=['/a,,xvda'] ; ", nil, "b [/a@xvda]"},
		{"a list that grows", "disk=['/a,,xvda']\ndisk += [\n'/b,,xvdb'\n]\nname='x'\nname+='y'\n", nil, "xy [/a@xvda /b@xvdb]"},
		{"a list that is made anew", "disk=['/a,,xvda']\ndisk = ['/b,,xvdb']\n", nil, " [/b@xvdb]"},
		{"words behind the file", "name='a'\ndisk=['/a,,xvda']", []string{`disk=["/b,,xvda"]`, `name="z"`}, "z [/b@xvda]"},
		{"a share", "p9=['tag=t,security_model=none,path=/srv/share']", nil, " [/srv/share@t dir]"},
		{"a share of another domain", "p9=['tag=t,path=/srv/share,backend=files']", nil, " [/srv/share@t of files dir]"},
		{"a SCSI disk", "vscsi=['/dev/sdb,0:0:0:0']", nil, " [/dev/sdb@0:0:0:0]"},
		{"arguments for QEMU", "device_model_args_hvm=['-drive','file=/srv/x.img,if=none']", nil, " [/srv/x.img]"},
		{"escapes", `name="a\"b\\c\t"`, nil, "a\"b\\c\t []"},
		{"three quotation marks", "name = '''web\n1'''\ndisk=[\"\"\"/a,,xvda\"\"\"]", nil, "web\n1 [/a@xvda]"},
		{"lines that end as in DOS", "name='a'\r\ndisk=['/a,,xvda']\r\n", nil, "a [/a@xvda]"},
		{"numbers and lists in lists", "vcpus=0x10\nvnuma=[['pnode=0','size=1'],['x']]\nname='a'", nil, "a []"},

		{"code", "import os\nname='a'", nil, `line 1: "import os" is no assignment`},
		{"an expression", "name='a'\ndisk = [ 'phy:/dev/vg/%s,xvda,w' % name ]", nil, `line 2: "% name ]" in a list`},
		{"a sum", "name='a'+'b'", nil, `line 1: "+'b'" behind a value`},
		{"a variable", "x='a'\nname=x", nil, `line 2: "x" is no string, number or list`},
		{"a call", "vcpus=int('2')", nil, `line 1: "int('2')" is no string, number or list`},
		{"an indented block", "def f():\n  pass", nil, `line 1: "def f():" is no assignment`},
		{"a string that is not closed", "a=1\nname='a\ndisk=[]", nil, "line 2: a string is not closed"},
		{"three marks that are not closed", "a=1\nname='''a\n\n", nil, "line 2: a string is not closed"},
		{"a list that is not closed", "disk=['/a,,xvda'\n\nname='x'", nil, `line 3: "name='x'" in a list`},
		{"a character by number", `name="\x41"`, nil, `line 1: "\\x41\"" in a string`},
		{"a disk that is not understood", "name='a'\ndisk=[\n'/a,,xvda',\n'/b,what,xvdb']", nil, `line 4: "what" is no format`},
		{"one disk, not in a list", "disk='/a,,xvda'", nil, "line 1: disk is not a list"},
		{"a list in the list of disks", "disk=[['/a,,xvda']]", nil, "line 1: disk has a list in it"},
		{"a name that is a list", "name=['a']", nil, "line 1: name is a list"},
		{"a SCSI address", "vscsi=['0:0:0:1,0:0:0:0']", nil, `line 1: the SCSI address "0:0:0:1" is not understood`},
		{"a list added to a string", "disk='a'\ndisk+=['b']", nil, "line 2: disk is a list in one place and none in another"},
		{"two values", "name='a' 'b'", nil, `line 1: "'b'" behind a value`},
		{"the words behind the file are not understood", "name='a'\n", []string{"disk=x"}, `line 3: "x" is no string, number or list`},
	} {
		d, err := ParseXL(tt.text, tt.extra...)
		got := fmt.Sprintf("%s %v", d.Name, shown(d.Disks))
		if err != nil {
			got = err.Error()
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Errorf("%s: a %T", tt.name, err)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	// What was understood before an error is given with it.
	if d, err := ParseXL("name='a'\ndisk=['/a,,xvda','/b']\nwhat is this"); err == nil || d.Name != "a" || len(d.Disks) != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

// A disk is shown in the words of the file.
func TestXLWords(t *testing.T) {
	d, err := ParseXL(`disk=["/a,,xvda"]`)
	if err != nil || len(d.Disks) != 1 || d.Disks[0].Words != `disk = "/a,,xvda"` {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestXLCommands(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/lib/xen-4.17/bin/xl create -p /etc/xen/lab/w.cfg": `create "/etc/xen/lab/w.cfg" "" []`,
		"/usr/lib/xen-4.17/bin/xl restore -p /srv/w.save":       `restore "" "/srv/w.save" []`,
		"xl restore /etc/xen/w.cfg /srv/w.save":                 `restore "/etc/xen/w.cfg" "/srv/w.save" []`,
		"xl -vvv create web.cfg":                                `create "web.cfg" "" []`,
		"xl create -f web.cfg -c":                               `create "web.cfg" "" []`,
		"xl create --defconfig=web.cfg":                         `create "web.cfg" "" []`,
		"xl create /dev/null name='a' disk=['/b,,xvda']":        `create "/dev/null" "" [name='a' disk=['/b,,xvda']]`,
		"xl cre web.cfg":                                        `create "web.cfg" "" []`,
		"xl migrate-receive":                                    `migrate-receive "" "" []`,
		"xl migrate-receive -e --coloft-script /x":              `migrate-receive "" "" []`,
		"/bin/sh /usr/sbin/xl create web.cfg":                   `create "web.cfg" "" []`,
		"xl create":                                             `create "" "" []`,
		"xl list":                                               "", "xl console web1": "", "xl save web1 /srv/w.save": "", "xl": "", "vi xl create": "", "axl create x": "", "": "", "xl -v": "",
	} {
		s, ok := ParseXLCommand(strings.ReplaceAll(line, " ", "\x00") + "\x00")
		got := ""
		if ok {
			got = fmt.Sprintf("%s %q %q %v", s.Command, s.Config, s.Saved, s.Extra)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

func TestShell(t *testing.T) {
	const a, s = "XENDOMAINS_AUTO", "XENDOMAINS_SAVE"
	for text, want := range map[string]string{
		"XENDOMAINS_SAVE=/var/lib/xen/save\nXENDOMAINS_AUTO=/etc/xen/auto\n":      "map[XENDOMAINS_AUTO:/etc/xen/auto XENDOMAINS_SAVE:/var/lib/xen/save]",
		"  export XENDOMAINS_AUTO=\"/a b\" # c\nXENDOMAINS_SAVE=''\n":             "map[XENDOMAINS_AUTO:/a b XENDOMAINS_SAVE:]",
		"# XENDOMAINS_AUTO=/x\nXENDOMAINS_AUTO_ONLY=false\nif true; then :; fi\n": "map[]",
		"XENDOMAINS_AUTO=/a\nXENDOMAINS_AUTO=/b # x\n":                            "map[XENDOMAINS_AUTO:/b]",
		"XENDOMAINS_AUTO=/a;\n":             "map[XENDOMAINS_AUTO:/a]",
		"\nXENDOMAINS_AUTO=$HOME/auto\n":    "line 2: the value of XENDOMAINS_AUTO is not understood",
		"XENDOMAINS_AUTO=\"`pwd`\"\n":       "line 1: the value of XENDOMAINS_AUTO is not understood",
		"XENDOMAINS_AUTO=\"/a\n":            "line 1: the value of XENDOMAINS_AUTO is not understood",
		"XENDOMAINS_AUTO=/a rm -rf /\n":     "line 1: the value of XENDOMAINS_AUTO is not understood",
		"[ -d /x ] && XENDOMAINS_AUTO=/x\n": "line 1: it is not understood what is done with XENDOMAINS_AUTO",
		"X=$XENDOMAINS_AUTO/x\n":            "line 1: it is not understood what is done with XENDOMAINS_AUTO",
		"XENDOMAINS_AUTO=/etc/xen/au":       "line 1: cut off",
		"unset XENDOMAINS_SAVE\n":           "line 1: it is not understood what is done with XENDOMAINS_SAVE",
	} {
		m, err := ParseShell(text, a, s)
		got := fmt.Sprint(m)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzParseXL(f *testing.F) {
	f.Add("name = \"web1\"\ndisk = [ 'phy:/dev/vg/web1,xvda,w', # root\n]\n")
	f.Add("disk=['/a,,xvda'];disk+=['target=/b,c']\nname='''x'''")
	f.Add("import os\n")
	f.Add("a=[[[[[[[[[[1]]]]]]]]]]")
	f.Add("name='\\x41'")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseXL(text)
		checkDomain(t, d, err, len(text)+1)
		if err == nil && text != "" {
			// A blank line before and an assignment behind change nothing.
			again, err := ParseXL("\n" + text + "\nxyzzy=1\n")
			if err != nil || again.Name != d.Name || !slices.Equal(again.Disks, d.Disks) {
				t.Errorf("%q is %+v, and with more lines %+v, %v", text, d, again, err)
			}
		}
	})
}

// checkDomain demands what holds for every description.
func checkDomain(t *testing.T, d Domain, err error, lines int) {
	t.Helper()
	for _, disk := range d.Disks {
		if disk.Path == "" || disk.Words == "" {
			t.Errorf("disk %+v", disk)
		}
	}
	var syntax *SyntaxError
	if err != nil && (!errors.As(err, &syntax) || syntax.Line < 0 || syntax.Line > lines || syntax.Reason == "") {
		t.Errorf("error %#v", err)
	}
}

// What target= names is what is read, whatever stands in it.
func FuzzParseXLDisk(f *testing.F) {
	f.Add("tap:aio:/x,xvda,w", "/srv/a")
	f.Add("/a,raw,xvda,r,backend=d", "/srv/a,b=c")
	f.Add(",hdc:cdrom,r", "phy:x")
	f.Fuzz(func(t *testing.T, spec, name string) {
		ds, err := parseXLDisk(spec)
		for _, d := range ds {
			if d.Path == "" || err == nil && d.Dev == "" && !strings.Contains(spec, "vdev=") && !strings.Contains(spec, ",") {
				t.Errorf("%q: %+v", spec, d)
			}
		}
		if name == "" || strings.HasSuffix(name, ",") {
			return
		}
		ds, err = parseXLDisk("vdev=xvda,target=" + name)
		if err != nil || len(ds) != 1 || ds[0].Path != name {
			t.Errorf("%q is read as %+v, %v", name, ds, err)
		}
	})
}

func FuzzParseXLCommand(f *testing.F) {
	f.Add("xl\x00create\x00web.cfg\x00")
	f.Add("xl\x00-v\x00restore\x00-p\x00a\x00b\x00")
	f.Add("xl\x00create\x00-f\x00")
	f.Fuzz(func(t *testing.T, cmdline string) {
		s, ok := ParseXLCommand(cmdline)
		if ok != (s.Command != "") || ok && !strings.Contains(cmdline, "xl") {
			t.Errorf("%q: %+v", cmdline, s)
		}
	})
}

func FuzzParseShell(f *testing.F) {
	f.Add("XENDOMAINS_AUTO=/etc/xen/auto\n")
	f.Add("export XENDOMAINS_AUTO=\"/a\" #\nX=$XENDOMAINS_AUTO\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseShell(text, "XENDOMAINS_AUTO")
		for _, v := range m {
			if strings.ContainsAny(v, "$`\n") || !strings.Contains(text, v) {
				t.Errorf("%q gives %q", text, v)
			}
		}
		if err != nil && !strings.Contains(text, "XENDOMAINS_AUTO") {
			t.Error(err)
		}
	})
}
