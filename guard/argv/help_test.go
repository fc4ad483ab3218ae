package argv

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// Where the table has an option that a program of this machine says it has, both
// agree whether it takes a value: else an operand is taken for a value.
func TestTableKnowsWhatProgramsSay(t *testing.T) {
	said := regexp.MustCompile(`(?m)^\s{1,8}(?:-([a-zA-Z]), |-([a-zA-Z])\|)?--([a-z-]+)(\[?)([= ][<A-Za-z\[])?`)
	for _, name := range []string{"cp", "mv", "truncate", "shred", "blkdiscard", "wipefs", "mkswap", "mkfs.btrfs", "mkfs.fat"} {
		t.Run(name, func(t *testing.T) {
			testkit.Need(t, name)
			var g grammar
			for _, p := range table() {
				for _, n := range p.all() {
					if n == name {
						g = p.options
					}
				}
			}
			// Some end their help with a failure.
			out, _ := exec.Command(name, "--help").CombinedOutput()
			found := said.FindAllStringSubmatch(string(out), -1)
			if len(found) < 3 {
				t.Fatalf("help says of %d options\n%s", len(found), out)
			}
			for _, m := range found {
				long, optional, value := m[3], m[4] != "", m[5] != ""
				full, takes := g.find(long)
				want := byte(0)
				switch {
				case optional:
					want = '?'
				case value:
					want = '='
				}
				switch {
				case full != long:
					t.Logf("--%s is newer than the table, which takes every word for a target then", long)
				case takes != want && (takes == '=' || want == '='):
					t.Errorf("--%s takes %q, not %q", long, want, takes)
				}
				if short := m[1] + m[2]; short != "" {
					i := strings.Index(g.short, short)
					if i < 0 {
						t.Logf("-%s is newer than the table, which takes every word for a target then", short)
					} else if strings.HasPrefix(g.short[i+1:], ":") != (want == '=') {
						t.Errorf("-%s in the table: %s", short, g.short[i:])
					}
				}
			}
		})
	}
}
