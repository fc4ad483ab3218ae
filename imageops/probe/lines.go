package probe

import (
	"fmt"
	"strconv"
	"strings"
)

// maxShown bounds the partitions that are listed for a person, so that Lines
// stays within a dozen.
const maxShown = 7

// Summary is the contents in one short line, for a person. Text from the image
// is Go-quoted.
func (c Contents) Summary() string {
	var parts []string
	if c.Format != "raw" {
		parts = append(parts, c.Format)
	}
	if c.Table.Kind != "" {
		n := len(c.Table.Partitions)
		s := fmt.Sprintf("%s, %d partitions", c.Table.Kind, n)
		if n == 1 {
			s = c.Table.Kind + ", 1 partition"
		}
		parts = append(parts, s)
	}
	if c.Signature.Type != "" {
		parts = append(parts, c.Signature.short())
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, ", ")
	case c.Size == 0:
		return "empty"
	case c.Zero:
		return "zeros at both ends"
	}
	return "nothing recognised"
}

// Lines is the contents in at most a dozen lines, for a person. Text from the
// image is Go-quoted.
func (c Contents) Lines() []string {
	lines := []string{c.Summary()}
	if c.Signature.Type != "" {
		lines = append(lines, "  "+c.Signature.long(c.Size))
	}
	if len(c.Others) > 0 {
		lines = append(lines, "  also "+types(c.Others))
	}
	shown := c.Table.Partitions[:min(maxShown, len(c.Table.Partitions))]
	for _, p := range shown {
		lines = append(lines, p.line())
	}
	if n := len(c.Table.Partitions) - len(shown); n > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", n))
	}
	if len(c.Notes) > 0 {
		s := c.Notes[0]
		if n := len(c.Notes) - 1; n > 0 {
			s += fmt.Sprintf("; and %d more such", n)
		}
		lines = append(lines, "  note: "+s)
	}
	return lines
}

func (p Partition) line() string {
	s := p.Signature
	if s.Type == "" {
		s.Type = "type " + p.Type
	}
	if s.Label == "" {
		s.Label = p.Name
	}
	line := fmt.Sprintf("  %d  %s", p.Number, s.long(p.Size))
	if len(p.Others) > 0 {
		line += "  also " + types(p.Others)
	}
	return line
}

func (s Signature) short() string {
	if s.Label == "" {
		return s.Type
	}
	return s.Type + " " + quote(s.Label)
}

func (s Signature) long(size int64) string {
	line := s.Type
	if s.Label != "" {
		line += "  " + quote(s.Label)
	}
	line += "  " + human(size)
	if s.UUID != "" {
		line += "  uuid " + s.UUID
	}
	if s.Dirty != "" {
		line += "  " + s.Dirty
	}
	return line
}

func types(ss []Signature) string {
	var ts []string
	for _, s := range ss {
		ts = append(ts, s.Type)
	}
	return strings.Join(ts, ", ")
}

// quote makes untrusted text printable, and short.
func quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "..."
}

// human writes a size with its largest binary unit, to one decimal.
func human(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i]
}
