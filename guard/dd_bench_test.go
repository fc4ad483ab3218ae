package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imgward/guard/hostfs"
	"imgward/internal/testkit"
)

// BenchmarkDD is what the guard costs dd where nothing is in its way, on this machine
// as busy as it is: all that it does but the writing, as medians, and beside it what
// the kernel takes for the same without it.
func BenchmarkDD(b *testing.B) {
	testkit.Need(b, "root")
	dir, err := os.MkdirTemp("/var/tmp", "imgward-dd.")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	file, none := filepath.Join(dir, "disk.img"), filepath.Join(dir, "new.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	nothing := func(context.Context, *os.File) error { return nil }
	for _, tt := range []struct {
		name, path string
		plain      bool
	}{
		{"file", file, false}, {"new", none, false}, {"null", os.DevNull, false},
		{"file-plain", file, true}, {"new-plain", none, true}, {"null-plain", os.DevNull, true},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				host := &Host{FS: hostfs.Live(), State: "/var/lib/imgward", Patience: 200 * time.Millisecond}
				g := &Guard{Host: host, Lockers: Lockers(), Watchers: Watchers(), Policy: Policy{Operation: DD}}
				start := time.Now()
				if tt.plain {
					var f *os.File
					if f, err = os.OpenFile(tt.path, asDD, 0o666); err == nil {
						err = f.Close()
					}
				} else {
					err = g.DD(b.Context(), tt.path, asDD, 0o666, nothing)
				}
				took = append(took, time.Since(start))
				if err != nil {
					b.Fatal(err)
				}
				if err := os.Remove(none); err != nil && !errors.Is(err, fs.ErrNotExist) {
					b.Fatal(err)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e6, "ms/median")
			b.ReportMetric(float64(took[0])/1e6, "ms/least")
			b.ReportMetric(0, "ns/op")
		})
	}
}
