package main

import (
	"errors"
	"io/fs"

	"github.com/urfave/cli/v2"

	"imgward/guard"
)

func (u *ui) copyCommand() *cli.Command {
	return &cli.Command{
		Name: "copy", Usage: "copy an image to a new file", ArgsUsage: "SRC|- DST", HideHelpCommand: true,
		Flags: bytesOptions(),
		Action: func(c *cli.Context) error {
			t, err := u.transfer(c, guard.Create)
			if err != nil {
				return err
			}
			defer t.close()
			src, err := t.open(c)
			if err != nil {
				return err
			}
			defer src.Close()
			if err := asIs(src, t.stated, c.Args().Get(1)); err != nil {
				return err
			}
			o, err := t.create(c.Context, src, c.Args().Get(1))
			if errors.Is(err, fs.ErrExist) {
				return &hintedError{err, []string{"to replace what is there, use \"imgward overwrite\""}}
			}
			if err != nil {
				return err
			}
			t.say("copy", "copied", o)
			return t.writeManifest(o)
		},
	}
}
