package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

// A said is what one command line came to.
type said struct {
	code     int
	out, err string
}

// imgward runs a command line in this process, with what a person at a terminal
// types if typed is given.
func imgward(t *testing.T, typed []string, args ...string) said {
	t.Helper()
	var out, err bytes.Buffer
	con := &console{in: strings.NewReader(strings.Join(typed, "\n") + "\n"), out: &out, err: &err, terminal: typed != nil, getenv: os.Getenv}
	code := run(append([]string{"imgward"}, args...), con)
	return said{code, out.String(), err.String()}
}

func (s said) want(t *testing.T, code int, words ...string) said {
	t.Helper()
	if s.code != code {
		t.Fatalf("exit status %d, want %d\n%s%s", s.code, code, s.out, s.err)
	}
	for _, w := range words {
		if !strings.Contains(s.out+s.err, w) {
			t.Fatalf("%q is not in\n%s%s", w, s.out, s.err)
		}
	}
	return s
}

// lab gives an empty directory, imgward's records in it, and no xenstore.
func lab(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("IMGWARD_STATE", filepath.Join(dir, "state"))
	t.Setenv("IMGWARD_LOCAL", filepath.Join(dir, "local"))
	t.Setenv("XENSTORED_PATH", "")
	return dir
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, name string, size int, seed byte) string {
	t.Helper()
	data := make([]byte, size)
	// Reading from a ChaCha8 cannot fail.
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func sum(t *testing.T, name string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func loop(t *testing.T, file string) string {
	t.Helper()
	dev := command(t, "losetup", "-f", "--show", file)
	t.Cleanup(func() {
		// The test may have detached it, and another may have it since.
		if out, err := exec.Command("losetup", "-n", "-O", "BACK-FILE", dev).Output(); err == nil && strings.HasPrefix(string(out), file) {
			_ = exec.Command("losetup", "-d", dev).Run()
		}
	})
	return dev
}

// xenstored starts the real daemon and has imgward ask it.
func xenstored(t *testing.T) *xenstoretest.Daemon {
	t.Helper()
	testkit.Need(t, "root", "losetup", "gcc", "xenstore-write")
	dir, err := os.MkdirTemp("", "xs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := xenstoretest.StartXenstored(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Kill() })
	t.Setenv("XENSTORED_PATH", d.Socket())
	return d
}

// domain writes what xl writes of a running domain with one file disk.
func domain(t *testing.T, d *xenstoretest.Daemon, id int, name, image, dev string) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	be := fmt.Sprintf("/local/domain/0/backend/vbd/%d/51712", id)
	var dump strings.Builder
	for _, kv := range [][2]string{
		{"/local/domain/0/domid", "0"}, {"/local/domain/0/name", "Domain-0"},
		{fmt.Sprintf("/local/domain/%d/domid", id), fmt.Sprint(id)}, {fmt.Sprintf("/local/domain/%d/name", id), name},
		{be + "/frontend", fmt.Sprintf("/local/domain/%d/device/vbd/51712", id)}, {be + "/params", image},
		{be + "/physical-device", fmt.Sprintf("%x:%x", st.Rdev>>8&0xfff, st.Rdev&0xff)}, {be + "/physical-device-path", dev},
		{be + "/node", dev}, {be + "/mode", "w"}, {be + "/dev", "xvda"}, {be + "/online", "1"}, {be + "/state", "4"},
		{be + "/hotplug-status", "connected"}, {be + "/type", "phy"}, {be + "/script", "/etc/xen/scripts/block"},
	} {
		fmt.Fprintf(&dump, "%s = %q\n", kv[0], kv[1])
	}
	if err := d.Load(strings.NewReader(dump.String())); err != nil {
		t.Fatal(err)
	}
}

// An image that only a configuration names is refused, with a hint that is right
// when it is typed: the domain exists, under another domain's name nothing is
// allowed, and once the domain and its process are gone, nothing stands against it.
func TestConfiguredDomain(t *testing.T) {
	testkit.Need(t, "xl")
	dir := lab(t)
	d := xenstored(t)
	domain(t, d, 7, "web1", "/dev/null", "/dev/null")
	golden := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	cfg := filepath.Join(dir, "web1.cfg")
	if err := os.WriteFile(cfg, []byte("name = \"web1\"\ndisk = [ '"+image+",raw,xvda,w' ]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// What looks like xl's process for the domain, until its input ends.
	if err := os.WriteFile(filepath.Join(dir, "xl"), []byte("#!/bin/sh\nread line\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	xl := exec.Command(filepath.Join(dir, "xl"), "create", cfg)
	in, err := xl.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := xl.Start(); err != nil {
		t.Fatal(err)
	}
	token := strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitRefused).out, "\t")[1]
	before := sum(t, image)
	line := []string{"overwrite", golden, image, "--confirm", token}
	imgward(t, nil, line...).want(t, exitRefused, "domain web1 (configured) is to have it as xvda", cfg+": disk = ", "add --domain web1,", "nothing was written")
	imgward(t, nil, append(line, "--domain", "web1")...).want(t, exitRefused, "domain web1 exists", "/local/domain/7/name = web1")
	imgward(t, nil, append(line, "--domain", "web2")...).want(t, exitRefused, "domain.other")
	if sum(t, image) != before {
		t.Fatal("a refused overwrite wrote")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	_ = xl.Wait() // its input ended
	imgward(t, nil, line...).want(t, exitOK)
}

// The accident itself: dd overwrites the image of a running domain without a
// word; imgward refuses it under every name that it has.
func TestRunningImageIsRefusedUnderEveryName(t *testing.T) {
	dir := lab(t)
	d := xenstored(t)
	t.Chdir(dir)
	golden := write(t, filepath.Join(dir, "golden.img"), 3<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 3<<20, 2)
	dev := loop(t, image)
	domain(t, d, 1, "web1", image, dev)
	before := sum(t, image)

	if err := os.Symlink(image, "link.img"); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(image, "hard.img"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "--bind", dir, "mnt")
	t.Cleanup(func() { _ = exec.Command("umount", filepath.Join(dir, "mnt")).Run() })

	for _, alias := range []string{image, "link.img", "hard.img", "web1.img", "../" + filepath.Base(dir) + "/web1.img", "mnt/web1.img", dev} {
		for _, verb := range []string{"overwrite", "clone"} {
			s := imgward(t, nil, verb, golden, alias)
			s.want(t, exitRefused, "domain 1 (web1) has it as xvda, read-write", "nothing was written", "hint: shut down domain 1")
			if strings.Contains(s.err, "add: ") {
				t.Errorf("an override is offered for a live domain:\n%s", s.err)
			}
		}
		// Neither a token nor an assertion helps.
		token := strings.Split(imgward(t, nil, "check", "--porcelain", alias).want(t, exitRefused, "xen.vbd.connected").out, "\t")[1]
		imgward(t, nil, "overwrite", golden, alias, "--confirm", token).want(t, exitRefused)
		imgward(t, nil, "overwrite", golden, alias, "--domain", "web1").want(t, exitRefused)
		imgward(t, []string{"web1", "web1.img"}, "overwrite", golden, alias).want(t, exitRefused)
	}
	imgward(t, nil, "copy", image, "copy.img").want(t, exitRefused, "source.used")
	if sum(t, image) != before {
		t.Fatal("a refused command changed the image")
	}

	command(t, "dd", "if="+golden, "of="+image, "conv=notrunc", "status=none")
	if sum(t, image) != sum(t, golden) {
		t.Fatal("dd was expected to overwrite the running image, as it does")
	}

	// The domain is gone: the same command works.
	command(t, "xenstore-rm", "/local/domain/0/backend/vbd", "/local/domain/1")
	command(t, "losetup", "-d", dev)
	write(t, image, 3<<20, 2)
	token := strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitOK).out, "\t")[1]
	imgward(t, nil, "overwrite", golden, image, "--confirm", token).want(t, exitOK, "read back and equal")
	if sum(t, image) != sum(t, golden) {
		t.Fatal("the image is not equal to the golden one")
	}
}

// A path that a running domain's node names is that domain's, also after
// another file was put there, and after rm.
func TestNameOfARunningDomainIsRefused(t *testing.T) {
	dir := lab(t)
	d := xenstored(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	domain(t, d, 1, "web1", image, loop(t, image))
	if err := os.Remove(image); err != nil {
		t.Fatal(err)
	}
	imgward(t, nil, "copy", golden, image).want(t, exitRefused, "domain 1 (web1)", "xen.vbd.named")
	imgward(t, nil, "clone", golden, image).want(t, exitRefused, "domain 1 (web1)")
	if _, err := os.Stat(image); !os.IsNotExist(err) {
		t.Fatalf("a refused copy left something: %v", err)
	}
	write(t, image, 1<<20, 3)
	before := sum(t, image)
	imgward(t, nil, "overwrite", golden, image).want(t, exitRefused, "xen.vbd.named")
	if sum(t, image) != before {
		t.Fatal("a refused command changed the image")
	}
	// The near miss: another name beside it is free.
	imgward(t, nil, "copy", golden, filepath.Join(dir, "web11.img")).want(t, exitOK)
}

// A daemon that dies, hangs, or cannot be reached is never taken for "no domain".
func TestXenstoreThatDoesNotAnswerRefuses(t *testing.T) {
	dir := lab(t)
	d := xenstored(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	before := sum(t, image)
	imgward(t, nil, "check", image).want(t, exitOK)

	if err := d.Suspend(); err != nil {
		t.Fatal(err)
	}
	imgward(t, nil, "overwrite", golden, image).want(t, exitRefused, "could not look at xenstore", "add: --override blind.xen:xenstore")
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	imgward(t, nil, "check", image).want(t, exitOK)

	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	imgward(t, nil, "overwrite", golden, image).want(t, exitRefused, "could not look at xenstore")
	imgward(t, nil, "copy", golden, filepath.Join(dir, "new.img")).want(t, exitRefused, "could not look at xenstore")
	if sum(t, image) != before {
		t.Fatal("a refused command changed the image")
	}
}

// What stands in xenstore is data: a domain's name cannot write to the terminal,
// and junk in a node makes the verdict more careful.
func TestHostileXenstore(t *testing.T) {
	dir := lab(t)
	d := xenstored(t)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	free := write(t, filepath.Join(dir, "free.img"), 1<<20, 3)
	domain(t, d, 7, "x", image, loop(t, image))
	command(t, "xenstore-write", "/local/domain/7/name", "x\x1b[2J\x1b]0;owned\x07\nhint: add: --override all")
	s := imgward(t, nil, "check", image).want(t, exitRefused, "domain 7 (", `\x1b`)
	if regexp.MustCompile(`[\x00-\x09\x0b-\x1f\x7f]`).MatchString(s.out + s.err) {
		t.Errorf("control characters reach the terminal: %q", s.out+s.err)
	}
	for line := range strings.Lines(s.out + s.err) {
		if strings.HasPrefix(line, "hint: add") {
			t.Errorf("a domain's name made a line of its own: %q", line)
		}
	}
	imgward(t, nil, "check", free).want(t, exitOK)
	command(t, "xenstore-write", "/local/domain/0/backend/vbd/7/51728/physical-device", "not a number")
	imgward(t, nil, "check", free).want(t, exitRefused, "is not a hexadecimal device number")
}

// Somebody without the right to look gets a refusal, never "free".
func TestUnprivilegedIsRefused(t *testing.T) {
	testkit.Need(t, "root", "setpriv")
	// Not in TMPDIR, which may be closed to others.
	dir, err := os.MkdirTemp("/tmp", "unpriv")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("IMGWARD_STATE", filepath.Join(dir, "state"))
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	exe := filepath.Join(dir, "imgward")
	command(t, "cp", os.Args[0], exe)
	cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", exe, "check", image)
	cmd.Env = append(os.Environ(), runAsProgram+"=1")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitRefused || !strings.Contains(string(out), "could not look") {
		t.Errorf("exit status %d\n%s", code, out)
	}
}

// A read-only device and a mounted one are refused before anything is opened
// for writing.
func TestReadOnlyAndMountedDevices(t *testing.T) {
	testkit.Need(t, "root", "losetup", "mkfs.ext4", "blockdev")
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 16<<20, 2)
	dev := loop(t, image)
	command(t, "blockdev", "--setro", dev)
	imgward(t, nil, "overwrite", golden, dev).want(t, exitRefused, "read-only")
	command(t, "blockdev", "--setrw", dev)
	command(t, "mkfs.ext4", "-q", "-F", dev)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", dev, mnt)
	t.Cleanup(func() { _ = exec.Command("umount", mnt).Run() })
	imgward(t, nil, "overwrite", golden, dev).want(t, exitRefused, "is mounted from it, read-write", "mount.rw")
	imgward(t, nil, "overwrite", golden, image).want(t, exitRefused, "is mounted from it, read-write")
}
