package xenstore_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/internal/testkit"
	"imgward/xenstore"
	"imgward/xenstore/xenstoretest"
)

// written is a claim on an LV, as overwrite makes it, and its node.
var (
	written = xenstore.Claim{
		Device: unix.Mkdev(253, 17), Target: unix.Mkdev(253, 16), PID: 4711, Namespace: "pid:[4026531836]", Start: 123456,
		Boot: "6f3a1f5e-0000-4000-8000-000000000001", Operation: "overwrite",
	}
	writtenKeys = map[string]string{
		"imgward/target": "fd:10", "imgward/pid": "4711", "imgward/pid-namespace": "pid:[4026531836]", "imgward/start": "123456", "imgward/boot-id": written.Boot,
		"imgward/operation": "overwrite", "mode": "w", "physical-device": "fd:11",
	}
)

const claims = "/local/domain/0/backend/vbd/32760"

// below reads what lies at and below a node, or nil.
func below(t *testing.T, c *xenstore.Conn, root string) map[string]string {
	t.Helper()
	all, err := walk(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]string
	for path, value := range all {
		if name, ok := strings.CutPrefix(path, root); ok && (name == "" || name[0] == '/') {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = value
		}
	}
	return out
}

// on runs f on the daemon of this process, and on the real ones.
func on(t *testing.T, f func(t *testing.T, c *xenstore.Conn)) {
	t.Run("server", func(t *testing.T) {
		s := xenstoretest.NewServer()
		defer s.Close()
		c := xenstore.NewConn(s.Pipe())
		defer c.Close()
		f(t, c)
	})
	t.Run("real", func(t *testing.T) {
		onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, _ func() *xenstoretest.Daemon) {
			f(t, dial(t, d, 0))
		})
	})
}

