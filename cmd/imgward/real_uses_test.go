package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imgward/internal/testkit"
)

// inBackground starts a shell script that says "ready", and ends it with the test.
// The script's own process is the user that the test is about.
func inBackground(t *testing.T, argv ...string) (pid int) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q: %q, %v", argv, line, err)
	}
	return cmd.Process.Pid
}

// An image that is mounted in a mount namespace of somebody's own is in use, and so is
// its loop device; this namespace has no such mount.
func TestMountInAnotherNamespace(t *testing.T) {
	testkit.Need(t, "root", "unshare", "losetup", "mkfs.ext4")
	dir := lab(t)
	image := write(t, filepath.Join(dir, "web1.img"), 16<<20, 2)
	command(t, "mkfs.ext4", "-q", "-F", image)
	dev := loop(t, image)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	const words = "is mounted from it, read-write"
	if s := imgward(t, nil, "check", dev); strings.Contains(s.out, words) {
		t.Fatalf("before it is mounted:\n%s", s.out)
	}
	inBackground(t, "unshare", "--mount", "--propagation", "private", "sh", "-c", `mount "$0" "$1" && echo ready && exec sleep infinity`, dev, mnt)
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), mnt) {
		t.Fatalf("it is mounted here, too: %v", err)
	}
	for _, target := range []string{dev, image} {
		imgward(t, nil, "check", target).want(t, exitRefused, "ext4 on "+mnt, words)
	}
}

// A process in PID and mount namespaces of its own, as those of a container, is seen
// and named by its number here.
func TestContainersProcess(t *testing.T) {
	testkit.Need(t, "root", "unshare")
	dir := lab(t)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	imgward(t, nil, "check", image).want(t, exitOK)
	inBackground(t, "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", `exec 7<>"$0"; [ "$$" = 1 ] && echo ready && exec sleep infinity`, image)
	s := imgward(t, nil, "check", image).want(t, exitRefused, ") has it open for writing", "/fd/7")
	if strings.Contains(s.out, "process 1 (s") {
		t.Errorf("it is called by its number in there:\n%s", s.out)
	}
}

// Where the open files of a process may not be read, a file's lease makes up for that
// and a loop device has nothing that does.
func TestUnreadableProcess(t *testing.T) {
	testkit.Need(t, "root", "losetup", "setpriv")
	dir := lab(t)
	binary := filepath.Join(dir, "imgward")
	command(t, "go", "build", "-o", binary, ".")
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	dev := loop(t, write(t, filepath.Join(dir, "web2.img"), 1<<20, 3))
	pid := inBackground(t, "sh", "-c", `exec 7<>"$0"; echo ready; exec sleep infinity`, dev)
	for _, tt := range []struct {
		target, words string
		code          int
	}{
		{dev, fmt.Sprintf("could not look at the open files of process %d (", pid), exitRefused},
		{image, "but the kernel grants a write lease: nobody has it open", exitOK},
	} {
		cmd := exec.Command("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", binary, "check", tt.target)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != tt.code || tt.code == exitOK && !strings.Contains(string(out), tt.words) {
			t.Errorf("%s: exit status %d, want %d with %q\n%s", tt.target, cmd.ProcessState.ExitCode(), tt.code, tt.words, out)
		}
		if strings.Contains(string(out), "has it open for writing") {
			t.Errorf("%s: it can be read\n%s", tt.target, out)
		}
	}
}

// Swap on a device and in a file.
func TestActiveSwap(t *testing.T) {
	testkit.Need(t, "root", "losetup", "mkswap", "swapon", "swapoff")
	dir := lab(t)
	file := write(t, filepath.Join(dir, "swap"), 1<<20, 2)
	dev := loop(t, write(t, filepath.Join(dir, "web1.img"), 1<<20, 3))
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{dev, file} {
		command(t, "mkswap", target)
		if s := imgward(t, nil, "check", target); strings.Contains(s.out, "swaps to it") {
			t.Fatalf("before it is swapped to:\n%s", s.out)
		}
		if out, err := exec.Command("swapon", target).CombinedOutput(); err != nil {
			testkit.Missing(t, "swap on "+target+": "+string(out))
		}
		t.Cleanup(func() { _ = exec.Command("swapoff", target).Run() })
		imgward(t, nil, "check", target).want(t, exitRefused, "swaps to it", "swapoff "+target)
		command(t, "swapoff", target)
	}
}
