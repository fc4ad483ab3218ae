package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgward/internal/testkit"
)

// An overwrite that stopped because somebody came says who, when, by what that
// can be seen, what had been written, and what to do; nothing else was written.
func TestStoppedTellsWhatWasWritten(t *testing.T) {
	testkit.Need(t, "root", "losetup", "dd")
	const size, foreign = 64 << 20, 40 << 20
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			dir := lab(t)
			d := newDevice(t, dir, size)
			old, err := os.ReadFile(filepath.Join(dir, "disk.img"))
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			line := d.confirmed(t, "-v")
			if format == "json" {
				line = append(line, "--json")
			}
			cmd := child(t.Context(), line...)
			var out bytes.Buffer
			cmd.Stdout = &out
			stderr := underWay(t, cmd)
			for _, step := range []func() error{
				func() error { return cmd.Process.Signal(syscall.SIGSTOP) },
				func() error {
					command(t, "dd", "if=/dev/zero", "of="+d.path, "bs=512", "seek=81920", "count=1", "conv=notrunc")
					return nil
				},
				func() error { return cmd.Process.Signal(syscall.SIGCONT) },
			} {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			said, err := io.ReadAll(stderr)
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != exitIncomplete {
				t.Fatalf("exit status %d\n%s%s", code, out.String(), said)
			}
			if format == "text" {
				for _, want := range []string{
					"is incomplete: process", "wrote to it while it was being written, noticed at 20", "\n  seen     fanotify on ",
					"\n  written  bytes 0 to ", "\nhint: find out what it did", "\nhint: start nothing on " + d.path,
				} {
					if !strings.Contains(string(said), want) {
						t.Errorf("%q is not in\n%s", want, said)
					}
				}
				return
			}
			var f struct {
				Exit   int
				Broken struct {
					Code, Detail, Source string
					At                   time.Time
				}
				Written []struct{ Offset, Length int64 }
				Notes   []struct{ Code string }
				Hints   []string
			}
			if err := json.Unmarshal(out.Bytes(), &f); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			if len(f.Notes) != 1 || f.Notes[0].Code != "hold.inforce" {
				t.Errorf("noted %v", f.Notes)
			}
			if f.Exit != exitIncomplete || f.Broken.Code != "fd.write" || f.Broken.Source == "" || f.Broken.At.Before(before) || f.Broken.At.After(time.Now()) || len(f.Hints) != 2 {
				t.Errorf("%s", out.String())
			}
			now, err := os.ReadFile(filepath.Join(dir, "disk.img"))
			if err != nil {
				t.Fatal(err)
			}
			copy(now[foreign:foreign+512], old[foreign:])
			for _, r := range f.Written {
				copy(now[r.Offset:r.Offset+r.Length], old[r.Offset:])
			}
			if len(f.Written) == 0 || !bytes.Equal(now, old) {
				t.Errorf("more was written than %v", f.Written)
			}
		})
	}
}
