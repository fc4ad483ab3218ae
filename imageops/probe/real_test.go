package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// image makes an empty file and runs each command on it, with its path as the
// last argument.
func image(t testing.TB, size int64, commands ...string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		run(t, f.Name(), "", c)
	}
	return f
}

// run runs a command on path, with input as its standard input.
func run(t testing.TB, path, input, command string) string {
	t.Helper()
	args := append(strings.Fields(command), path)
	testkit.Need(t, args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

func look(t testing.TB, f *os.File) Contents {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Look(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// blkid is util-linux's own answer for the file, as it spells it.
func blkid(t testing.TB, f *os.File) Signature {
	t.Helper()
	var s Signature
	for line := range strings.Lines(run(t, f.Name(), "", "blkid -p -o export")) {
		key, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "TYPE":
			s.Type = v
		case "UUID":
			s.UUID = v
		case "LABEL":
			s.Label = strings.ReplaceAll(v, `\ `, " ")
		}
	}
	switch s.Type {
	case "crypto_LUKS":
		s.Type = "LUKS"
	case "zfs_member":
		s.Type = "zfs"
	}
	return s
}

// What the file systems' own programs make is named as blkid names it.
func TestRealFileSystems(t *testing.T) {
	tests := []struct {
		name, command string
		size          int64
		want          Signature
	}{
		{"ext2", "mkfs.ext2 -q -F -L old", 16 * mib, Signature{Type: "ext2", Label: "old"}},
		{"ext3", "mkfs.ext3 -q -F -L old", 16 * mib, Signature{Type: "ext3", Label: "old"}},
		{"ext4", "mkfs.ext4 -q -F -L sixteen-letters!", 16 * mib, Signature{Type: "ext4", Label: "sixteen-letters!"}},
		{"ext4 of 4k blocks", "mkfs.ext4 -q -F -b 4096", 16 * mib, Signature{Type: "ext4"}},
		{"ext4 of 1k blocks", "mkfs.ext4 -q -F -b 1024", 16 * mib, Signature{Type: "ext4"}},
		{"journal", "mke2fs -q -F -O journal_dev -b 4096", 16 * mib, Signature{Type: "jbd"}},
		{"xfs", "mkfs.xfs -q -f -L twelveletter", 320 * mib, Signature{Type: "xfs", Label: "twelveletter"}},
		{"xfs of 4k sectors", "mkfs.xfs -q -f -s size=4096", 320 * mib, Signature{Type: "xfs"}},
		{"btrfs", "mkfs.btrfs -q -f -L pool", 128 * mib, Signature{Type: "btrfs", Label: "pool"}},
		{"fat12", "mkfs.vfat -F 12 -n BOOT", 4 * mib, Signature{Type: "vfat", Label: "BOOT"}},
		{"fat16", "mkfs.vfat -F 16 -n BOOT", 32 * mib, Signature{Type: "vfat", Label: "BOOT"}},
		{"fat32", "mkfs.vfat -F 32 -n BOOT", 64 * mib, Signature{Type: "vfat", Label: "BOOT"}},
		{"fat without a name", "mkfs.vfat", 64 * mib, Signature{Type: "vfat"}},
		{"swap", "mkswap -q -L swap0", 16 * mib, Signature{Type: "swap", Label: "swap0"}},
		{"swap of 64k pages", "mkswap -q -p 65536", 16 * mib, Signature{Type: "swap"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := image(t, tt.size, tt.command)
			c := look(t, f)
			if want := blkid(t, f); c.Signature != want {
				t.Errorf("signature %+v, blkid says %+v", c.Signature, want)
			}
			if c.Signature.Type != tt.want.Type || c.Signature.Label != tt.want.Label || c.Signature.UUID == "" {
				t.Errorf("signature %+v, want %+v and a uuid", c.Signature, tt.want)
			}
			if c.Format != "raw" || c.Table.Kind != "" || len(c.Others) != 0 || c.Zero || len(c.Notes) != 0 {
				t.Errorf("seen beside the file system: %+v", c)
			}
		})
	}
}

func TestRealPhysicalVolume(t *testing.T) {
	testkit.Need(t, "root")
	f := image(t, 64*mib)
	loop := strings.TrimSpace(run(t, f.Name(), "", "losetup -f --show"))
	defer run(t, loop, "", "losetup -d")
	run(t, loop, "", "pvcreate -q --devices "+loop)
	if got, want := look(t, f).Signature, blkid(t, f); got != want || got.Type != "LVM2_member" || got.UUID == "" {
		t.Errorf("signature %+v, blkid says %+v", got, want)
	}
}

func TestRealFormats(t *testing.T) {
	for _, tt := range []struct{ want, format string }{
		{"raw", "raw"}, {"qcow2", "qcow2"}, {"qed", "qed"}, {"vhdx", "vhdx"}, {"vmdk", "vmdk"},
		{"vmdk", "vmdk -o subformat=twoGbMaxExtentSparse"}, {"vhd", "vpc"}, {"vhd", "vpc -o subformat=fixed,force_size"},
	} {
		t.Run(tt.format, func(t *testing.T) {
			testkit.Need(t, "qemu-img")
			path := filepath.Join(t.TempDir(), "image")
			args := append([]string{"create", "-q", "-f"}, strings.Fields(tt.format)...)
			if out, err := exec.Command("qemu-img", append(args, path, "4M")...).CombinedOutput(); err != nil {
				t.Fatalf("qemu-img: %v\n%s", err, out)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c := look(t, f)
			if c.Format != tt.want {
				t.Errorf("format %q, want %q", c.Format, tt.want)
			}
			if zero := tt.want == "raw"; c.Zero != zero {
				t.Errorf("zero %v, want %v", c.Zero, zero)
			}
		})
	}
}

// A partition's file system is seen at the place that the table names, with
// both sector sizes, and the table can be read from its backup.
func TestRealGPT(t *testing.T) {
	tests := []struct {
		sector         int64
		command, input string
	}{
		{512, "sfdisk -q", "label: gpt\n" +
			"start=1MiB, size=2MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios\n" +
			"start=4MiB, size=16MiB\n"},
		// g: new gpt; n: number, first and last sector; t: type 4 is BIOS boot; x, n, r: name.
		{4096, "fdisk -b 4096", "g\nn\n1\n256\n767\nn\n2\n1024\n5119\nt\n1\n4\nx\nn\n1\nbios\nr\nw\n"},
	}
	for _, tt := range tests {
		t.Run(tt.command, func(t *testing.T) {
			f := image(t, 32*mib)
			run(t, f.Name(), tt.input, tt.command)
			root := image(t, 16*mib, "mkfs.ext4 -q -F -L rootfs")
			copyInto(t, f, 4*mib, root)
			check := func(t *testing.T, notes int) {
				t.Helper()
				c := look(t, f)
				ps := c.Table.Partitions
				if c.Table.Kind != "gpt" || len(ps) != 2 || len(c.Notes) != notes || c.Signature.Type != "" {
					t.Fatalf("contents %+v", c)
				}
				if p := ps[0]; p.Number != 1 || p.Start != mib || p.Size != 2*mib || p.Name != "bios" ||
					p.Type != "21686148-6449-6E6F-744E-656564454649" || p.Signature.Type != "" {
					t.Errorf("partition 1 is %+v", p)
				}
				if p := ps[1]; p.Number != 2 || p.Start != 4*mib || p.Size != 16*mib ||
					p.Signature != blkid(t, root) {
					t.Errorf("partition 2 is %+v", p)
				}
			}
			check(t, 0)
			t.Run("first copy damaged", func(t *testing.T) {
				if _, err := f.WriteAt([]byte{0xff}, tt.sector+60); err != nil {
					t.Fatal(err)
				}
				check(t, 1)
			})
		})
	}
}

// Without a protective MBR a table at the end alone is a leftover, not a table.
func TestRealGPTLeftOver(t *testing.T) {
	f := image(t, 32*mib, "sgdisk -n 1:0:0")
	if _, err := f.WriteAt(make([]byte, mib), 0); err != nil {
		t.Fatal(err)
	}
	if c := look(t, f); c.Table.Kind != "" || c.Zero {
		t.Errorf("contents %+v", c)
	}
}

func TestRealMBR(t *testing.T) {
	f := image(t, 64*mib)
	run(t, f.Name(), "label: dos\n"+
		"start=1MiB, size=4MiB, type=83, bootable\n"+
		"start=8MiB, size=40MiB, type=5\n"+
		"start=9MiB, size=8MiB, type=82\n"+
		"start=20MiB, size=8MiB, type=83\n", "sfdisk -q")
	copyInto(t, f, 9*mib, image(t, 8*mib, "mkswap -q -L swap0"))
	c := look(t, f)
	want := []Partition{
		{Number: 1, Start: mib, Size: 4 * mib, Type: "0x83"},
		{Number: 2, Start: 8 * mib, Size: 40 * mib, Type: "0x05"},
		{Number: 5, Start: 9 * mib, Size: 8 * mib, Type: "0x82"},
		{Number: 6, Start: 20 * mib, Size: 8 * mib, Type: "0x83"},
	}
	if c.Table.Kind != "mbr" || len(c.Table.Partitions) != len(want) {
		t.Fatalf("table %+v", c.Table)
	}
	if s := c.Table.Partitions[2].Signature; s.Type != "swap" || s.Label != "swap0" {
		t.Errorf("partition 5 has %+v", s)
	}
	for i, p := range c.Table.Partitions {
		p.Signature = Signature{}
		if w := want[i]; p.Number != w.Number || p.Start != w.Start || p.Size != w.Size || p.Type != w.Type {
			t.Errorf("partition %d is %+v, want %+v", i, p, w)
		}
	}
}

// An image that was cut off keeps its table, and says what is missing.
func TestRealTruncated(t *testing.T) {
	f := image(t, 64*mib)
	run(t, f.Name(), "label: gpt\nstart=1MiB, size=16MiB\nstart=32MiB, size=16MiB\n", "sfdisk -q")
	for _, tt := range []struct {
		size  int64
		notes int
	}{{48 * mib, 0}, {48*mib - 1, 1}, {32 * mib, 1}, {16 * mib, 2}, {mib, 2}} {
		if err := f.Truncate(tt.size); err != nil {
			t.Fatal(err)
		}
		if c := look(t, f); c.Table.Kind != "gpt" || len(c.Table.Partitions) != 2 || len(c.Notes) != tt.notes {
			t.Errorf("at %d bytes: %+v", tt.size, c)
		}
	}
	for size := range int64(20 << 10) {
		if size%511 > 2 {
			continue
		}
		c, err := Look(f, size)
		if size >= 1024 && size < 1024+16<<10 && err == nil {
			t.Errorf("at %d bytes: no error, though the table is cut: %+v", size, c)
		}
	}
}

// copyInto copies src into dst at off.
func copyInto(t testing.TB, dst *os.File, off int64, src *os.File) {
	t.Helper()
	b, err := os.ReadFile(src.Name())
	if err == nil {
		_, err = dst.WriteAt(b, off)
	}
	if err != nil {
		t.Fatal(err)
	}
}
