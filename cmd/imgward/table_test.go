package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imgward/imageops/blockio/blocktest"
	"imgward/internal/testkit"
)

// tokenOf is what --confirm takes for a target.
func tokenOf(t *testing.T, target string) string {
	t.Helper()
	return strings.Split(imgward(t, nil, "check", "--porcelain", target).out, "\t")[1]
}

// allowed runs a command line, and where it is refused once more with what the hint
// says is to be added: on some machines there is a process that nobody may look at.
func allowed(t *testing.T, line ...string) said {
	t.Helper()
	s := imgward(t, nil, line...)
	if _, words, ok := strings.Cut(s.err, "add: --override"); ok && s.code == exitRefused {
		words, _, _ = strings.Cut(words, "\n")
		return imgward(t, nil, append(line, strings.Fields("--override"+words)...)...)
	}
	return s
}

// facts is what sgdisk says of a disk, without what is to differ.
func facts(t *testing.T, device string, but ...string) string {
	t.Helper()
	var out strings.Builder
	for _, n := range []string{"1", "2", "7"} {
		for line := range strings.Lines(command(t, "sgdisk", "-i", n, device)) {
			differs := false
			for _, b := range but {
				differs = differs || strings.HasPrefix(line, b)
			}
			if !differs {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

func field(t *testing.T, text, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%s is not in\n%s", pattern, text)
	}
	return m[1]
}

// On real devices of both sector sizes the tools of gptfdisk and util-linux find no
// fault with what has become of the table, and nothing else has changed.
func TestGrowOntoDevices(t *testing.T) {
	testkit.Need(t, "root", "losetup", "sgdisk", "sfdisk", "blkid")
	const mib, size, larger = 1 << 20, 24 << 20, 40 << 20
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			dir := lab(t)
			golden := write(t, filepath.Join(dir, "golden.img"), size, 1)
			source := blocktest.Attach(t, golden, sector)
			command(t, "sgdisk", "-Z", source)
			at := func(n int) string { return fmt.Sprint(n * mib / sector) }
			command(t, "sgdisk", "-n", "1:"+at(1)+":"+at(4), "-c", "1:EFI system", "-t", "1:ef00", "-A", "1:set:2", "-n", "7:"+at(5)+":"+at(9), "-n", "2:"+at(10)+":0", "-c", "2:daten äöü", source)
			target := blocktest.Attach(t, write(t, filepath.Join(dir, "disk.img"), larger, 2), sector)
			identity := "Partition unique GUID"
			before := facts(t, source, identity)
			for _, how := range [][]string{{"--grow"}, {"--grow", "--new-ids", "disk", "--tail", "zero"}, {"--grow", "--new-ids", "all", "--delta"}} {
				args := append([]string{"overwrite", source, target, "--confirm", tokenOf(t, target)}, how...)
				allowed(t, args...).want(t, exitOK, "the backup of the GPT is at the end of the target now: 16 MiB more can be partitioned", "read back and equal")
				if out := command(t, "sgdisk", "-v", target); !strings.Contains(out, "No problems found") {
					t.Errorf("%v: %s", how, out)
				}
				command(t, "sfdisk", "--verify", target)
				if got := facts(t, target, identity); got != before {
					t.Errorf("%v: partitions were\n%s\nand are\n%s", how, before, got)
				}
				if got := facts(t, target); (got == facts(t, source)) == slices.Contains(how, "all") {
					t.Errorf("%v: the partitions' GUIDs are\n%s", how, got)
				}
				probed := command(t, "blkid", "-p", target)
				id := field(t, probed, `PTUUID="([^"]*)"`)
				if old := field(t, command(t, "blkid", "-p", source), `PTUUID="([^"]*)"`); (id == old) != (len(how) == 1) || !strings.Contains(probed, `PTTYPE="gpt"`) {
					t.Errorf("%v: %s, was %s", how, probed, old)
				}
				want, got := read(t, golden), read(t, target)
				if !bytes.Equal(got[mib:size-8*4096], want[mib:size-8*4096]) {
					t.Errorf("%v: a partition has changed", how)
				}
				if i := bytes.Index(got[mib:larger-mib], []byte("EFI PART")); i >= 0 {
					t.Errorf("%v: a table is left at byte %d", how, mib+i)
				}
			}
		})
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A table that counts in other sectors than the device is refused, and the device
// stays as it is.
func TestGrowOtherSectors(t *testing.T) {
	testkit.Need(t, "root", "losetup", "sgdisk")
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 8<<20, 1)
	command(t, "sgdisk", "-Z", golden)
	command(t, "sgdisk", "-n", "1:0:0", golden)
	target := blocktest.Attach(t, write(t, filepath.Join(dir, "disk.img"), 16<<20, 2), 4096)
	before := sum(t, target)
	for _, how := range [][]string{{"--grow"}, {"--new-ids", "disk"}} {
		args := append([]string{"overwrite", golden, target, "--confirm", tokenOf(t, target)}, how...)
		allowed(t, args...).want(t, exitFailed, "the GPT counts in sectors of 512 bytes, and the target's have 4096", "nothing was written")
	}
	if sum(t, target) != before {
		t.Error("a refused overwrite wrote")
	}
	if s := imgward(t, nil, "check", target); strings.Contains(s.out+s.err, "incomplete") {
		t.Errorf("%s%s", s.out, s.err)
	}
}

// Where blocks can be shared they are, and the identifiers are new all the same.
func TestReflinkWithNewIdentifiers(t *testing.T) {
	testkit.Need(t, "root", "sgdisk", "mkfs.xfs")
	dir := blocktest.FileSystem(t, "xfs", 320<<20)
	lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 16<<20, 1)
	command(t, "sgdisk", "-Z", golden)
	command(t, "sgdisk", "-n", "1:0:0", golden)
	clone := filepath.Join(dir, "new.img")
	allowed(t, "clone", golden, clone, "--new-ids", "disk").want(t, exitOK, "sharing its blocks", "the disk is ", "on purpose")
	if out := command(t, "sgdisk", "-v", clone); !strings.Contains(out, "No problems found") {
		t.Error(out)
	}
	if a, b := read(t, golden), read(t, clone); bytes.Equal(a, b) || !bytes.Equal(a[4096:16<<20-64<<10], b[4096:16<<20-64<<10]) {
		t.Error("the clone is not what the image is but for the identifiers")
	}
	allowed(t, "clone", golden, clone, "--new-ids", "disk", "--confirm", tokenOf(t, clone)).want(t, exitOK, "read back and equal")
}

// A write that was killed is made good with an image that is smaller than the target
// when the rest is to be zero, as the hint says.
func TestRepairOfALargerTarget(t *testing.T) {
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 128<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 130<<20, 2)
	cmd := child(t.Context(), "overwrite", "-v", "--limit-rate", "50M", golden, image, "--confirm", tokenOf(t, image))
	underWay(t, cmd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	line := []string{"overwrite", golden, image, "--confirm", tokenOf(t, image)}
	s := imgward(t, nil, line...).want(t, exitFailed, "too short to make it whole", "nothing was written")
	_, add, ok := strings.Cut(strings.TrimSpace(s.err), "add: ")
	if !ok {
		t.Fatalf("no hint in\n%s", s.err)
	}
	imgward(t, nil, append(line, strings.Fields(add)...)...).want(t, exitOK)
	if s := imgward(t, nil, "check", image).want(t, exitOK); strings.Contains(s.out, "incomplete") {
		t.Errorf("a repaired target is still called incomplete:\n%s", s.out)
	}
	if got := read(t, image); !bytes.Equal(got, append(read(t, golden), make([]byte, 2<<20)...)) {
		t.Error("the target is not the image and zeros")
	}
}
