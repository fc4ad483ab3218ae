package main

import (
	"context"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"imgward/guard"
)

func (u *ui) trustLocalCommand() *cli.Command {
	return &cli.Command{
		Name: "trust-local", Usage: "state that only this host uses a mount, a volume group or a device", ArgsUsage: "VG|MOUNT|DEVICE", HideHelpCommand: true,
		Flags: common(
			&cli.BoolFlag{Name: "list", Usage: "list what was stated"},
			&cli.BoolFlag{Name: "forget", Usage: "take a statement back"},
		),
		Action: func(c *cli.Context) error {
			if list := c.Bool("list"); list && (c.Bool("forget") || c.NArg() > 0) || !list && c.NArg() != 1 {
				return usagef("trust-local takes one volume group, mount point or device, or --list alone")
			}
			s, err := u.open(c, guard.Check)
			if err != nil {
				return err
			}
			defer s.close()
			switch name := c.Args().First(); {
			case c.Bool("list"):
				return s.listStatements()
			case c.Bool("forget"):
				if err := guard.ForgetLocal(s.host, name); err != nil {
					return err
				}
				s.result("%q may be anybody's again", name)
				return nil
			default:
				return s.trustLocal(c.Context, name)
			}
		},
	}
}

type statementJSON struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Identity string `json:"identity"`
	Who      string `json:"who"`
	When     string `json:"when"`
}

func (s *session) say(st guard.Statement) {
	s.result("%s", st)
	s.object(statementJSON{st.Kind, st.Name, st.Identity, st.Who, st.When.Format(time.RFC3339)})
}

func (s *session) listStatements() error {
	said, err := guard.Statements(s.host)
	if err != nil {
		return err
	}
	for _, st := range said {
		s.say(st)
	}
	return nil
}

func (s *session) trustLocal(ctx context.Context, name string) error {
	st, err := guard.TrustLocal(ctx, s.host, name, s.operator(), time.Now())
	if err != nil {
		return err
	}
	s.say(st)
	return nil
}

// operator names who sits at the terminal: whoever called sudo(8), else who
// logged in (proc(5), loginuid), else whom the process runs as.
func (s *session) operator() string {
	if who := s.con.getenv("SUDO_USER"); who != "" {
		return who
	}
	uid := strconv.Itoa(os.Getuid())
	const notSet = "4294967295"
	if b, err := s.host.FS.ReadFile("/proc/self/loginuid"); err == nil && strings.TrimSpace(string(b)) != notSet {
		uid = strings.TrimSpace(string(b))
	}
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}
