package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/xenstore"
	"imgward/xenstore/dump"
)

var update = flag.Bool("update", false, "write the lists of captured hosts' domains")

// captured lists the domains of a captured host.
func captured(t *testing.T, name string) ([]guard.DomainDisk, []guard.Finding) {
	t.Helper()
	f, err := os.Open("../../testdata/hosts/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := hostfs.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	host := &guard.Host{FS: root}
	if text, ok := root.Member("xenstore"); ok {
		nodes, err := dump.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		host.Store = xenstore.NewSnapshot("0", nodes)
	}
	return guard.Domains(t.Context(), host)
}

// The lists of captured hosts are in testdata/domains, for people and as CSV;
// JSON says the same.
func TestDomainLists(t *testing.T) {
	for _, name := range []string{"file-loop", "lvm", "qdisk", "hvm-running", "driver-domain", "shared-dir", "destroyed-behind", "configured", "saved-by-service", "linux-stacks"} {
		t.Run(name, func(t *testing.T) {
			list, blind := captured(t, name)
			for _, f := range blind {
				t.Errorf("blind: %s", f.Detail)
			}
			var table, comma, objects bytes.Buffer
			for _, u := range []*ui{{con: &console{out: &objects}, json: true}, {con: &console{out: &table, err: &table}}} {
				if err := u.listDomains(list, false); err != nil {
					t.Fatal(err)
				}
			}
			if err := (&ui{con: &console{out: &comma}}).listDomains(list, true); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("../../testdata/domains", name+".txt")
			got := table.String() + "\n" + comma.String()
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; -update rewrites it):\n%s", golden, diff)
			}
			rows, err := csv.NewReader(&comma).ReadAll()
			if err != nil || len(rows) != len(list)+1 {
				t.Errorf("%d rows of CSV for %d disks, %v", len(rows), len(list), err)
			}
			for i, line := range strings.Split(strings.TrimSuffix(objects.String(), "\n"), "\n")[:len(list)] {
				var d domainJSON
				if err := json.Unmarshal([]byte(line), &d); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(list[i], guard.DomainDisk(d)); diff != "" {
					t.Errorf("JSON line %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// Foreign text reaches no terminal as it is, and takes no table apart.
func TestDomainTextIsQuoted(t *testing.T) {
	list := []guard.DomainDisk{{
		Domain: "web\x1b[2J\n1", Domid: "7", State: guard.Running, Device: "xv\tda", Mode: "w\x7f", Image: "/srv/a b\u202e.img",
		Below: []string{"/srv/\u009bx", "/dev/sda"}, Source: "/local\x00",
	}}
	for _, asCSV := range []bool{false, true} {
		var out bytes.Buffer
		if err := (&ui{con: &console{out: &out}}).listDomains(list, asCSV); err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(out.String(), "\n"); lines != 2 {
			t.Errorf("%d lines in %q", lines, out.String())
		}
		if strings.ContainsAny(out.String(), "\x1b\x00\x7f\u009b\t") {
			t.Errorf("a control character in %q", out.String())
		}
	}
}
