package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/internal/testkit"
)

// Where nothing overrides what was found, no way round it is offered.
func TestPreflightOfAnAttachedImage(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	dir := lab(t)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 1)
	before := sum(t, image)
	dev := loop(t, image)
	for _, line := range []string{
		"cp golden.img IMAGE", "mv golden.img IMAGE", "dd of=IMAGE", "truncate -s 0 IMAGE", "mkfs.ext4 IMAGE", "wipefs -a IMAGE", "shred IMAGE",
		"qemu-img convert golden.img IMAGE", "cp -t DIR golden.img web1.img", "sudo cp golden.img IMAGE",
	} {
		args := strings.Fields(strings.NewReplacer("IMAGE", image, "DIR", dir).Replace(line))
		s := imgward(t, nil, append([]string{"preflight"}, args...)...).want(t, exitRefused, dev+" stands on it", args[0]+" was not run")
		if strings.Contains(s.err, "if you know better") || strings.Contains(s.err, "without any look") {
			t.Errorf("%s: a way round is offered\n%s", line, s.err)
		}
	}
	if sum(t, image) != before {
		t.Error("the image was written to")
	}
	command(t, "losetup", "-d", dev)
	imgward(t, nil, "preflight", "shred", image).want(t, exitOK)
}

// Who is not root cannot see who uses what: sudo is asked to look as root, with the
// command line as it was typed, and its answer counts. Nothing is asked where
// nothing is written.
func TestPreflightOfSudoAsksSudo(t *testing.T) {
	testkit.Need(t, "root")
	dir := lab(t)
	// Everybody may run what root's umask and temporary directories hide.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.MkdirTemp("/tmp", "imgward-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(public) })
	binary := filepath.Join(public, "imgward")
	for name, text := range map[string][]byte{binary: self, filepath.Join(public, "sudo"): []byte("#!/bin/sh\nprintf '<%s>' \"$@\"\nexit $SUDO_SAYS\n")} {
		if err := os.WriteFile(name, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(public, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		says, line, want string
		code             int
	}{
		{"0", "cp a b", "<--><" + binary + "><preflight><--><sudo><cp><a><b>", exitOK},
		{"3", "-n cp a b", "<-n><--><" + binary + "><preflight><--><sudo><-n><cp><a><b>", exitRefused},
		{"1", "cp a b", "<--><" + binary + "><preflight><--><sudo><cp><a><b>", exitFailed},
		{"0", "-S cp a b", "", exitRefused},
		{"0", "ls a", "", exitOK},
		{"0", "wipefs a", "", exitOK},
	} {
		cmd := exec.Command(binary, append([]string{"preflight", "sudo"}, strings.Fields(tt.line)...)...)
		cmd.Dir = "/"
		cmd.Env = []string{runAsProgram + "=1", "PATH=" + public + ":/usr/bin:/bin", "SUDO_SAYS=" + tt.says, "IMGWARD_STATE=" + dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.Output()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != tt.code || string(out) != tt.want {
			t.Errorf("sudo %s: exit status %d, want %d\n got %s\nwant %s", tt.line, code, tt.code, out, tt.want)
		}
	}
}

// sudo may take POSIXLY_CORRECT out of the environment: "-a" is an option then.
func TestPlacesBehindSudo(t *testing.T) {
	for _, sudo := range []bool{false, true} {
		got, err := placesOf("truncate", []string{"-s", "1", "a", "-s", "2"}, true, sudo)
		if want := map[bool]int{false: 3, true: 4}[sudo]; err != nil || len(got) != want {
			t.Errorf("sudo %v: %v, %v, want %d places", sudo, got, err, want)
		}
	}
	if got, err := placesOf("wipefs", []string{"/dev/x", "-a"}, true, true); err != nil || len(got) == 0 {
		t.Errorf("wipefs: %v, %v", got, err)
	}
}
