package domcfg

import (
	"path"
	"slices"
	"strings"
)

// A Start is a command of xl that makes a domain, and whose process lives on for
// as long as the domain does, to restart it.
type Start struct {
	Command string   // create, restore or migrate-receive
	Config  string   // the configuration file as it was typed; empty when none was
	Saved   string   // the file with the saved domain; of restore
	Extra   []string // KEY=VALUE words that are appended to the configuration
}

// The commands of xl that start a domain, and the options of each that take a
// value (xl(1), xl_cmdtable.c).
var xlStarts = []struct {
	name   string
	valued []string
}{
	{"create", []string{"-f", "--defconfig"}},
	{"restore", []string{"-C"}},
	{"migrate-receive", []string{"--coloft-script", "-s"}},
}

// ParseXLCommand reads the arguments of a process (/proc/PID/cmdline, with a NUL
// behind each) and gives the domain start that it is; false when it is another
// program or another command of xl. A wrapper of xl's that is a script has its
// interpreter first.
func ParseXLCommand(cmdline string) (Start, bool) {
	args := strings.Split(strings.TrimSuffix(cmdline, "\x00"), "\x00")
	switch {
	case path.Base(args[0]) == "xl":
		args = args[1:]
	case len(args) > 1 && path.IsAbs(args[1]) && path.Base(args[1]) == "xl":
		args = args[2:]
	default:
		return Start{}, false
	}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		args = args[1:] // options of xl itself have no values
	}
	if len(args) == 0 {
		return Start{}, false
	}
	for _, c := range xlStarts {
		// xl takes any beginning of a command that no other command has.
		if args[0] == c.name || len(args[0]) > 2 && strings.HasPrefix(c.name, args[0]) {
			s := Start{Command: c.name}
			s.operands(args[1:], c.valued)
			return s, true
		}
	}
	return Start{}, false
}

// operands takes the file names and assignments out of the arguments.
func (s *Start) operands(args, valued []string) {
	var files []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case slices.Contains(valued, a):
			if i++; i < len(args) && a != "-s" && a != "--coloft-script" {
				files = append(files, args[i])
			}
		case strings.HasPrefix(a, "--defconfig="):
			files = append(files, strings.TrimPrefix(a, "--defconfig="))
		case len(a) > 1 && a[0] == '-':
		case s.Command == "create" && strings.Contains(a, "="):
			s.Extra = append(s.Extra, a)
		default:
			files = append(files, a)
		}
	}
	switch {
	case s.Command == "create" && len(files) > 0:
		s.Config = files[0]
	case s.Command == "restore" && len(files) == 1:
		s.Saved = files[0]
	case s.Command == "restore" && len(files) > 1:
		s.Config, s.Saved = files[0], files[1]
	}
}
