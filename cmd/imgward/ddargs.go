package main

import (
	"errors"
	"path/filepath"
	"strings"

	"imgward/guard"
)

// ddWords gives what follows dd on a command line of dd's: one that begins with
// "imgward dd", or the program's own under the name dd. It is asked before
// anything else is set up, because dd has its own signals, options and words.
func ddWords(argv []string) (words []string, ok bool) {
	switch {
	case len(argv) > 0 && filepath.Base(argv[0]) == "dd":
		return argv[1:], true
	case len(argv) > 1 && argv[1] == "dd":
		return argv[2:], true
	}
	return nil, false
}

// ddSaid is what an operator says to the guard on dd's command line.
type ddSaid struct {
	override []guard.Override
	domain   string // empty when nothing was asserted
	noClaim  bool
}

// splitDD takes from dd's words what is said to the guard: --override=CODE:SUBJECT
// (repeatable), --domain=NAME and --no-claim, before, between or after the operands,
// as getopt takes dd's own options, and with the value as a word of its own, too.
// "--" ends them. All other words are dd's, in their order. It is a pure function;
// its error is about the command line.
func splitDD(words []string) (said ddSaid, operands []string, err error) {
	for i := 0; i < len(words); i++ {
		name, value, joined := strings.Cut(words[i], "=")
		switch {
		case words[i] == "--":
			return said, append(operands, words[i:]...), nil
		case words[i] == "--no-claim":
			said.noClaim = true
			continue
		case name != "--override" && name != "--domain":
			operands = append(operands, words[i])
			continue
		case !joined:
			if i++; i == len(words) {
				return ddSaid{}, nil, usagef("option '%s' requires an argument", name)
			}
			value = words[i]
		}
		// An unset variable of a shell must not take an assertion back.
		if value == "" {
			return ddSaid{}, nil, usagef("the value of option '%s' is empty", name)
		}
		if name == "--domain" {
			said.domain = value
			continue
		}
		o, err := guard.ParseOverride(value)
		if err != nil {
			return ddSaid{}, nil, usagef("%v", err)
		}
		said.override = append(said.override, o)
	}
	return said, operands, nil
}

// policy is what the guard is told.
func (s ddSaid) policy() guard.Policy {
	return guard.Policy{Operation: guard.DD, Override: s.override, Domain: s.domain}
}

// ddStatus is dd's exit status for err: the guard's where the guard has one, else
// dd's own failure. Behind [exitRefused] nothing was written, behind
// [exitIncomplete] something was.
func ddStatus(err error) int {
	var (
		refused *guard.RefusedError
		broken  *guard.BrokenError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &broken):
		return exitIncomplete
	case errors.As(err, &refused):
		return exitRefused
	}
	return exitFailed
}
