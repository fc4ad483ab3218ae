package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/guard/argv"
)

// completionTime is how long the host may be looked at for a completion. Who has
// pressed a key waits for it.
const completionTime = 80 * time.Millisecond

// A candidate is a word that could stand where the cursor is.
type candidate struct{ word, text string }

// completeCommand is what the shells' completions call: the shell, the index of the
// word at the cursor, and all words. It prints what could stand there, a line each.
// Where something is wrong it prints nothing.
func (u *ui) completeCommand(app *cli.App) *cli.Command {
	return &cli.Command{
		Name: "complete", Hidden: true, HideHelpCommand: true, Flags: common(),
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return nil
			}
			at, err := strconv.Atoi(c.Args().Get(1))
			words := append(c.Args().Slice()[2:], "")
			if err != nil || at < 1 || at >= len(words) {
				return nil
			}
			shell, word := c.Args().First(), words[at]
			domains := func() []guard.DomainDisk { return u.domainsSoon(c) }
			for _, found := range complete(app, shell, words[1:at], word, domains) {
				fmt.Fprintln(u.con.out, found.line(shell))
			}
			return nil
		},
	}
}

// domainsSoon lists the domains, or nothing where that takes too long.
func (u *ui) domainsSoon(c *cli.Context) []guard.DomainDisk {
	ctx, cancel := context.WithTimeout(c.Context, completionTime)
	defer cancel()
	came := make(chan []guard.DomainDisk, 1)
	go func() {
		s, err := u.open(c, guard.Check)
		if err != nil {
			came <- nil
			return
		}
		defer s.close()
		list, _ := guard.Domains(ctx, s.host)
		came <- list
	}()
	select {
	case list := <-came:
		return list
	case <-ctx.Done():
		return nil
	}
}

// complete gives what could stand behind the words before it and begins with word.
// Words that cannot be shown are not offered.
func complete(app *cli.App, shell string, before []string, word string, domains func() []guard.DomainDisk) []candidate {
	switch { // bash takes "--domain=web1" apart
	case word == "=":
		word = ""
	case len(before) > 0 && before[len(before)-1] == "=":
		before = before[:len(before)-1]
	}
	joined := "" // others do not
	if option, value, ok := strings.Cut(word, "="); ok && isOption(word) {
		joined, word, before = option+"=", value, append(slices.Clone(before), option)
	}
	name, rest := commandOf(before, app)
	command := app.Command(name)
	var all []candidate
	switch {
	case command == nil:
		for _, c := range app.VisibleCommands() {
			all = append(all, candidate{c.Name, c.Usage})
		}
	case len(rest) > 0 && takesValue(command, rest[len(rest)-1]):
		all = values(strings.TrimLeft(rest[len(rest)-1], "-"), domains)
	case strings.HasPrefix(word, "-"):
		all = options(command)
	default:
		all = operands(name, command, rest, domains)
	}
	var out []candidate
	for _, c := range all {
		if shell == "bash" {
			c.word = bashWord(c.word)
		}
		if c.word != "" && printable(c.word) == c.word && strings.HasPrefix(c.word, word) && !slices.ContainsFunc(out, func(o candidate) bool { return o.word == c.word }) {
			out = append(out, c)
		}
	}
	for i := range out {
		out[i].word = joined + out[i].word
	}
	return out
}

func takesValue(c *cli.Command, arg string) bool {
	known, takes := lookup(c, arg)
	return isOption(arg) && known && takes
}

func options(command *cli.Command) []candidate {
	var out []candidate
	for _, f := range command.VisibleFlags() {
		text := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			text = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		out = append(out, candidate{"--" + f.Names()[0], text})
	}
	return out
}

// values gives what an option may be given, where that is known.
func values(option string, domains func() []guard.DomainDisk) []candidate {
	var out []candidate
	switch option {
	case "domain":
		for _, d := range domains() {
			out = append(out, candidate{d.Domain, string(d.State)})
		}
	case "override":
		for _, c := range codes() {
			if _, err := guard.ParseOverride(c.word + ":x"); err == nil {
				out = append(out, candidate{c.word + ":", c.text})
			}
		}
	}
	return out
}

// operands gives what a command may be given.
func operands(name string, command *cli.Command, rest []string, domains func() []guard.DomainDisk) []candidate {
	var out []candidate
	switch {
	case name == "explain":
		return codes()
	case name == "shell-init":
		for _, s := range shells {
			out = append(out, candidate{word: s})
		}
	case name == "preflight" && !slices.ContainsFunc(rest, func(w string) bool { return argv.Knows(w) || w == "sudo" }):
		for _, p := range append(argv.Programs(), "sudo") {
			out = append(out, candidate{word: p})
		}
	case command.ArgsUsage != "":
		for _, d := range domains() {
			if strings.HasPrefix(d.Image, "/") {
				out = append(out, candidate{d.Image, strings.TrimSpace("domain " + cmp.Or(d.Domain, d.Domid) + ", " + string(d.State) + " " + d.Device)})
			}
		}
	}
	return out
}

// codes gives the codes of findings with the first sentence that explain says.
func codes() []candidate {
	var out []candidate
	for _, c := range guard.Codes() {
		text, _ := guard.ExplainCode(c)
		first, _, _ := strings.Cut(text, ". ")
		out = append(out, candidate{string(c), strings.TrimSuffix(first, ".")})
	}
	return out
}

// line writes a candidate as a shell wants it: bash the word alone, zsh with its
// text behind a colon (_describe of zshcompsys(1)), fish behind a tab.
func (c candidate) line(shell string) string {
	switch shell {
	case "zsh":
		return strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(c.word) + ":" + printable(c.text)
	case "fish":
		return c.word + "\t" + printable(c.text)
	}
	return c.word
}

// bashWord quotes a word with backslashes, as it is typed.
func bashWord(s string) string {
	var b strings.Builder
	for _, r := range s {
		if special(r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
