package guard

import (
	"context"
	"fmt"
	"strings"
)

// swaps reads the active swap areas (proc(5), /proc/swaps), devices and files.
type swaps struct{}

func (swaps) Name() string { return "swaps" }

func (swaps) Reads() []string { return []string{"/proc/swaps"} }

// Collect implements [Collector].
func (swaps) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	if t.ID.Kind == KindMissing {
		return
	}
	table, err := host.FS.ReadFile("/proc/swaps")
	if err != nil {
		s.Blind("/proc/swaps", err)
		return
	}
	areas, err := parseSwaps(string(table))
	if err != nil {
		s.Blind("/proc/swaps", err)
	}
	for _, name := range areas {
		st, err := host.FS.Stat(name)
		if err != nil {
			s.Blind(name, err)
			continue
		}
		id, ok := idOf(st)
		if !ok {
			continue
		}
		if rel := t.Relate(id); rel != Unrelated {
			s.Found(Finding{
				Code: SwapActive, Relation: rel, Subject: "the host", Key: name,
				Detail: "swaps to it" + t.via(rel, id), Source: "/proc/swaps: " + quote(name), Remedy: "run \"swapoff " + quote(name) + "\"",
			})
		}
	}
	s.Looked(len(areas), "swap area")
}

// parseSwaps gives the names in a table of swap areas: a head line, then a line
// for each area that begins with its name, in which white space is escaped.
func parseSwaps(table string) ([]string, error) {
	var out []string
	for i, line := range strings.SplitAfter(table, "\n") {
		if line == "" && i > 0 {
			break
		}
		f := strings.Fields(line)
		switch {
		case !strings.HasSuffix(line, "\n"):
			return out, fmt.Errorf("list of swap areas is cut off at %q", line)
		case i == 0 && (len(f) == 0 || f[0] != "Filename"):
			return out, fmt.Errorf("list of swap areas has no head line: %q", line)
		case i == 0:
		case len(f) < 5:
			return out, fmt.Errorf("list of swap areas has a malformed line %q", line)
		default:
			name := unescape(f[0])
			name, _ = strings.CutSuffix(name, " (deleted)")
			out = append(out, name)
		}
	}
	return out, nil
}
