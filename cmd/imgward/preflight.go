package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/guard/argv"
	"imgward/imageops/probe"
)

func (u *ui) preflightCommand() *cli.Command {
	return &cli.Command{
		Name: "preflight", Usage: "say whether another program's command line would write to what is in use", ArgsUsage: "NAME ARG...", HideHelpCommand: true,
		Flags: targeted(),
		Action: func(c *cli.Context) error {
			u.configure(c)
			if c.NArg() == 0 {
				return usagef("preflight needs the name of a program, and what it is given")
			}
			line := c.Args().Slice()
			err := u.preflight(c, line)
			var unseen *unseenError
			var untold *argv.UntoldError
			switch {
			case errors.As(err, &untold):
				err = unseenf("%s was not run: %w", line[0], untold)
			case errors.As(err, &unseen):
				err = unseenf("%s was not run: %w", line[0], unseen)
			default:
				return err
			}
			return &hintedError{err, around(line)}
		},
	}
}

// preflight looks at what a command line would write to. Where it would write to
// nothing that can be in use, the host is not looked at.
func (u *ui) preflight(c *cli.Context, line []string) error {
	name, args := line[0], line[1:]
	var ask []string
	sudo := name == "sudo"
	if sudo {
		s, err := argv.ParseSudo(args)
		if s == nil {
			return nil
		}
		if err != nil {
			return err
		}
		name, args, ask = s.Name, s.Args, s.Ask
	}
	if !argv.Knows(name) {
		return usagef("what %q writes to is not known; known are: %s", name, strings.Join(argv.Programs(), " "))
	}
	_, posix := os.LookupEnv("POSIXLY_CORRECT")
	places, err := placesOf(name, args, posix, sudo)
	if err != nil || len(places) == 0 {
		return err
	}
	if sudo && os.Geteuid() != 0 {
		return u.asRoot(c, ask, line)
	}
	op := guard.Overwrite
	if argv.Plain(name) {
		op = guard.DD
	}
	a := &aims{volumes: func() []string { return nil }}
	for _, p := range places {
		if p.How == argv.Group {
			a.volumes = func() []string { return u.images(c) }
		}
		if err := a.add(p); err != nil {
			return err
		}
	}
	if len(a.list) == 0 {
		return nil
	}
	s, err := u.open(c, op)
	if err != nil {
		return err
	}
	defer s.close()
	return s.judgeAims(c.Context, op, a, line)
}

// placesOf says where a program would write. Whether sudo leaves POSIXLY_CORRECT in
// the environment is its configuration's, so both readings of the line count.
func placesOf(name string, args []string, posix, sudo bool) ([]argv.Place, error) {
	places, err := argv.Places(name, args, posix)
	if err != nil || !posix || !sudo {
		return places, err
	}
	more, err := argv.Places(name, args, false)
	return append(places, more...), err
}

