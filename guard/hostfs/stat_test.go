package hostfs_test

import (
	"testing"

	"imgward/guard/hostfs"
)

func TestDeviceNumbers(t *testing.T) {
	for _, tt := range []struct {
		text         string
		major, minor uint32
	}{
		{"0:0", 0, 0},
		{"253:0", 253, 0},
		{"8:255", 8, 255},
		{"8:256", 8, 256},
		{"4095:1048575", 4095, 1048575},
		{"4096:0", 4096, 0},
		{"4294967295:4294967295", 1<<32 - 1, 1<<32 - 1},
	} {
		dev, err := hostfs.ParseDev(tt.text)
		if err != nil || dev != hostfs.Mkdev(tt.major, tt.minor) {
			t.Errorf("%s: %#x, %v", tt.text, dev, err)
		}
		if got := hostfs.FormatDev(dev); got != tt.text {
			t.Errorf("%s: formatted %s", tt.text, got)
		}
	}
	if hostfs.Mkdev(8, 256) != 0x100800 {
		t.Errorf("8:256 is %#x: not the encoding of makedev(3)", hostfs.Mkdev(8, 256))
	}
	for _, text := range []string{"", ":", "1", "1:", ":1", "1:2:3", "fd:0", "-1:0", "+1:0", "1: 0", "1:0\n", "4294967296:0", "0:4294967296"} {
		if _, err := hostfs.ParseDev(text); err == nil {
			t.Errorf("%q is a device number", text)
		}
	}
}

func TestTypeNames(t *testing.T) {
	seen := map[string]bool{}
	for _, tt := range []hostfs.FileType{hostfs.Other, hostfs.Regular, hostfs.Directory, hostfs.BlockDevice,
		hostfs.CharDevice, hostfs.FIFO, hostfs.Socket, hostfs.Symlink} {
		if s := tt.String(); s == "" || seen[s] {
			t.Errorf("type %d is %q, as another is", tt, s)
		} else {
			seen[s] = true
		}
	}
}
