package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

// A ruling is what "check --json" says of a target, without what a capture cannot
// know.
type ruling struct {
	decision string
	codes    []string
}

func judge(t *testing.T, args ...string) []ruling {
	t.Helper()
	s := imgward(t, nil, append([]string{"check", "--json"}, args...)...)
	var out []ruling
	for line := range strings.Lines(s.out) {
		var v verdictJSON
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Decision == "" {
			t.Fatalf("%v: %q\n%s", err, line, s.err)
		}
		j := ruling{decision: v.Decision}
		for _, f := range v.Findings {
			if f.Outcome == "refuses" && !slices.Contains(j.codes, string(f.Code)) {
				j.codes = append(j.codes, string(f.Code))
			}
		}
		out = append(out, j)
	}
	return out
}

// What is captured on this machine is judged from the file as it is judged here.
func TestCaptureOfThisMachine(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	dir := lab(t)
	free, open, attached, leads := filepath.Join(dir, "free.img"), filepath.Join(dir, "open.img"), filepath.Join(dir, "attached.img"), filepath.Join(dir, "link.img")
	for _, name := range []string{free, open, attached} {
		if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("free.img", leads); err != nil {
		t.Fatal(err)
	}
	reader := exec.Command("sleep", "1000")
	f, err := os.Open(open)
	if err != nil {
		t.Fatal(err)
	}
	reader.Stdin = f
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Wait() }()
	defer func() { _ = reader.Process.Kill() }()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", attached).CombinedOutput()
	if err != nil {
		testkit.Missing(t, "a loop device: "+string(out))
	}
	loop := strings.TrimSpace(string(out))
	defer func() {
		if out, err := exec.Command("losetup", "-d", loop).CombinedOutput(); err != nil {
			t.Errorf("%s, %v", out, err)
		}
	}()
	server := xenstoretest.NewServer()
	defer server.Close()
	server.Set("/local/domain/0/name", "Domain-0")
	server.Set("/local/domain/7/name", "web7")
	node := "/local/domain/0/backend/qdisk/7/51712/"
	for key, value := range map[string]string{"params": "aio:" + free, "mode": "w", "state": "4", "online": "1", "frontend": "/local/domain/7/device/vbd/51712", "vnc-passwd": "hush"} {
		server.Set(node+key, value)
	}
	socket := filepath.Join(dir, "socket")
	if err := server.Listen(socket); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"", socket, filepath.Join(dir, "nobody")} {
		t.Setenv("XENSTORED_PATH", store)
		targets := []string{free, open, attached, loop, leads, filepath.Join(dir, "new.img")}
		live := judge(t, targets...)
		for _, full := range []bool{false, true} {
			args := append([]string{"capture"}, targets...)
			if full {
				args = append(args, "--full")
			}
			s := imgward(t, nil, args...).want(t, exitOK, "question: overwrite "+free, "question: create "+filepath.Join(dir, "new.img"))
			if strings.Contains(s.out, "judged live:") {
				t.Errorf("the capture is not judged as the host was:\n%s", s.out[:strings.Index(s.out, "-- manifest --")])
			}
			if secret := strings.Contains(s.out, "hush"); store == socket && secret != full {
				t.Errorf("full %v: a password is in the capture: %v", full, secret)
			}
			file := filepath.Join(dir, "host.txtar")
			if err := os.WriteFile(file, []byte(s.out), 0o600); err != nil {
				t.Fatal(err)
			}
			again := judge(t, "--host", file)
			if len(live) != len(targets) || len(again) != len(targets) {
				t.Fatalf("%d and %d verdicts on %d targets", len(live), len(again), len(targets))
			}
			for i, target := range targets {
				if live[i].decision != again[i].decision || !slices.Equal(live[i].codes, again[i].codes) {
					t.Errorf("store %q, %s: live %v, captured %v", store, target, live[i], again[i])
				}
			}
			// The capture answers for a name that it was not asked about.
			if other := judge(t, "--host", file, filepath.Dir(dir)+"/./"+filepath.Base(dir)+"/attached.img"); other[0].decision != "refuse" {
				t.Errorf("another spelling: %v", other)
			}
		}
	}
}

func TestCaptureCannotBeWritten(t *testing.T) {
	testkit.Need(t, "root")
	lab(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	con := &console{in: strings.NewReader(""), out: full, err: &strings.Builder{}, getenv: os.Getenv}
	if code := run([]string{"imgward", "capture"}, con); code != exitFailed {
		t.Errorf("exit status %d", code)
	}
}