// TestClaim says what is in the store while claims are, and that nothing of them
// is left afterwards.
func TestClaim(t *testing.T) {
	on(t, func(t *testing.T, c *xenstore.Conn) {
		id, err := c.Claim(t.Context(), written)
		if err != nil || id != 1 {
			t.Fatalf("%d, %v", id, err)
		}
		want := map[string]string{"": "", "/imgward": ""}
		for k, v := range writtenKeys {
			want["/"+k] = v
		}
		if got := below(t, c, claims+"/1"); !maps.Equal(got, want) {
			t.Errorf("wrote %q, want %q", got, want)
		}
		home := map[string]string{"": "", "/vm": "/vm/imgward"}
		if got := below(t, c, "/local/domain/32760"); !maps.Equal(got, home) {
			t.Errorf("wrote %q, want %q", got, home)
		}
		if second, err := c.Claim(t.Context(), written); err != nil || second != 2 {
			t.Fatalf("%d, %v", second, err)
		}
		if err := c.Unclaim(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if got := below(t, c, "/local/domain/32760"); !maps.Equal(got, home) {
			t.Errorf("with a claim left there is %q, want %q", got, home)
		}
		if got := below(t, c, claims+"/2"); len(got) != len(want) {
			t.Errorf("of the other claim there is %q", got)
		}
		if id, err := c.Claim(t.Context(), written); err != nil || id != 1 {
			t.Fatalf("%d, %v", id, err)
		}
		for _, id := range []uint32{1, 2, 2} {
			if err := c.Unclaim(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		for _, root := range []string{claims, "/local/domain/32760"} {
			if got := below(t, c, root); got != nil {
				t.Errorf("%s is left: %q", root, got)
			}
		}
	})
}

// TestClaimOrder says that a claim becomes one for Xen with its last key, and
// that it ceases to be one with the first thing that is removed.
func TestClaimOrder(t *testing.T) {
	s := xenstoretest.NewServer()
	defer s.Close()
	c := xenstore.NewConn(s.Pipe())
	defer c.Close()
	var mu sync.Mutex
	var asked []string
	s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
		mu.Lock()
		defer mu.Unlock()
		if r.Op == "WRITE" || r.Op == "RM" {
			asked = append(asked, r.Op+" "+r.Path)
		}
		return xenstoretest.Reply{}
	})
	id, err := c.Claim(t.Context(), written)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Unclaim(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	const node = "backend/vbd/32760/1"
	want := []string{
		"WRITE /local/domain/32760/vm", "WRITE " + node + "/imgward/target", "WRITE " + node + "/imgward/pid", "WRITE " + node + "/imgward/pid-namespace", "WRITE " + node + "/imgward/start",
		"WRITE " + node + "/imgward/boot-id", "WRITE " + node + "/imgward/operation", "WRITE " + node + "/mode", "WRITE " + node + "/physical-device",
		"RM " + node, "RM backend/vbd/32760", "RM /local/domain/32760",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

// TestClaimFails says that a claim that cannot be made leaves nothing, whichever
// request fails, and that it is said why.
func TestClaimFails(t *testing.T) {
	for n := 1; ; n++ {
		s := xenstoretest.NewServer()
		c := xenstore.NewConn(s.Pipe())
		failed := false
		s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
			if r.N == n && !failed {
				failed = true
				return xenstoretest.Reply{Error: "EACCES"}
			}
			return xenstoretest.Reply{}
		})
		_, err := c.Claim(t.Context(), written)
		s.Hook(nil)
		var op *xenstore.OpError
		if failed && (!errors.Is(err, fs.ErrPermission) || !errors.As(err, &op)) {
			t.Errorf("request %d failed: %v", n, err)
		}
		if got := below(t, c, "/local"); failed && n > 1 && got[claims[len("/local"):]+"/1/physical-device"] != "" {
			t.Errorf("request %d failed, and there is %q", n, got)
		}
		if failed && (below(t, c, claims) != nil || below(t, c, "/local/domain/32760") != nil) {
			t.Errorf("request %d failed, and a claim is left", n)
		}
		c.Close()
		s.Close()
		if !failed {
			if err != nil {
				t.Error(err)
			}
			if n < 10 {
				t.Errorf("a claim took only %d requests", n-1)
			}
			return
		}
	}
}

// TestClaimIsNotAnswered says that what the daemon did without answering in time is
// removed, whichever request it was, and that it is said when it cannot be.
func TestClaimIsNotAnswered(t *testing.T) {
	for _, last := range []string{"/local/domain/32760/vm", "/imgward/target", "/physical-device"} {
		for _, stays := range []bool{false, true} {
			s := xenstoretest.NewServer()
			c := xenstore.NewConn(s.Pipe())
			s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
				switch {
				case r.Op == "WRITE" && strings.HasSuffix(r.Path, last):
					return xenstoretest.Reply{Late: 1 << 20}
				case r.Op == "RM" && stays:
					return xenstoretest.Reply{Error: "EIO"}
				}
				return xenstoretest.Reply{}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := c.Claim(ctx, written)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, xenstore.ErrLeft) != stays {
				t.Errorf("%s: %v", last, err)
			}
			if left := below(t, c, "/local/domain/32760") != nil || below(t, c, claims) != nil; left != stays {
				t.Errorf("%s: left: %t", last, left)
			}
			c.Close()
			s.Close()
		}
	}
}

// TestClaimIsReadBack says that a store that keeps something else than it was
// told is not taken for one that keeps a claim.
func TestClaimIsReadBack(t *testing.T) {
	s := xenstoretest.NewServer()
	defer s.Close()
	c := xenstore.NewConn(s.Pipe())
	defer c.Close()
	changed := false
	s.Hook(func(r xenstoretest.Request) xenstoretest.Reply {
		if r.Op == "READ" && !changed {
			changed = true
			s.Set(claims+"/1/physical-device", "8:0")
		}
		return xenstoretest.Reply{}
	})
	var op *xenstore.OpError
	if _, err := c.Claim(t.Context(), written); !errors.As(err, &op) || op.Path != "backend/vbd/32760/1/physical-device" {
		t.Errorf("%v", err)
	}
	if got := below(t, c, claims); got != nil {
		t.Errorf("left: %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Claim(ctx, written); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestHotplugScript asks Xen's own script, check_sharing of
// /etc/xen/scripts/block, whether a domain may have a device that is claimed.
func TestHotplugScript(t *testing.T) {
	testkit.Need(t, "root", "losetup", "xenstore-ls", "bash")
	functions := "xenstore_read_default() { xenstore-read \"$1\" 2>/dev/null || echo \"$2\"; }\n" +
		function(t, "block", "check_sharing") + function(t, "block-common.sh", "device_major_minor") +
		function(t, "block-common.sh", "canonicalise_mode") + function(t, "block-common.sh", "same_vm")
	file := t.TempDir() + "/disk"
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	dev := strings.TrimSpace(string(out))
	defer func() {
		if err := exec.Command("losetup", "-d", dev).Run(); err != nil {
			t.Error(err)
		}
	}()
	var st syscall.Stat_t
	if err := syscall.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	onDaemons(t, func(t *testing.T, d *xenstoretest.Daemon, _ func() *xenstoretest.Daemon) {
		answer := func(mode string) string {
			t.Helper()
			cmd := exec.Command("bash", "-c", functions+"XENBUS_BASE_PATH=backend XENBUS_TYPE=vbd FRONTEND_ID=7 FRONTEND_UUID=/vm/theirs\n"+
				"check_sharing device "+dev+" "+mode)
			cmd.Env = append(os.Environ(), "XENSTORED_PATH="+d.Socket())
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return strings.TrimSpace(string(out))
		}
		c := dial(t, d, 0)
		tool(t, d, "xenstore-write", "/local/domain/7/vm", "/vm/theirs", "/local/domain/0/backend/vbd", "")
		if got := answer("w"); got != "ok" {
			t.Fatalf("before: %q", got)
		}
		cl := written
		cl.Device = st.Rdev
		id, err := c.Claim(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range []string{"w", "r"} {
			if got := answer(mode); !strings.HasPrefix(got, "guest ") {
				t.Errorf("while it is claimed, mode %s: %q", mode, got)
			}
		}
		if err := c.Unclaim(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if got := answer("w"); got != "ok" {
			t.Errorf("afterwards: %q", got)
		}
	})
}

// function cuts a function out of one of Xen's hotplug scripts.
func function(t *testing.T, script, name string) string {
	t.Helper()
	text, err := os.ReadFile("/etc/xen/scripts/" + script)
	if errors.Is(err, fs.ErrNotExist) {
		testkit.Missing(t, "/etc/xen/scripts/"+script)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\n"+name+"()")
	body, _, ok := strings.Cut(body, "\n}\n")
	if !ok {
		t.Fatalf("%s has no function %s", script, name)
	}
	return name + "()" + body + "\n}\n"
}

func TestParseClaim(t *testing.T) {
	want := written
	want.ID = 12
	if got, err := xenstore.ParseClaim("12", writtenKeys); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct{ key, value string }{
		{"imgward/target", ""}, {"imgward/target", "fd:16 "}, {"imgward/target", "FD:10"}, {"imgward/target", "fd"},
		{"imgward/pid", ""}, {"imgward/pid", "0"}, {"imgward/pid", "-1"}, {"imgward/pid", "007"}, {"imgward/pid", "1/../2"}, {"imgward/pid", "2147483648"},
		{"imgward/start", "x"}, {"imgward/start", "18446744073709551616"}, {"imgward/boot-id", ""},
		{"mode", "r"}, {"physical-device", ""}, {"physical-device", "fd:100000000"},
	} {
		keys := maps.Clone(writtenKeys)
		keys[tt.key] = tt.value
		got, err := xenstore.ParseClaim("12", keys)
		if err == nil {
			t.Errorf("%s = %q passes", tt.key, tt.value)
		}
		if tt.key != "imgward/target" && (got.ID != 12 || got.Target != written.Target) {
			t.Errorf("%s = %q: %+v", tt.key, tt.value, got)
		}
	}
	for _, id := range []string{"", "x", "-1", "01", "4294967296"} {
		if _, err := xenstore.ParseClaim(id, writtenKeys); err == nil {
			t.Errorf("id %q passes", id)
		}
	}
}

// FuzzParseClaim says that what is read as a claim is written again as it was.
func FuzzParseClaim(f *testing.F) {
	f.Add("1", "fd:10", "4711", "pid:[4026531836]", "123456", "boot", "overwrite", "w", "fd:11")
	f.Add("0", "0:0", "1", "", "0", "\x00", "", "w", "8:0")
	f.Add("4294967295", "fffff:fffff", "2147483647", "x", "18446744073709551615", "b", "\x1b", "w", "7:ff")
	f.Fuzz(func(t *testing.T, id, target, pid, namespace, start, boot, operation, mode, device string) {
		keys := map[string]string{
			"imgward/target": target, "imgward/pid": pid, "imgward/pid-namespace": namespace, "imgward/start": start, "imgward/boot-id": boot,
			"imgward/operation": operation, "mode": mode, "physical-device": device,
		}
		cl, err := xenstore.ParseClaim(id, keys)
		if err != nil {
			return
		}
		if again := xenstore.ClaimKeys(cl); !maps.Equal(again, keys) {
			t.Errorf("%q is written as %q", keys, again)
		}
	})
}
