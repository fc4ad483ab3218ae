package main

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgward/guard"
)

// What could stand at the cursor, with two domains.
func TestCompletions(t *testing.T) {
	app := newApp(&ui{con: system()})
	looked := false
	domains := func() []guard.DomainDisk {
		looked = true
		return []guard.DomainDisk{
			{Domain: "web1", Domid: "7", State: guard.Running, Device: "xvda", Image: "/srv/web1.img"},
			{Domain: "web1", Domid: "7", State: guard.Running, Device: "xvdb", Image: "/srv/a disk.img"},
			{Domain: "db", State: guard.Configured, Device: "xvda", Image: "/dev/vg0/db"},
			{Domain: "evil", State: guard.Configured, Device: "xvda", Image: "/srv/\x1b[2J"},
			{Domain: "net", State: guard.Configured, Device: "xvda", Image: "nbd://host/x"},
		}
	}
	for _, tt := range []struct {
		shell, line string // the last word is at the cursor
		want        []string
		looks       bool
	}{
		{"bash", "over", []string{"overwrite"}, false},
		{"bash", "comp", nil, false}, // it is for the shells alone
		{"bash", "check ", []string{"/srv/web1.img", `/srv/a\ disk.img`, "/dev/vg0/db"}, true},
		{"bash", `overwrite --delta golden.img /srv/a`, []string{`/srv/a\ disk.img`}, true},
		{"zsh", "check /srv/w", []string{"/srv/web1.img:domain web1, running xvda"}, true},
		{"fish", "check /srv/", []string{"/srv/web1.img\tdomain web1, running xvda", "/srv/a disk.img\tdomain web1, running xvdb"}, true},
		{"fish", "check --domain ", []string{"web1\trunning", "db\tconfigured", "evil\tconfigured", "net\tconfigured"}, true},
		{"bash", "check --domain = d", []string{"db"}, true},
		{"bash", "check --domain =", []string{"web1", "db", "evil", "net"}, true},
		{"fish", "check --domain=d", []string{"--domain=db\tconfigured"}, true},
		{"bash", "check --override xen.vbd.s", []string{"xen.vbd.stale:"}, false},
		{"bash", "check --override xen.sysfs", nil, false}, // nothing overrides it
		{"zsh", "check --override xen.vbd.s", []string{`xen.vbd.stale\::xenstore has a backend node for the target, but the domain that it names does not exist, or is not connected as far as the kernel knows, whose list of backends does not have it`}, false},
		{"bash", "check --po", []string{"--porcelain"}, false},
		{"bash", "explain swap", []string{"swap.active"}, false},
		{"bash", "shell-init ", []string{"bash", "zsh", "fish"}, false},
		{"bash", "preflight mkfs.b", []string{"mkfs.btrfs", "mkfs.bfs"}, false},
		{"bash", "preflight cp /dev/", []string{"/dev/vg0/db"}, true},
		{"bash", "domains ", nil, false},
		{"bash", "no-such-command x", nil, false},
	} {
		words := strings.Split(tt.line, " ")
		looked = false
		var got []string
		for _, c := range complete(app, tt.shell, words[:len(words)-1], words[len(words)-1], domains) {
			got = append(got, c.line(tt.shell))
		}
		if !slices.Equal(got, tt.want) || looked != tt.looks {
			t.Errorf("%s: %s|\n got %q, looked: %v\nwant %q, %v", tt.shell, tt.line, got, looked, tt.want, tt.looks)
		}
	}
}

// A shell that asks for what cannot be said gets no answer, and soon.
func TestCompletionIsSilent(t *testing.T) {
	lab(t)
	for _, args := range [][]string{{}, {"bash"}, {"bash", "x", "imgward"}, {"bash", "9", "imgward"}, {"bash", "-1", "imgward"}, {"csh", "1", "imgward", "zzz"}, {"bash", "2", "imgward", "--bogus", "--json"}} {
		if s := imgward(t, nil, append([]string{"complete"}, args...)...); s.code != exitOK || s.out+s.err != "" {
			t.Errorf("complete %q: %d, %q, %q", args, s.code, s.out, s.err)
		}
	}
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("XENSTORED_PATH", silent.Addr().String())
	start := time.Now()
	imgward(t, nil, "complete", "fish", "2", "imgward", "check", "").want(t, exitOK)
	if d := time.Since(start); d > time.Second {
		t.Errorf("a xenstore that does not answer kept a completion for %v", d)
	}
}
