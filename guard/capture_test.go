package guard

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/guard/hostfs"
	"imgward/xenstore"
	"imgward/xenstore/dump"
)

// A capture of any host, saved and loaded, is judged as the host is, in the same
// words; redacted, it has the same decision and codes.
func TestCaptureIsJudgedAsTheHost(t *testing.T) {
	for _, c := range hostCases(t) {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			host := &Host{FS: c.root, State: "/var/lib/imgward"}
			text, ok := c.root.Member("xenstore")
			if ok {
				host.Store = snapshot(t, text)
			}
			var paths []string
			for _, q := range c.questions(t) {
				paths = append(paths, q.path)
			}
			root, verdicts, err := Capture(t.Context(), host, paths)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				root.SetMember("xenstore", text)
			}
			for _, full := range []bool{true, false} {
				if !full {
					root = Redacted(root)
				}
				judgeAgain(t, root, verdicts, full)
			}
		})
	}
}

// judgeAgain saves, loads and judges a capture. Redacted, the words may be others.
func judgeAgain(t *testing.T, root *hostfs.Root, verdicts []Verdict, full bool) {
	t.Helper()
	var file strings.Builder
	if err := root.Save(&file); err != nil {
		t.Fatal(err)
	}
	again, err := hostfs.Load(strings.NewReader(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	replay := &Host{FS: again, State: "/var/lib/imgward"}
	if text, ok := again.Member("xenstore"); ok {
		replay.Store = snapshot(t, text)
	}
	qs, err := Questions(again)
	if err != nil || len(qs) != len(verdicts) {
		t.Fatalf("%d questions, %v, of %d", len(qs), err, len(verdicts))
	}
	for i, q := range qs {
		target, v, err := Policy{Operation: q.Operation}.Check(t.Context(), replay, q.Path)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		want, got := verdicts[i].Answer(), v.Answer()
		if !full {
			want, _, _ = strings.Cut(want, "\n\n")
			got, _, _ = strings.Cut(got, "\n\n")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, full %v (-host +its capture):\n%s", q, full, diff)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
	}
}

func snapshot(t *testing.T, text string) *xenstore.Snapshot {
	t.Helper()
	nodes, err := dump.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return xenstore.NewSnapshot("", nodes)
}

// A path that leads nowhere is a question all the same: that may be the report.
func TestCaptureOfWhatCannotBeResolved(t *testing.T) {
	c := hostCases(t)[0]
	root, vs, err := Capture(t.Context(), &Host{FS: c.root, State: "/var/lib/imgward"}, []string{"/no/such/dir/x.img", "/proc"})
	if err != nil || len(vs) != 2 || vs[0].Decision != Refuse {
		t.Fatalf("%v, %v", vs, err)
	}
	qs, err := Questions(root)
	if want := []Question{{Overwrite, "/no/such/dir/x.img"}, {Overwrite, "/proc"}}; !slices.Equal(qs, want) || err != nil {
		t.Errorf("%v, %v", qs, err)
	}
}

// What is asked of a capture is asked in full: a domain that runs is not down.
func TestCheckAsksWhetherTheDomainIsDown(t *testing.T) {
	o := newOwner(t)
	o.dir("/run")
	for _, tt := range []struct {
		codes    []Code
		decision Decision
	}{{nil, Proceed}, {[]Code{DomainRunning}, Refuse}} {
		target, v, err := Policy{Operation: Check, Domain: "web1"}.Check(t.Context(), o.host, image)
		if err != nil {
			t.Fatal(err)
		}
		if v.Decision != tt.decision || !slices.Equal(v.Codes(), tt.codes) {
			t.Errorf("%s because of %v, want %v", v.Decision, v.Codes(), tt.codes)
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
		o.store.Set("/local/domain/9/name", "web1")
	}
}

func TestQuestions(t *testing.T) {
	root := hostfs.New()
	want := []Question{
		{Overwrite, "/srv/a b.img"}, {Create, `/srv/"quoted".img`}, {Read, `"/srv/x"`}, {Overwrite, "/srv/x "}, {Overwrite, "/srv/a\nquestion: read /b"},
	}
	comment := "A host.\n"
	for _, q := range want {
		comment += "question: " + q.String() + "\n"
	}
	root.SetComment(comment)
	if got, err := Questions(root); !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, text := range []string{"erase /srv/x", "overwrite", "overwrite ", ""} {
		root.SetComment("question: " + text + "\n")
		if got, err := Questions(root); err == nil && text != "" {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestRedacted(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"/proc/7/cmdline", "qemu-system-i386\x00-name\x00web1\x00-drive\x00file=/srv/web1.img,if=ide,password=x\x00-vnc\x0010.0.0.1:1,password\x00-xen-domid\x007\x00",
			"qemu-system-i386\x00-name\x00redacted\x00-drive\x00file=/srv/web1.img,if=redacted,password=redacted\x00-vnc\x00redacted\x00-xen-domid\x007\x00"},
		{"/proc/7/cmdline", "/usr/sbin/xl\x00create\x00-c\x00web1.cfg\x00vncpasswd=\"x\"\x00", "/usr/sbin/xl\x00create\x00-c\x00web1.cfg\x00vncpasswd=redacted\x00"},
		{"/proc/7/cmdline", "tar\x00--file=secret.tar\x00/srv\x00", "tar\x00--file=redacted\x00/srv\x00"},
		{"/proc/7/cmdline", "", ""},
		{"/etc/xen/web1.cfg", "disk = ['/srv/web1.img,raw,xvda,w']\nvif = ['mac=00:16:3E:5d:a1:b2,ip=10.1.2.3,bridge=br0']\nvncpasswd = \"hush\"\nvnclisten='0.0.0.0'\nspicepasswd='hu\"sh'\nkeyfile=/etc/key\n",
			"disk = ['/srv/web1.img,raw,xvda,w']\nvif = ['mac=00:16:3e:00:00:01,ip=192.0.2.1,bridge=br0']\nvncpasswd = \"redacted\"\nvnclisten='0.0.0.0'\nspicepasswd='redacted'\nkeyfile=redacted\n"},
		{"/var/lib/xen/userdata-d.7.u.libxl-json", `{"passwd": "a\"b", "vnc_passwd": null, "password": "", "pass": 1, "passwd2": 1234, "mac": "aa:bb:cc:dd:ee:ff"}`,
			`{"passwd": "redacted", "vnc_passwd": null, "password": "", "pass": 1, "passwd2": 0, "mac": "00:16:3e:00:00:01"}`},
		{"/etc/libvirt/libxl/web1.xml", "<graphics passwd='x'/><secret type='ceph' uuid='1-2'/><password>y</password>", "<graphics passwd='redacted'/><secret type='ceph' uuid='1-2'/><password>redacted</password>"},
		{"/proc/1/mountinfo", "1 2 0:40 / /m rw - nfs4 10.0.0.5:/export rw,addr=10.0.0.5,clientaddr=fe80::1\n", "1 2 0:40 / /m rw - nfs4 192.0.2.1:/export rw,addr=192.0.2.1,clientaddr=2001:db8::1\n"},
		{"/proc/locks", "1: POSIX  ADVISORY  WRITE 700 fe:00:14847 0 EOF\n", "1: POSIX  ADVISORY  WRITE 700 fe:00:14847 0 EOF\n"},
		{"/proc/1/maps", "00400000-00452000 r-xp 00000000 08:02 173521      /usr/lib/libx.so.1.2.3.4.5\n", "00400000-00452000 r-xp 00000000 08:02 173521      /usr/lib/libx.so.1.2.3.4.5\n"},
		{"/sys/block/sda/wwid", "50:01:43:80:12:34:56:78 127.0.0.1 ::1 :: 192.0.2.10 2001:db8::10\n", "50:01:43:80:12:34:56:78 127.0.0.1 ::1 :: 192.0.2.10 2001:db8::10\n"},
	} {
		root := hostfs.New()
		root.SetFile(tt.name, tt.text)
		if got, err := Redacted(root).ReadFile(tt.name); string(got) != tt.want || err != nil {
			t.Errorf("%s %q:\n%q, %v, want\n%q", tt.name, tt.text, got, err, tt.want)
		}
	}
}

// A name with an address in it has the same new name wherever it stands, so that
// what leads there still does.
func TestRedactedNamesAgree(t *testing.T) {
	root := hostfs.New()
	const name = "/srv/10.0.0.9/10.0.0.10.img"
	root.SetDir("/srv", "10.0.0.9")
	root.SetDir("/srv/10.0.0.9", "10.0.0.10.img")
	root.SetLink("/dev/web1", name)
	root.SetStat(name, hostfs.Stat{Type: hostfs.Regular, Ino: 7})
	root.SetFile("/proc/swaps", name+"\n")
	root.SetMember("xenstore", "/a/params = \""+name+"\"\n/a/vnc-passwd = \"hush\"\n/a/mac = \"00:11:22:33:44:55\"\n/a/tab = \"\\t10.0.0.9\"\n")
	root.SetComment("question: overwrite " + name + "\n")
	got := Redacted(root)
	qs, err := Questions(got)
	if err != nil || strings.Contains(qs[0].Path, "10.0.0") {
		t.Fatalf("%v, %v", qs, err)
	}
	if st, err := got.Stat("/dev/web1"); st.Ino != 7 || err != nil {
		t.Errorf("the link: %+v, %v", st, err)
	}
	if st, err := got.Stat(qs[0].Path); st.Ino != 7 || err != nil {
		t.Errorf("the question: %+v, %v", st, err)
	}
	if b, err := got.ReadFile("/proc/swaps"); string(b) != qs[0].Path+"\n" || err != nil {
		t.Errorf("the table: %q, %v", b, err)
	}
	if store, _ := got.Member("xenstore"); store != fmt.Sprintf("/a/params = %q\n/a/vnc-passwd = \"redacted\"\n/a/mac = \"00:16:3e:00:00:01\"\n/a/tab = \"\\t%s\"\n", qs[0].Path, path.Base(path.Dir(qs[0].Path))) {
		t.Errorf("the store: %s", store)
	}
	if !strings.Contains(got.Comment(), "redacted: words of 0 command lines, 3 network addresses, 1 secret ") {
		t.Errorf("the comment: %s", got.Comment())
	}
	dirs, err := got.ReadDir("/srv")
	if err != nil || strings.Contains(strings.Join(dirs, " "), "10.0.0") {
		t.Errorf("the directory: %q, %v", dirs, err)
	}
}

// FuzzRedact requires that no text breaks the redactor, and that redacting once is
// enough.
func FuzzRedact(f *testing.F) {
	f.Add("/etc/xen/a.cfg", "vncpasswd='x'\nip=10.0.0.1 00:16:3e:11:22:33 fe80::2 password: \"\\\"\"")
	f.Add("/proc/1/cmdline", "a\x00b=c,/d=/e\x00")
	f.Fuzz(func(t *testing.T, name, text string) {
		if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
			return
		}
		root := hostfs.New()
		root.SetFile(name, text)
		root.SetMember("xenstore", text)
		once := Redacted(root)
		var b strings.Builder
		if err := once.Save(&b); err == nil {
			if _, err := hostfs.Load(strings.NewReader(b.String())); err != nil {
				t.Errorf("%v\n%s", err, b.String())
			}
		}
	})
}

// The look at all that collectors look at reads no file that happens to lie
// somewhere: a capture is given away.
func TestSurveyReadsNoFiles(t *testing.T) {
	m := newMachine()
	m.image("/secret.json", FileID(hostfs.Mkdev(8, 1), 77), "write", 0)
	xenHost(t, m)
	host := *m.host
	host.FS = m.fs.Record(func(op, name string) {
		if op == "content" && name != "/" { // a directory, which cannot be read
			t.Errorf("%s is read", name)
		}
	})
	if err := survey(t.Context(), &host); err != nil {
		t.Fatal(err)
	}
}
