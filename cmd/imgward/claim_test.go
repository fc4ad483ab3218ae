package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

// claims lists what xenstore has of imgward's claims, as "xenstore-ls -f" does.
func claims(t *testing.T) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(command(t, "xenstore-ls", "-f")) {
		if strings.Contains(line, "/32760") {
			out = append(out, line)
		}
	}
	return out
}

// A device is a loop device on a new file, and what overwrites it.
type device struct {
	path  string
	words []string // what hints say is to be added: nobody vouches for a process that cannot be looked at
	line  []string
}

func newDevice(t *testing.T, dir string, size int) *device {
	t.Helper()
	golden := write(t, filepath.Join(dir, "golden.img"), size, 1)
	d := &device{path: loop(t, write(t, filepath.Join(dir, "disk.img"), size, 2))}
	for line := range strings.Lines(imgward(t, nil, "check", d.path).err) {
		if _, words, ok := strings.Cut(line, "add: "); ok {
			d.words = strings.Fields(words)
		}
	}
	d.line = append([]string{"overwrite", golden, d.path}, d.words...)
	return d
}

// confirmed is the line with the token of what is on the device now.
func (d *device) confirmed(t *testing.T, more ...string) []string {
	t.Helper()
	said := imgward(t, nil, append([]string{"check", "--porcelain", d.path}, d.words...)...).want(t, exitOK)
	return slices.Concat(d.line, []string{"--confirm", strings.Split(said.out, "\t")[1]}, more)
}

// stopped starts an overwrite and stops it in the middle.
func stopped(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	underWay(t, cmd)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// While a device is written Xen is told, and told otherwise when it is whole; a
// kill -9 in the middle leaves the claim, until the device is overwritten or the
// operator releases it.
func TestClaimOfAKilledOverwrite(t *testing.T) {
	testkit.Need(t, "xenstore-ls")
	dir := lab(t)
	xenstored(t)
	d := newDevice(t, dir, 128<<20)
	for _, way := range []string{"release", "overwrite"} {
		cmd := child(t.Context(), d.confirmed(t, "-v", "--sparse", "off")...)
		stopped(t, cmd)
		if there := claims(t); len(there) < 10 || !strings.Contains(strings.Join(there, ""), "/local/domain/32760/vm = \"/vm/imgward\"") {
			t.Errorf("while it is written: %q", there)
		}
		imgward(t, nil, "release", d.path).want(t, exitFailed, "is writing to it")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		before := claims(t)
		if len(before) == 0 {
			t.Fatal("no claim is left")
		}
		imgward(t, nil, append([]string{"check", d.path}, d.words...)...).want(t, exitOK, "imgward release "+d.path, "it is incomplete")
		imgward(t, nil, "domains").want(t, exitOK)
		if way == "release" {
			imgward(t, nil, "release", d.path).want(t, exitOK, "withdrew the claim of imgward (process ", "is incomplete still")
		} else {
			imgward(t, nil, d.confirmed(t)...).want(t, exitOK)
		}
		if there := claims(t); len(there) > 0 {
			t.Errorf("after %s: %q", way, there)
		}
	}
	imgward(t, nil, "release", d.path).want(t, exitOK, "nothing was left on")
	imgward(t, nil, "--json", "release", d.path).want(t, exitOK, `"withdrawn":[]`, `"incomplete":false`)
}

// --no-claim writes nothing to xenstore.
func TestNoClaim(t *testing.T) {
	testkit.Need(t, "xenstore-ls")
	dir := lab(t)
	xenstored(t)
	d := newDevice(t, dir, 64<<20)
	cmd := child(t.Context(), d.confirmed(t, "-v", "--no-claim")...)
	stopped(t, cmd)
	if there := claims(t); len(there) > 0 {
		t.Errorf("%q", there)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	s := imgward(t, nil, d.confirmed(t)...).want(t, exitOK)
	if strings.Count(s.err, "note:") != 1 || !strings.Contains(s.err, "by a claim in xenstore, domains are refused") {
		t.Errorf("more is said than which protection there is:\n%s", s.err)
	}
	if out, err := exec.Command("xenstore-ls", "-f").CombinedOutput(); err != nil || strings.Contains(string(out), "32760") {
		t.Errorf("%v: %s", err, out)
	}
}

// A claim that cannot be withdrawn is said with -q, too, with what withdraws it, and
// beside a refusal that came in the end.
func TestClaimStaysBehind(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	dir := lab(t)
	d := newDevice(t, dir, 4<<20)
	for _, tt := range []struct {
		name  string
		comes bool // a domain, at the same time as the claim, and then nothing is written
		more  string
		code  int
	}{
		{"whole", false, "-q", exitIncomplete},
		{"refused", true, "-q", exitRefused},
		{"whole", false, "--json", exitIncomplete},
		{"refused", true, "--json", exitRefused},
		{"refused", true, "-v", exitRefused},
	} {
		s := xenstoretest.NewServer()
		socket := filepath.Join(t.TempDir(), "socket")
		if err := s.Listen(socket); err != nil {
			t.Fatal(err)
		}
		s.Set("/local/domain/0/name", "Domain-0")
		s.Set("/local/domain/7/name", "web01")
		t.Setenv("XENSTORED_PATH", socket)
		line := d.confirmed(t, tt.more)
		s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.Op == "WRITE" && strings.HasSuffix(r.Path, "/physical-device") && tt.comes {
				s.Set("/local/domain/0/backend/vbd/7/51712/params", d.path)
			}
			if r.Op == "RM" {
				return xenstoretest.Reply{Error: "EIO"}
			}
			return xenstoretest.Reply{}
		})
		said := imgward(t, nil, line...).want(t, tt.code, "imgward release "+d.path)
		switch {
		case tt.more == "-q" && (said.out != "" || strings.Count(said.err, "\n") != 1):
			t.Errorf("%s %s said\n%s%s", tt.name, tt.more, said.out, said.err)
		case tt.more == "--json" && (said.err != "" || strings.Count(said.out, "\n") != 1):
			t.Errorf("%s %s said\n%s%s", tt.name, tt.more, said.out, said.err)
		}
		s.Close()
	}
}

// release says what it cannot do.
func TestReleaseFails(t *testing.T) {
	dir := lab(t)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	imgward(t, nil, "release").want(t, exitUsage)
	imgward(t, nil, "release", image, image).want(t, exitUsage)
	imgward(t, nil, "release", filepath.Join(dir, "missing")).want(t, exitFailed)
	t.Setenv("XENSTORED_PATH", filepath.Join(dir, "socket"))
	imgward(t, nil, "release", image).want(t, exitFailed, "no xenstore")
}
