package argv

import (
	"regexp"
	"strings"
)

// qemuCommands are those of qemu-img's commands that write, by qemu-img.c. Those
// that only read are in readOnly; of any other every word is a target.
var qemuCommands = map[string]program{
	"amend": {options: qemuOptions("ho:f:t:pqU", "force"), places: operands},
	"bench": {options: qemuOptions("hc:d:f:ni:o:qs:S:t:wU", "pattern= flush-interval= no-drain"), places: func(l *line) ([]Place, error) {
		if !l.has("w", "pattern") {
			return nil, nil
		}
		return operands(l)
	}},
	"bitmap": {options: qemuOptions("b:f:F:g:hqU", "add remove clear enable disable merge="), places: first},
	"check": {options: qemuOptions("hf:r:T:qU", "output= repair="), places: func(l *line) ([]Place, error) {
		if !l.has("r", "repair") {
			return nil, nil
		}
		return operands(l)
	}},
	"commit": {options: qemuOptions("f:ht:b:dpqr:", ""), places: func(l *line) ([]Place, error) {
		if l.has("b") {
			out := exact(l.operands)
			for _, base := range l.values("b") {
				out = append(out, Place{How: Base, Path: base, From: l.operands})
			}
			return out, nil
		}
		var out []Place
		for _, o := range l.operands {
			out = append(out, Place{How: Commit, Path: o})
		}
		return out, nil
	}},
	"convert": {options: qemuOptions("hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", "source-image-opts target-image-opts target-is-zero bitmaps skip-broken-bitmaps salvage"), places: func(l *line) ([]Place, error) {
		n := len(l.operands) - 1
		if n < 1 {
			return nil, nil
		}
		return exact(l.operands[n:]), nil
	}},
	"create": {options: qemuOptions("F:b:f:ho:qu", ""), places: first},
	"dd":     {options: qemuOptions("hnf:O:U", ""), places: ddPlaces},
	"rebase": {options: qemuOptions("hf:F:b:upt:T:qUcr:", ""), places: operands},
	// The last word is the size, and may look like an option ("-1G").
	"resize": {options: qemuOptions("f:hq", "preallocation= shrink"), places: first},
	"snapshot": {options: qemuOptions("la:c:d:hqU", ""), places: func(l *line) ([]Place, error) {
		if !l.has("a", "c", "d") {
			return nil, nil
		}
		return operands(l)
	}},
}

// readOnly are qemu-img's commands that write nothing.
const readOnly = " compare info map measure "

func qemuOptions(short, long string) grammar {
	return grammar{short: short, long: "help object= image-opts force-share " + long}
}

// qemuPlaces: the first operand is the command. qemu-img parses the rest itself, with
// operands and options mixed.
func qemuPlaces(l *line) ([]Place, error) {
	if l.has("h", "V") || len(l.operands) == 0 {
		return nil, nil
	}
	name, args := l.operands[0], l.operands[1:]
	if strings.Contains(readOnly, " "+name+" ") {
		return nil, nil
	}
	p, known := qemuCommands[name]
	if name == "resize" && len(args) > 0 && !strings.HasPrefix(args[len(args)-1], "--") {
		args = args[:len(args)-1]
	}
	c := p.options.parse(args, false)
	if c.has("h", "help") && !c.unknown {
		return nil, nil
	}
	var places []Place
	if known {
		var err error
		if places, err = p.places(c); err != nil {
			return nil, err
		}
	}
	if !known || c.unknown {
		places = append(places, exact(c.words)...)
	}
	if name == "create" || name == "convert" || !known {
		more, err := qemuExtents(c.values("o"))
		if err != nil {
			return nil, err
		}
		places = append(places, more...)
	}
	options := c.has("image-opts") && name != "convert" || c.has("target-image-opts")
	for i := range places {
		path, err := qemuPath(places[i].Path, options)
		if err != nil {
			return nil, err
		}
		places[i].Path = path
	}
	return places, nil
}

// qemuExtents gives the further files of a new image, whatever its format, that are
// truncated like itself: a data file is named by -o, and the extents of a VMDK image
// have names of QEMU's making.
func qemuExtents(options []string) ([]Place, error) {
	var out []Place
	for _, list := range options {
		for _, o := range strings.Split(strings.ReplaceAll(list, ",,", "\x00"), ",") {
			key, value, _ := strings.Cut(strings.ReplaceAll(o, "\x00", ","), "=")
			switch {
			case key == "data_file":
				out = append(out, exact([]string{value})...)
			case key == "subformat" && (strings.Contains(value, "Flat") || strings.Contains(value, "twoGb")):
				return nil, untold("which files the option %q makes cannot be told", o)
			}
		}
	}
	return out, nil
}

// protocol is what QEMU takes for the name of a protocol before a colon
// (block.c, path_has_protocol).
var protocol = regexp.MustCompile(`^([^/:]*):`)

// qemuPath gives the file that QEMU opens by a name: a path, perhaps behind the
// protocol "file:", or with --image-opts a list of options. Commas are doubled in
// values of such a list (qemu(1), -drive file=).
func qemuPath(name string, options bool) (string, error) {
	if options {
		parts := strings.Split(strings.ReplaceAll(name, ",,", "\x00"), ",")
		for _, p := range parts {
			key, value, _ := strings.Cut(p, "=")
			if key == "filename" || strings.HasSuffix(key, ".filename") {
				return qemuPath(strings.ReplaceAll(value, "\x00", ","), false)
			}
		}
		return "", untold("which file the options %q name cannot be told", name)
	}
	m := protocol.FindStringSubmatch(name)
	switch {
	case m == nil:
		return name, nil
	case m[1] == "file" || m[1] == "host_device":
		return name[len(m[0]):], nil
	}
	return "", untold("what QEMU writes to by the name %q cannot be told", name)
}
