package xenstoretest_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"imgward/internal/testkit"
	"imgward/xenstore/xenstoretest"
)

// begin starts a daemon, or skips the test where there is none.
func begin(t *testing.T, start func(string) (*xenstoretest.Daemon, error)) (*xenstoretest.Daemon, string) {
	t.Helper()
	testkit.Need(t, "gcc", "xenstore-write", "xenstore-ls")
	dir := t.TempDir()
	d, err := start(dir)
	if errors.Is(err, fs.ErrNotExist) {
		testkit.Missing(t, "xenstored")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return d, dir
}

// dump returns what xenstore-ls prints.
func dump(t *testing.T, d *xenstoretest.Daemon) string {
	t.Helper()
	cmd := exec.Command("xenstore-ls", "-f", "-p")
	cmd.Env = append(os.Environ(), "XENSTORED_PATH="+d.Socket())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("xenstore-ls: %v: %s", err, out)
	}
	return string(out)
}

// TestDumpRoundTrip says that what the tools print is understood to the byte: a
// store that is dumped, parsed, and written again is the same.
func TestDumpRoundTrip(t *testing.T) {
	d, _ := begin(t, xenstoretest.StartXenstored)
	all, printed := allBytes()
	if err := d.Load(strings.NewReader(`/all = "` + printed[4:] + `"`)); err != nil {
		t.Fatal(err)
	}
	nodes, err := xenstoretest.ParseDump(strings.NewReader(dump(t, d)))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Path == "/all" && n.Value == all[1:] && n.Perms == "n0" {
			return
		}
	}
	t.Errorf("not found in %+v", nodes)
}

// TestTwoDaemons says that daemons in two directories know nothing of each other.
func TestTwoDaemons(t *testing.T) {
	a, _ := begin(t, xenstoretest.StartXenstored)
	b, _ := begin(t, xenstoretest.StartXenstored)
	if err := a.Load(strings.NewReader(`/only/in/a = "1"`)); err != nil {
		t.Fatal(err)
	}
	if in := dump(t, a); !strings.Contains(in, `/only/in/a = "1"`) {
		t.Errorf("not in the first: %s", in)
	}
	if in := dump(t, b); strings.Contains(in, "/only") {
		t.Errorf("also in the second: %s", in)
	}
}

func TestKillAndStartAgain(t *testing.T) {
	d, dir := begin(t, xenstoretest.StartXenstored)
	conn, err := net.Dial("unix", d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := d.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a killed daemon sent something")
	}
	if err := errors.Join(d.Suspend(), d.Resume(), d.Kill()); err != nil {
		t.Errorf("signals after the end: %v", err)
	}
	again, err := xenstoretest.StartXenstored(dir)
	if err != nil {
		t.Fatal(err)
	}
	if in := dump(t, again); !strings.Contains(in, "/tool") {
		t.Errorf("the second daemon holds %q", in)
	}
	if err := again.Suspend(); err != nil {
		t.Error(err)
	}
	if err := again.Stop(); err != nil {
		t.Error(err)
	}
}

func TestOxenstored(t *testing.T) {
	testkit.Need(t, "root")
	d, _ := begin(t, xenstoretest.StartOxenstored)
	if err := d.Load(strings.NewReader(`/a/b = "1"`)); err != nil {
		t.Fatal(err)
	}
	if in := dump(t, d); !strings.Contains(in, `/a/b = "1"`) || !strings.Contains(in, "@introduceDomain") {
		t.Errorf("the store holds %s", in)
	}
}
