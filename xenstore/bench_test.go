package xenstore_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"imgward/internal/testkit"
	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// domains is the size of the host that the benchmark scans: 1000 domains of two
// disks, four keys each.
func domains() (dump string, paths []string) {
	var b strings.Builder
	for dom := 1; dom <= 1000; dom++ {
		for _, dev := range []int{51712, 51728} {
			for _, key := range []string{"params", "physical-device", "mode", "state"} {
				p := fmt.Sprintf("/local/domain/0/backend/vbd/%d/%d/%s", dom, dev, key)
				paths = append(paths, p)
				fmt.Fprintf(&b, "%s = \"/dev/vg0/disk-%d-%d\"\n", p, dom, dev)
			}
		}
	}
	return b.String(), paths
}

// BenchmarkScan reads 8000 values, one after the other and pipelined, from the
// daemon in this process and from the real one.
func BenchmarkScan(b *testing.B) {
	dump, paths := domains()
	scan := func(b *testing.B, socket string) {
		c, err := xenstore.Dial(b.Context(), &xenstore.Config{Path: socket})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		b.Run("sequential", func(b *testing.B) {
			for b.Loop() {
				for _, p := range paths {
					if _, err := c.Read(b.Context(), p); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run("pipelined", func(b *testing.B) {
			for b.Loop() {
				if _, err := c.ReadAll(b.Context(), paths); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("inprocess", func(b *testing.B) {
		s := xenstoretest.NewServer()
		defer s.Close()
		if err := s.Load(strings.NewReader(dump)); err != nil {
			b.Fatal(err)
		}
		socket := filepath.Join(b.TempDir(), "socket")
		if err := s.Listen(socket); err != nil {
			b.Fatal(err)
		}
		scan(b, socket)
	})
	b.Run("xenstored", func(b *testing.B) {
		testkit.Need(b, "gcc", "xenstore-write")
		d, err := xenstoretest.StartXenstored(b.TempDir())
		if err != nil {
			testkit.Missing(b, err.Error())
		}
		defer d.Stop()
		if err := d.Load(strings.NewReader(dump)); err != nil {
			b.Fatal(err)
		}
		scan(b, d.Socket())
	})
}
