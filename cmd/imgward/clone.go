package main

import (
	"context"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
)

func (u *ui) cloneCommand() *cli.Command {
	return &cli.Command{
		Name: "clone", Usage: "make new or existing targets equal to a golden image, which is read once; blocks are shared where the file system can",
		ArgsUsage: "GOLDEN|- DST...", HideHelpCommand: true,
		Flags: targetOptions(&cli.BoolFlag{Name: "no-reflink", Usage: "copy the bytes even where blocks could be shared"}),
		Action: func(c *cli.Context) error {
			t, err := u.transfer(c, guard.Clone)
			if err != nil {
				return err
			}
			defer t.close()
			// Shared blocks are not read, so whoever wants a digest wants a copy.
			t.reflink = !c.Bool("no-reflink") && !c.IsSet("digest") && len(t.options.Expect) == 0 && t.manifest == ""
			in, err := t.open(c)
			if err != nil {
				return err
			}
			defer in.Close()
			if c.NArg() > 2 {
				return t.cloneAll(c.Context, in, c.Args().Slice()[1:])
			}
			o, err := t.clone(c.Context, in, c.Args().Get(1))
			if err != nil {
				return err
			}
			t.say("clone", "cloned", o)
			return t.writeManifest(o)
		},
	}
}

// clone makes a file that is not there, and replaces what is.
func (t *transfer) clone(ctx context.Context, in *input, dst string) (*outcome, error) {
	none := &outcome{source: in.path, target: dst}
	target, err := guard.Resolve(ctx, t.host, dst)
	if err != nil {
		return none, err
	}
	exists := target.Exists()
	if err := target.Close(); err != nil {
		return none, err
	}
	if exists {
		return t.replace(ctx, in, dst, guard.Clone)
	}
	if err := asIs(in, t.stated, dst); err != nil {
		return none, err
	}
	return t.create(ctx, in, dst)
}

// A targetError is what went wrong with one of several targets.
type targetError struct {
	error
	target string
	notes  []findingJSON
}

func (e *targetError) Error() string { return e.target + ": " + e.error.Error() }

func (e *targetError) Unwrap() error { return e.error }

// cloneAll makes all targets equal to a source that is read once. Each is examined,
// judged and held on its own, one after the other, so that each sees the ones before
// it; then they are written together, and each has its own end.
func (t *transfer) cloneAll(ctx context.Context, in *input, dsts []string) error {
	t.fan = imageops.NewFanout(ctx, in.from, t.options, len(dsts))
	defer t.unsuspended()()
	each, outcomes, errs := make([]*transfer, len(dsts)), make([]*outcome, len(dsts)), make([]error, len(dsts))
	var all sync.WaitGroup
	for i, dst := range dsts {
		one, passed := *t, make(chan struct{})
		one.ready = sync.OnceFunc(func() { close(passed) })
		one.own, each[i] = &notes{about: printable(dst) + ": "}, &one
		all.Go(func() {
			defer one.ready()
			outcomes[i], errs[i] = one.clone(ctx, in, dst)
			if !outcomes[i].joined {
				t.fan.Leave()
			}
		})
		<-passed
	}
	all.Wait()
	written := t.manifest == ""
	for i, dst := range dsts {
		if errs[i] == nil {
			each[i].say("clone", "cloned", outcomes[i])
			if !written {
				written = true
				errs[i] = t.writeManifest(outcomes[i])
			}
		}
		if errs[i] == nil {
			continue
		}
		errs[i] = &targetError{errs[i], printable(dst), each[i].own.all()}
		t.fail(errs[i], exitStatus(errs[i]))
	}
	if err := worst(errs); err != nil {
		return &saidError{err}
	}
	return nil
}

// worst is the error that tells most about what became of several targets; nil if
// none failed.
func worst(errs []error) error {
	for _, code := range []int{exitIncomplete, exitMismatch, exitRefused, exitConfirm, exitFailed} {
		if i := slices.IndexFunc(errs, func(err error) bool { return err != nil && exitStatus(err) == code }); i >= 0 {
			return errs[i]
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