// asRoot lets sudo run the same look, since who is not root cannot see who uses what.
func (u *ui) asRoot(c *cli.Context, ask, line []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	words := slices.Concat(ask, []string{"--", self, "preflight"})
	for _, o := range c.StringSlice("override") {
		words = append(words, "--override="+o)
	}
	if d := c.String("domain"); d != "" {
		words = append(words, "--domain="+d)
	}
	for _, name := range []string{"json", "quiet", "verbose"} {
		if c.Bool(name) {
			words = append(words, "--"+name)
		}
	}
	cmd := exec.CommandContext(c.Context, "sudo", slices.Concat(words, []string{"--"}, line)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitRefused {
		return &saidError{unseenf("sudo %s: refused", shellWords(words))}
	}
	if err != nil {
		return fmt.Errorf("look as root, through sudo: %w", err)
	}
	return nil
}

// images are the images that domains are said to have. What could not be looked at
// shows when a volume is judged.
func (u *ui) images(c *cli.Context) []string {
	s, err := u.open(c, guard.Check)
	if err != nil {
		return nil
	}
	defer s.close()
	list, _ := guard.Domains(c.Context, s.host)
	var out []string
	for _, d := range list {
		out = append(out, d.Image)
	}
	return out
}

// judgeAims judges all that a command line would write to, and says what refuses.
func (s *session) judgeAims(ctx context.Context, op guard.Operation, a *aims, line []string) error {
	var refused []guard.Verdict
	var unseen error
	for i := 0; i < len(a.list); i++ { // it may grow
		v, base, err := s.judgeAim(ctx, op, a.list[i])
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && unseen == nil:
			unseen = err
		case v.Err() != nil:
			refused = append(refused, v)
		case base != "":
			from := []string{a.list[i].path}
			if err := a.one(argv.Place{How: argv.Base, Path: base, From: from}, base, false); err != nil && unseen == nil {
				unseen = err
			}
		}
	}
	if len(refused) == 0 {
		return unseen
	}
	var overrides, hints []string
	yours := unseen == nil
	for _, v := range refused {
		s.object(verdictObject(v, "", exitRefused))
		if !s.quiet && !s.json {
			// A console that cannot be written to is nothing that can be told there.
			_ = v.Explain(s.con.err)
		}
		os := v.Overrides()
		yours = yours && os != nil
		for _, o := range os {
			overrides = append(overrides, "--override="+o.String())
		}
		for _, h := range v.Hints() {
			if !strings.Contains(h, "add: ") && !slices.Contains(hints, h) {
				hints = append(hints, h)
			}
		}
	}
	if unseen != nil {
		s.remark("imgward: %s", printable(unseen.Error()))
	}
	s.remark("%s was not run", printable(line[0]))
	s.hint(hints)
	if yours {
		slices.Sort(overrides)
		words := slices.Concat([]string{"imgward", "preflight"}, slices.Compact(overrides), line)
		s.hint([]string{"if you know better: " + shellWords(words) + " && command " + shellWords(line)})
		s.hint(around(line))
	}
	return &saidError{refused[0].Err()}
}

// judgeAim judges one thing that would be written to. base is the file that it is an
// overlay of, where that is written to as well.
func (s *session) judgeAim(ctx context.Context, op guard.Operation, a aim) (v guard.Verdict, base string, err error) {
	if a.is == nil {
		op = guard.DD // what makes a new file destroys nothing, whoever it is
	}
	g := s.guard(op, nil)
	if a.overlay != "" {
		g.Policy.Override = append(slices.Clone(g.Policy.Override), guard.Override{Code: guard.ChainParent, Key: a.overlay})
	}
	t, v, err := g.Check(ctx, a.path)
	if err != nil {
		return v, "", unseenf("%v", err)
	}
	defer t.Close()
	if a.commit && t.Exists() && v.Err() == nil {
		base, err = baseOf(t)
	}
	return v, base, err
}

// baseOf gives the file that a header names as what the image is an overlay of;
// empty where it names none. It is judged, and opened by nobody but the guard.
func baseOf(t *guard.Target) (string, error) {
	f, err := t.Open()
	if err != nil {
		return "", unseenf("%v", err)
	}
	defer f.Close()
	refs, err := probe.References(f, t.Size)
	if err != nil {
		return "", unseenf("read what %q is an overlay of: %v", t.Path, err)
	}
	for _, r := range refs {
		if r.Kind != "backing" && r.Kind != "parent" {
			continue
		}
		if strings.Contains(r.Name, ":") {
			return "", unseenf("%q is an overlay of %q, and what that is cannot be told", t.Path, r.Name)
		}
		if filepath.IsAbs(r.Name) {
			return r.Name, nil
		}
		return filepath.Join(filepath.Dir(t.Real), r.Name), nil
	}
	return "", nil
}

// around says how a command runs without a look.
func around(line []string) []string {
	return []string{"without any look: command " + shellWords(line)}
}

// shellWords writes words as a shell of Bourne's kind reads them. Where a word has
// what cannot be shown, it ends with "...".
func shellWords(words []string) string {
	out := make([]string, 0, len(words))
	for _, w := range words {
		switch {
		case printable(w) != w:
			return strings.Join(append(out, "..."), " ")
		case w == "" || strings.ContainsFunc(w, special):
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

func special(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+:@,%=", r))
}
