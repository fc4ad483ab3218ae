package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// TestSystemCallsThatFail lets the n-th call of a kind fail in each thread of the real
// program, one n after the other, as far as there are so many. Whatever fails, and whether the program can do
// without it or not: the exit status says failure, or the image is right.
func TestSystemCallsThatFail(t *testing.T) {
	testkit.Need(t, "root", "strace")
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 3<<20+700, 1)
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"copy", "overwrite"} {
		for _, x := range []struct {
			call, what string
			fatal      bool // nothing succeeds without it
		}{
			{"pwrite64", "error=EIO", true},
			{"pwrite64", "error=ENOSPC", true},
			{"pwrite64", "retval=65536", true}, // a disk that takes the bytes and keeps none
			{"pread64", "error=EIO", false},
			{"pread64", "retval=0", false},
			{"fsync", "error=EIO", true},
			{"ftruncate", "error=EIO", command == "copy"},
			{"fallocate", "error=EIO", true},
			{"fadvise64", "error=EIO", false},
			{"linkat", "error=EIO", false},
		} {
			t.Run(fmt.Sprintf("%s,%s:%s", command, x.call, x.what), func(t *testing.T) {
				for _, n := range []int{1, 2, 3, 4, 5, 6, 8, 11, 15, 20} {
					code, injected, got := failing(t, dir, command, golden, x.call, fmt.Sprintf("%s:when=%d", x.what, n))
					if !injected {
						return
					}
					if code == exitOK && (x.fatal || !bytes.Equal(got, want)) {
						t.Errorf("call %d: exit status 0, equal: %v", n, bytes.Equal(got, want))
					}
				}
			})
		}
	}
}

// failing runs a command under strace(1), which makes calls fail, and says whether it
// did and what is in the target.
func failing(t *testing.T, dir, command, golden, call, what string) (code int, injected bool, target []byte) {
	t.Helper()
	name, log := filepath.Join(dir, "target.img"), filepath.Join(dir, "calls")
	argv := []string{"-f", "--seccomp-bpf", "-qq", "-o", log, "-e", "trace=" + call, "-e", "inject=" + call + ":" + what,
		os.Args[0], command, "--chunk", "64K", "--depth", "3", golden, name}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if command == "overwrite" {
		write(t, name, 3<<20+700, 2)
		argv = append(argv, "--confirm", strings.Split(imgward(t, nil, "check", "--porcelain", name).want(t, exitOK).out, "\t")[1])
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "strace", argv...)
	cmd.Env = append(os.Environ(), runAsProgram+"=1")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 || code == 2 {
		t.Errorf("%s:%s: %v: %s", call, what, err, out)
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if target, err = os.ReadFile(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return code, bytes.Contains(calls, []byte("(INJECTED)")), target
}
