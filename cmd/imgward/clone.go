package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"imgward/guard"
)

func (u *ui) cloneCommand() *cli.Command {
	return &cli.Command{
		Name: "clone", Usage: "make a new or existing target equal to a golden image, sharing blocks where the file system can",
		ArgsUsage: "GOLDEN DST", HideHelpCommand: true,
		Flags: targetOptions(&cli.BoolFlag{Name: "no-reflink", Usage: "copy the bytes even where blocks could be shared"}),
		Action: func(c *cli.Context) error {
			t, err := u.transfer(c, guard.Clone)
			if err != nil {
				return err
			}
			defer t.close()
			// Shared blocks are not read, so whoever wants a digest wants a copy.
			t.reflink = !c.Bool("no-reflink") && !c.IsSet("digest") && len(t.options.Expect) == 0
			src, err := t.source(c.Context, c.Args().Get(0))
			if err != nil {
				return err
			}
			defer src.Close()
			o, err := t.clone(c.Context, src, c.Args().Get(1))
			if err != nil {
				return err
			}
			t.say("clone", "cloned", o)
			return nil
		},
	}
}

// clone makes a file that is not there, and replaces what is.
func (t *transfer) clone(ctx context.Context, src *guard.Source, dst string) (*outcome, error) {
	target, err := guard.Resolve(ctx, t.host, dst)
	if err != nil {
		return nil, err
	}
	exists := target.Exists()
	if err := target.Close(); err != nil {
		return nil, err
	}
	if exists {
		return t.replace(ctx, src, dst, guard.Clone)
	}
	return t.create(ctx, src, dst)
}
