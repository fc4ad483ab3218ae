package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops/probe"
)

func (u *ui) checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "say whether targets may be written to, and who uses them", ArgsUsage: "TARGET...", HideHelpCommand: true,
		Flags: targeted(&cli.BoolFlag{Name: "porcelain", Usage: "one line a target for scripts: verdict, token, target, codes, separated by tabs"}),
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usagef("check needs a target")
			}
			if c.Bool("porcelain") && c.Bool("json") {
				return usagef("--porcelain and --json are two forms of the answer: choose one")
			}
			s, err := u.open(c, guard.Check)
			if err != nil {
				return err
			}
			defer s.close()
			worst := error(nil)
			for _, path := range c.Args().Slice() {
				err := s.check(c.Context, path, c.Bool("porcelain"))
				if err != nil && (worst == nil || exitStatus(err) == exitRefused) {
					worst = err
				}
			}
			if worst != nil {
				return &saidError{worst}
			}
			return nil
		},
	}
}

// check says the verdict on one target.
func (s *session) check(ctx context.Context, path string, porcelain bool) error {
	g := s.guard(guard.Check, nil)
	t, v, err := g.Check(ctx, path)
	if err != nil {
		if porcelain {
			s.result("error\t-\t%q\t-", path)
		}
		s.fail(err, exitStatus(err))
		return err
	}
	defer t.Close()
	token, holds := "", ""
	if t.Exists() && !v.Writing() {
		if token, err = g.Token(ctx, t); err != nil {
			token, holds = "", err.Error()
		} else {
			holds = summary(t)
		}
	}
	refused := v.Err()
	switch {
	case porcelain:
		codes := make([]string, 0)
		for _, c := range v.Codes() {
			codes = append(codes, string(c))
		}
		s.result("%s\t%s\t%q\t%s", map[guard.Decision]string{guard.Proceed: "free", guard.Refuse: "busy"}[v.Decision],
			orDash(token), path, orDash(strings.Join(codes, ",")))
	case s.json:
		o := verdictObject(v, token, exitStatus(refused))
		o.Holds = holds
		s.object(o)
	case !s.quiet:
		// A failure to write is remembered by the console and told at the end.
		_ = v.Explain(s.con.out)
		if holds != "" {
			s.result("  holds   %s", printable(holds))
		}
		if token != "" {
			s.result("  token   %s", token)
		}
		s.hint(v.Hints())
	}
	return refused
}

// summary says in a line what is on the target.
func summary(t *guard.Target) string {
	f, err := t.Open()
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	c, err := probe.Look(f, t.Size)
	if err != nil {
		return c.Summary() + " (" + err.Error() + ")"
	}
	return c.Summary()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
