package argv

import (
	"path/filepath"
	"strings"
)

// sudoOptions are those of sudo(8).
var sudoOptions = grammar{
	short: "Aa:BbC:c:D:Eeg:Hh::iKklNnPp:R:r:SsT:t:U:u:Vv", inOrder: true,
	long: "askpass auth-type= background bell close-from= login-class= chdir= preserve-env? edit group= set-home help host= login " +
		"remove-timestamp reset-timestamp list no-update non-interactive preserve-groups prompt= chroot= role= stdin shell " +
		"command-timeout= type= other-user= user= validate version",
}

// A Sudo is a command line of sudo's with a program of the table in it.
type Sudo struct {
	Name string // of the program
	Args []string

	// Ask are the options that say how sudo asks for a password.
	Ask []string
}

// ParseSudo finds the program of the table that sudo is to run; nil where it runs
// none. The program may be given by a path.
func ParseSudo(args []string) (*Sudo, error) {
	l := sudoOptions.parse(args, false)
	for i, o := range l.operands {
		name := filepath.Base(o)
		if !Knows(name) {
			if l.unknown || strings.Contains(o, "=") {
				continue // it may be an option's value, or is a variable
			}
			return nil, nil
		}
		s := &Sudo{Name: name, Args: l.operands[i+1:]}
		switch {
		case l.has("e", "edit", "l", "list"):
			return nil, nil
		case l.has("D", "chdir", "R", "chroot", "i", "login"):
			return s, untold("sudo is to run %s in another directory, from where its operands mean something else", name)
		case l.has("S", "stdin"):
			return s, untold("sudo is to read the password from standard input, where there is only one")
		case l.has("A", "askpass"):
			s.Ask = []string{"-A"}
		case l.has("n", "non-interactive"):
			s.Ask = []string{"-n"}
		}
		return s, nil
	}
	return nil, nil
}
