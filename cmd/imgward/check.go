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
		Flags: targeted(
			&cli.BoolFlag{Name: "porcelain", Usage: "one line a target for scripts: verdict, token, target, codes, separated by tabs"},
			&cli.StringFlag{Name: "host", Usage: "judge from the capture `FILE` instead of this host; without a target, what it asks"},
		),
		Action: func(c *cli.Context) error {
			if c.Bool("porcelain") && c.Bool("json") {
				return usagef("--porcelain and --json are two forms of the answer: choose one")
			}
			if c.String("host") != "" {
				return u.checkCapture(c)
			}
			if c.NArg() == 0 {
				return usagef("check needs a target")
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
		return s.unresolved(err, path, porcelain)
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
	return s.verdict(v, path, porcelain, token, holds)
}

// unresolved says that there is no verdict on a path.
func (u *ui) unresolved(err error, path string, porcelain bool) error {
	if porcelain {
		u.result("error\t-\t%q\t-", path)
	}
	u.fail(err, exitStatus(err))
	return err
}

// verdict says what the guard makes of a target. Its token and what it holds may
// be unknown.
func (u *ui) verdict(v guard.Verdict, path string, porcelain bool, token, holds string) error {
	refused := v.Err()
	switch {
	case porcelain:
		codes := make([]string, 0)
		for _, c := range v.Codes() {
			codes = append(codes, string(c))
		}
		u.result("%s\t%s\t%q\t%s", map[guard.Decision]string{guard.Proceed: "free", guard.Refuse: "busy"}[v.Decision],
			orDash(token), path, orDash(strings.Join(codes, ",")))
	case u.json:
		o := verdictObject(v, token, exitStatus(refused))
		o.Holds = holds
		u.object(o)
	case !u.quiet:
		// A failure to write is remembered by the console and told at the end.
		_ = v.Explain(u.con.out)
		if holds != "" {
			u.result("  holds   %s", printable(holds))
		}
		if token != "" {
			u.result("  token   %s", token)
		}
		u.hint(v.Hints())
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
