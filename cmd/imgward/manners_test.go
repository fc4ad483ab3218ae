package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/imageops"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "500": 500, "4K": 4 << 10, "100M": 100 << 20, "2G": 2 << 30, "1T": 1 << 40,
		"": 0, "K": 0, "0": 0, "-1": 0, "1.5M": 0, "1m": 0, "1MB": 0, "9999999999T": 0, "99999999999999999999": 0,
	} {
		if got, err := parseBytes("rate", text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}

func TestPaceLine(t *testing.T) {
	for _, tt := range []struct {
		p    imageops.Progress
		want string
	}{
		{imageops.Progress{}, "nothing is being copied"},
		{imageops.Progress{Phase: "copy", Done: 3 << 30, Total: 12 << 30}, "copy: 3 GiB of 12 GiB (25 %), 2.0 s, 1.61 GB/s, 6 s left"},
		{imageops.Progress{Phase: "copy", Done: 0, Total: 1 << 20}, "copy: 0 bytes of 1 MiB"},
		{imageops.Progress{Phase: "verify", Done: 0, Total: 0}, "verify: 0 bytes of 0 bytes"},
		{imageops.Progress{Phase: "copy", Done: 1 << 30, Total: -1}, "copy: 1 GiB, 2.0 s, 0.54 GB/s"},
	} {
		if got := paceLine(tt.p, 2*time.Second); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.p, got, tt.want)
		}
	}
}

// told is a writer that hands on what is written.
type told chan string

func (c told) Write(b []byte) (int, error) {
	c <- string(b)
	return len(b), nil
}

// Who asks by SIGUSR1 is answered, and the program goes on.
func TestStatisticsOnRequest(t *testing.T) {
	said := make(told)
	u := &ui{con: &console{err: said}}
	stop := u.onRequest()
	defer stop()
	u.pace.note(imageops.Progress{Phase: "copy", Done: 1 << 20, Total: 4 << 20})
	for range 2 {
		if err := unix.Kill(os.Getpid(), unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if line := <-said; !strings.HasPrefix(line, "copy: 1 MiB of 4 MiB (25 %), ") {
			t.Errorf("%q", line)
		}
	}
}

func TestIdle(t *testing.T) {
	if err := beIdle(); err != nil {
		t.Fatal(err)
	}
	got, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	if errno != 0 || got>>13 != 3 {
		t.Errorf("class %d, %v", got>>13, errno)
	}
}
