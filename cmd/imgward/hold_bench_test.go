package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/imageops"
	"imgward/imageops/blockio"
	"imgward/internal/testkit"
)

// BenchmarkHold is what holding a target costs while it is written: the time of the
// copy alone, with all watchers and with none, one after the other, and the
// difference of their medians in percent; and how much of a core is spent beside.
func BenchmarkHold(b *testing.B) {
	testkit.Need(b, "root", "losetup")
	const size = 512 << 20
	source := bytes.Repeat([]byte("new!"), size/4)
	for _, device := range []bool{false, true} {
		name := map[bool]string{false: "file", true: "device"}[device]
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			target := filepath.Join(dir, "web1.img")
			if err := os.WriteFile(target, make([]byte, size), 0o600); err != nil {
				b.Fatal(err)
			}
			if device {
				target = attach(b, target)
			}
			copies := func(held bool) (took, spent time.Duration) {
				g := &guard.Guard{Host: &guard.Host{FS: hostfs.Live(), State: filepath.Join(dir, "state"), Patience: 200 * time.Millisecond}}
				for _, c := range guard.Collectors() {
					// A file's mounts are looked at once, and need the lease.
					if slices.Contains([]string{"xen", "holders", "exports", "dm", "swaps", "lease", "excl", "self", "marks"}, c.Name()) || device && c.Name() == "mounts" {
						g.Collectors = append(g.Collectors, c)
					}
				}
				if held {
					g.Lockers, g.Watchers = guard.Lockers(), guard.Watchers()
				} else {
					g.Policy.Override = []guard.Override{{Code: "blind.lease", Key: "lease"}}
				}
				err := g.Write(b.Context(), target, func(ctx context.Context, p *guard.Permit) error {
					f, err := p.File()
					if err != nil {
						return err
					}
					to, err := blockio.NewFile(f)
					if err != nil {
						return err
					}
					start, before := time.Now(), processorTime(b)
					_, err = imageops.Copy(ctx, to, bytes.NewReader(source), imageops.Options{HoldBack: true, Verify: true, Sparse: imageops.SparseOff})
					took, spent = time.Since(start), processorTime(b)-before
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
				return took, spent
			}
			var with, without, busy, idle []time.Duration
			for b.Loop() {
				t, s := copies(true)
				with, busy = append(with, t), append(busy, s)
				t, s = copies(false)
				without, idle = append(without, t), append(idle, s)
			}
			cost := (median(with) - median(without)) / median(without)
			b.ReportMetric(cost*100, "%-of-throughput")
			b.ReportMetric((median(busy)-median(idle))/median(with)*100, "%-of-a-core")
			b.ReportMetric(size/median(with)/1e3, "MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// processorTime is what this process has used of the processors.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
