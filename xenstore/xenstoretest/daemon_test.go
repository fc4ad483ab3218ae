package xenstoretest_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"imgward/internal/testkit"
	"imgward/xenstore/dump"
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
func list(t *testing.T, d *xenstoretest.Daemon) string {
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
	var all []byte // but for a NUL, which the tool that writes cannot be given
	for c := range 255 {
		all = append(all, byte(c+1))
	}
	want := dump.Node{Path: "/all", Value: string(all), Perms: "n0"}
	if err := d.Load(strings.NewReader(want.String())); err != nil {
		t.Fatal(err)
	}
	printed := list(t, d)
	nodes, err := dump.Parse(strings.NewReader(printed))
	if err != nil || !slices.Contains(nodes, want) {
		t.Errorf("not found in %+v, %v", nodes, err)
	}
	if !slices.Contains(strings.Split(printed, "\n"), want.String()) {
		t.Errorf("%s is not what xenstore-ls prints:\n%s", want, printed)
	}
}

// TestTwoDaemons says that daemons in two directories know nothing of each other.
func TestTwoDaemons(t *testing.T) {
	a, _ := begin(t, xenstoretest.StartXenstored)
	b, _ := begin(t, xenstoretest.StartXenstored)
	if err := a.Load(strings.NewReader(`/only/in/a = "1"`)); err != nil {
		t.Fatal(err)
	}
	if in := list(t, a); !strings.Contains(in, `/only/in/a = "1"`) {
		t.Errorf("not in the first: %s", in)
	}
	if in := list(t, b); strings.Contains(in, "/only") {
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
	if in := list(t, again); !strings.Contains(in, "/tool") {
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
	if in := list(t, d); !strings.Contains(in, `/a/b = "1"`) || !strings.Contains(in, "@introduceDomain") {
		t.Errorf("the store holds %s", in)
	}
}
