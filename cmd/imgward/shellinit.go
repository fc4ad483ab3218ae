package main

import (
	"embed"
	"slices"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"

	"imgward/guard/argv"
)

// shells are the shells that shell-init knows; each has a file in shellFiles.
var shells = []string{"bash", "zsh", "fish"}

//go:embed shell
var shellFiles embed.FS

func (u *ui) shellInitCommand() *cli.Command {
	return &cli.Command{
		Name: "shell-init", Usage: "print functions that put the guard in front of dd, cp, mkfs and others, and completions", ArgsUsage: strings.Join(shells, "|"), HideHelpCommand: true,
		Flags: common(),
		Action: func(c *cli.Context) error {
			u.configure(c)
			if c.NArg() != 1 || !slices.Contains(shells, c.Args().First()) {
				return usagef("shell-init needs the name of a shell: %s", strings.Join(shells, ", "))
			}
			text, err := shellInit(c.Args().First())
			if err != nil {
				return err
			}
			u.result("%s", strings.TrimSuffix(text, "\n"))
			return nil
		},
	}
}

// shellInit gives what a shell is to evaluate.
func shellInit(shell string) (string, error) {
	t, err := template.ParseFS(shellFiles, "shell/"+shell)
	if err != nil {
		return "", err
	}
	explained, err := shellFiles.ReadFile("shell/explained.txt")
	if err != nil {
		return "", err
	}
	names := slices.DeleteFunc(argv.Programs(), func(name string) bool { return name == "dd" })
	var b strings.Builder
	err = t.Execute(&b, map[string]any{"Names": append(names, "sudo"), "Explained": string(explained)})
	return b.String(), err
}
