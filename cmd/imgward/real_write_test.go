package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

// On a terminal the name of the target has to be typed.
func TestTypedConfirmation(t *testing.T) {
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 1<<20, 2)
	before := sum(t, image)
	imgward(t, []string{"web2.img"}, "overwrite", golden, image).want(t, exitConfirm, `type "web1.img" to go on`, "nothing was written")
	imgward(t, []string{""}, "overwrite", golden, image).want(t, exitConfirm, "nothing was written")
	if sum(t, image) != before {
		t.Fatal("an unconfirmed command changed the image")
	}
	imgward(t, []string{"web1.img"}, "overwrite", golden, image).want(t, exitOK, "would be replaced by")
	if sum(t, image) != sum(t, golden) {
		t.Fatal("the image is not equal to the golden one")
	}
}

// Of two overwrites of one target at the same time at most one writes, and the
// target is whole in the end.
func TestTwoOverwritesRace(t *testing.T) {
	dir := lab(t)
	image := filepath.Join(dir, "web1.img")
	for range 5 {
		write(t, image, 8<<20, 9)
		token := strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitOK).out, "\t")[1]
		var cmds []*exec.Cmd
		for seed := range byte(2) {
			golden := write(t, filepath.Join(dir, fmt.Sprintf("golden%d.img", seed)), 8<<20, seed)
			cmd := child(t.Context(), "overwrite", "-q", golden, image, "--confirm", token)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		done := -1
		for i, cmd := range cmds {
			_ = cmd.Wait()
			switch code := cmd.ProcessState.ExitCode(); code {
			case exitOK:
				if done >= 0 {
					t.Fatal("both overwrites say that they did it with one token")
				}
				done = i
			case exitRefused, exitConfirm:
			default:
				t.Fatalf("exit status %d", code)
			}
		}
		if done >= 0 && sum(t, image) != sum(t, filepath.Join(dir, fmt.Sprintf("golden%d.img", done))) {
			t.Fatal("the target is not what the one that did it wrote")
		}
	}
}

// A full file system ends a copy with nothing left, and an overwrite as incomplete.
func TestNoSpace(t *testing.T) {
	testkit.Need(t, "root", "losetup", "mkfs.ext4", "mount")
	dir := lab(t)
	disk, mnt := filepath.Join(dir, "disk.img"), filepath.Join(dir, "mnt")
	command(t, "truncate", "-s", "16M", disk)
	command(t, "mkfs.ext4", "-q", "-F", disk)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "-o", "loop", disk, mnt)
	t.Cleanup(func() { _ = exec.Command("umount", mnt).Run() })
	golden := write(t, filepath.Join(dir, "golden.img"), 32<<20, 1)
	target := filepath.Join(mnt, "new.img")
	imgward(t, nil, "copy", golden, target).want(t, exitFailed, "no space left on device", "nothing was written")
	if _, err := os.Stat(target); !os.IsNotExist(err) {
		t.Fatalf("a failed copy left its target: %v", err)
	}
	command(t, "truncate", "-s", "32M", target)
	token := strings.Split(imgward(t, nil, "check", "--porcelain", target).want(t, exitOK).out, "\t")[1]
	// In a process of its own: while this one lives, it would be taken for the writer.
	out, _ := child(t.Context(), "overwrite", golden, target, "--confirm", token).CombinedOutput()
	if !strings.Contains(string(out), "no space left on device") || !strings.Contains(string(out), "is incomplete") {
		t.Errorf("an overwrite without space says\n%s", out)
	}
	imgward(t, nil, "check", target).want(t, exitOK, "did not finish")
}

// clone shares blocks where the file system can, onto a new file and an old one,
// and a digest on request means that the bytes are read.
func TestCloneSharesBlocks(t *testing.T) {
	for _, fstype := range []string{"xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			testkit.Need(t, "root", "losetup", "mkfs."+fstype, "mount")
			dir := lab(t)
			disk, mnt := filepath.Join(dir, "disk.img"), filepath.Join(dir, "mnt")
			command(t, "truncate", "-s", "512M", disk)
			command(t, "mkfs."+fstype, "-q", disk)
			if err := os.Mkdir(mnt, 0o755); err != nil {
				t.Fatal(err)
			}
			command(t, "mount", "-o", "loop", disk, mnt)
			t.Cleanup(func() { _ = exec.Command("umount", mnt).Run() })
			golden := write(t, filepath.Join(mnt, "golden.img"), 8<<20, 1)
			for _, args := range [][]string{{"new.img"}, {"old.img"}, {"digest.img", "--digest", "sha256"}, {"bytes.img", "--no-reflink"}} {
				target := filepath.Join(mnt, args[0])
				words := "sharing its blocks"
				if len(args) > 1 {
					words = "read back and equal"
				}
				args = append([]string{"clone", golden, target}, args[1:]...)
				if strings.HasSuffix(target, "old.img") {
					write(t, target, 8<<20, 2)
					token := strings.Split(imgward(t, nil, "check", "--porcelain", target).want(t, exitOK).out, "\t")[1]
					args = append(args, "--confirm", token)
				}
				imgward(t, nil, args...).want(t, exitOK, words)
				if sum(t, target) != sum(t, golden) {
					t.Fatalf("%v: the clone is not equal", args)
				}
			}
		})
	}
}

// A source that somebody begins to write to while it is read makes no copy: it
// would be torn. A device has no times of change, so the guard looks again.
func TestSourceThatComesIntoUse(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	dir := lab(t)
	image := write(t, filepath.Join(dir, "golden.img"), 1<<20, 1)
	dev := loop(t, image)
	s := imgward(t, nil, "check", "--json", dev)
	var args []string
	for _, m := range regexp.MustCompile(`"override":"([^"]+)"`).FindAllStringSubmatch(s.out, -1) {
		args = append(args, "--override", m[1]) // processes that nobody may look at, on some machines
	}
	target := filepath.Join(dir, "new.img")
	imgward(t, nil, append([]string{"copy", dev, target}, args...)...).want(t, exitOK)

	g := &guard.Guard{Host: &guard.Host{FS: hostfs.Live(), State: filepath.Join(dir, "state")}, Collectors: guard.Collectors(), Policy: guard.Policy{Operation: guard.Read}}
	for i := 1; i < len(args); i += 2 {
		o, err := guard.ParseOverride(args[i])
		if err != nil {
			t.Fatal(err)
		}
		g.Policy.Override = append(g.Policy.Override, o)
	}
	src, err := g.Open(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := src.Changed(t.Context()); err != nil {
		t.Fatalf("nobody else is there, but: %v", err)
	}
	w, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := src.Changed(t.Context()); err == nil || !strings.Contains(err.Error(), "came into use while it was read") {
		t.Fatalf("a writer came, and Changed says %v", err)
	}
}
