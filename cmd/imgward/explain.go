package main

import (
	"github.com/urfave/cli/v2"

	"imgward/guard"
)

func (u *ui) explainCommand() *cli.Command {
	return &cli.Command{
		Name: "explain", Usage: "say what a finding's code means, or list the codes", ArgsUsage: "[CODE]", HideHelpCommand: true,
		Flags: common(),
		Action: func(c *cli.Context) error {
			u.configure(c)
			switch c.NArg() {
			case 0:
				for _, code := range guard.Codes() {
					u.result("%s", code)
				}
				return nil
			case 1:
			default:
				return usagef("explain takes one code")
			}
			code := guard.Code(c.Args().First())
			text, ok := guard.ExplainCode(code)
			if !ok {
				return usagef("there is no code %q; \"imgward explain\" lists them", code)
			}
			u.result("%s: %s", code, text)
			u.object(map[string]string{"code": string(code), "text": text})
			return nil
		},
	}
}
