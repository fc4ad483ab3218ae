package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// order puts a command line into the one order that the cli library takes:
// program, command, options, "--", operands. People append the hint of a
// refusal to the line they typed, so options may stand before, between and after
// the operands, and before the command too; "--" ends them, and "-" is an
// operand. What follows the name of the program that "preflight" is asked about
// is that program's. It is a pure function of its arguments.
func order(argv []string, app *cli.App) ([]string, error) {
	if len(argv) == 0 {
		return []string{app.Name}, nil
	}
	name, rest := commandOf(argv[1:], app)
	if name == "" {
		if len(rest) > 0 && !slices.Contains([]string{"--help", "-h", "--version", "-v"}, rest[0]) {
			return nil, usagef("unknown command or option %q; \"imgward --help\" lists the commands", rest[0])
		}
		return append([]string{argv[0]}, rest...), nil
	}
	command := app.Command(name)
	var options, operands []string
	for i := 0; i < len(rest); i++ {
		arg := rest[i]
		if arg == "--" {
			operands = append(operands, rest[i+1:]...)
			break
		}
		if !isOption(arg) {
			if name == "preflight" || name == "complete" { // what follows is another command line
				operands = rest[i:]
				break
			}
			operands = append(operands, arg)
			continue
		}
		if arg == "--help" || arg == "-h" {
			return []string{argv[0], name, "--help"}, nil
		}
		options = append(options, arg)
		flag, _, joined := strings.Cut(arg, "=")
		known, takesValue := lookup(command, flag)
		switch {
		case !known:
			return nil, usagef("unknown option %q of %q; \"imgward %s --help\" lists them", flag, name, name)
		case takesValue && !joined:
			if i++; i == len(rest) {
				return nil, usagef("option %q needs a value", flag)
			}
			options = append(options, rest[i])
		}
		if takesValue && (joined && strings.HasSuffix(arg, "=") || !joined && rest[i] == "") {
			// An unset variable of a shell must not take an assertion back.
			return nil, usagef("the value of option %q is empty", flag)
		}
	}
	return slices.Concat([]string{argv[0], name}, options, []string{"--"}, operands), nil
}

// commandOf finds the command, which is the first word that is no option nor an
// option's value, and gives the rest of the line without it.
func commandOf(args []string, app *cli.App) (name string, rest []string) {
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		if isOption(args[i]) {
			// An option before the command is one that all commands have.
			if _, takesValue := lookup(app.Commands[0], args[i]); takesValue {
				i++
			}
			continue
		}
		if app.Command(args[i]) == nil {
			return "", args[i:]
		}
		return args[i], slices.Concat(args[:i], args[i+1:])
	}
	return "", args
}

func isOption(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// lookup tells whether a command has an option of this name, dashes included,
// and whether it takes a value.
func lookup(c *cli.Command, arg string) (known, takesValue bool) {
	name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	if name == "help" || name == "h" {
		return true, false
	}
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return true, !isBool
		}
	}
	return false, false
}
