package main

import (
	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
)

func (u *ui) overwriteCommand() *cli.Command {
	return &cli.Command{
		Name: "overwrite", Usage: "replace what is in an existing image or device, in place", ArgsUsage: "SRC|- DST", HideHelpCommand: true,
		Flags: targetOptions(&cli.BoolFlag{Name: "delta", Usage: "read the target too, and write only what differs"}),
		Action: func(c *cli.Context) error {
			t, err := u.transfer(c, guard.Overwrite)
			if err != nil {
				return err
			}
			defer t.close()
			t.options.Delta = c.Bool("delta")
			if t.options.Delta && t.options.Sparse == imageops.SparseOff {
				return usagef("with --sparse off all is written, and with --delta only what differs")
			}
			src, err := t.open(c)
			if err != nil {
				return err
			}
			defer src.Close()
			o, err := t.replace(c.Context, src, c.Args().Get(1), guard.Overwrite)
			if err != nil {
				return err
			}
			t.say("overwrite", "wrote", o)
			return t.writeManifest(o)
		},
	}
}
