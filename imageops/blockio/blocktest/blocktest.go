// Package blocktest gives tests real block devices and file systems: loop
// devices with a chosen sector size, and freshly made file systems on them. All
// of it needs root, and all of it is gone when the test has ended.
package blocktest

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
)

// Loop is a new loop device of size bytes with sectors of sector bytes. Its bytes
// are in memory, so that a sync does not wait for a disk.
func Loop(t testing.TB, size int64, sector int) (device string) {
	t.Helper()
	testkit.Need(t, "root", "losetup")
	// mkfs.btrfs takes two loop devices with files of the same name for one.
	fd, err := unix.MemfdCreate("disk "+rand.Text(), unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd) // the device holds it open
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return Attach(t, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), sector)
}

// Attach is a new loop device on an existing file.
func Attach(t testing.TB, image string, sector int) (device string) {
	t.Helper()
	testkit.Need(t, "root", "losetup")
	device = run(t, "losetup", "--find", "--show", "--sector-size", strconv.Itoa(sector), image)
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	return device
}

// FileSystem is the directory of a new, mounted file system of that type: ext4,
// xfs, btrfs or tmpfs. xfs and btrfs want 300 MiB and more.
func FileSystem(t testing.TB, kind string, size int64) (dir string) {
	t.Helper()
	testkit.Need(t, "root", "mount", "umount")
	dir = t.TempDir()
	if kind == "tmpfs" {
		run(t, "mount", "-t", kind, "-o", "size="+strconv.FormatInt(size, 10), kind, dir)
	} else {
		testkit.Need(t, "mkfs."+kind)
		device := Loop(t, size, 512)
		run(t, "mkfs."+kind, "-q", device)
		run(t, "mount", "-t", kind, device, dir)
	}
	t.Cleanup(func() { run(t, "umount", dir) })
	return dir
}

// run runs a program, which must succeed, and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var errs strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}
