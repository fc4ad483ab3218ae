package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/blockio"
)

func (u *ui) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "compare an image with another, with a digest or with a manifest; without any, print its digest",
		ArgsUsage: "IMAGE [OTHER]", HideHelpCommand: true,
		Flags: judged(append(append(expectOptions(), formatOptions()...), readOption(),
			&cli.StringSliceFlag{Name: "digest", Value: cli.NewStringSlice("blake3"), Usage: "which digest to print: `blake3|sha256|sha512` (repeatable)"},
			&cli.StringFlag{Name: "manifest", Usage: "compare with the manifest `FILE`, and say where it differs"},
			&cli.BoolFlag{Name: "no-extents", Usage: "read the image's holes too: for file systems that tell holes where data is"},
		)...),
		Action: func(c *cli.Context) error {
			o, err := verifyOptions(c)
			if err != nil {
				return err
			}
			if c.NArg() < 1 || c.NArg() > 2 || (c.NArg() == 2 || c.IsSet("manifest")) && len(o.Expect) > 0 || c.NArg() == 2 && c.IsSet("manifest") {
				return usagef("verify needs an image, and another image, --expect or --manifest")
			}
			if c.IsSet("digest") && (c.NArg() == 2 || c.IsSet("manifest") || len(o.Expect) > 0) {
				return usagef("no digest is printed where an image is compared: leave out --digest, or what it is compared with")
			}
			s, err := u.open(c, guard.Read)
			if err != nil {
				return err
			}
			defer s.close()
			image, err := s.input(c, c.Args().First(), true)
			if err != nil {
				return err
			}
			defer image.Close()
			if c.NArg() == 2 {
				return s.compare(c.Context, image, c.Args().Get(1))
			}
			if name := c.String("manifest"); name != "" {
				return s.verifyManifest(c.Context, image, name, o)
			}
			return s.digest(c.Context, image, o)
		},
	}
}

// verifyOptions are what a digest is to be computed and compared with. Where
// something is expected, nothing else is computed.
func verifyOptions(c *cli.Context) (o imageops.Options, err error) {
	kinds, err := digestKinds(c.StringSlice("digest"))
	if err != nil {
		return o, err
	}
	o.Digest, o.Also = kinds[0], kinds[1:]
	if o.Digest == imageops.DigestNone {
		return o, usagef("verify needs a digest: blake3, sha256 or sha512")
	}
	if o.Expect, err = expectations(c, c.Args().First()); err != nil {
		return o, err
	}
	if len(o.Expect) > 0 {
		o.Digest, o.Also = imageops.DigestNone, nil
	}
	if c.Bool("no-extents") {
		o.Extents = imageops.ExtentsIgnored
	}
	return o, nil
}

func (s *session) digest(ctx context.Context, image *input, o imageops.Options) error {
	o.Log, o.Progress = s.host.Log, s.progress()
	r, err := imageops.Digest(ctx, image.from, o)
	if err == nil {
		err = image.Changed(ctx)
	}
	if err != nil {
		return err
	}
	sums := append([]imageops.Sum{}, r.Expected...)
	if len(sums) == 0 {
		sums = append([]imageops.Sum{{Kind: r.DigestKind, Bytes: r.Digest}}, r.Also...)
	}
	for _, sum := range sums {
		s.result("%s  %s", sum, printable(image.path))
		s.object(outcomeJSON{Command: "verify", Source: image.path, Size: max(image.from.Size(), r.Read), Read: r.Read, Digest: sum.String(), Seconds: fmt.Sprintf("%.3f", r.Elapsed.Seconds())})
	}
	return nil
}

func (s *session) compare(ctx context.Context, image *input, path string) (err error) {
	other, err := s.source(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	b, err := blockio.NewFile(other.File)
	if err != nil {
		return err
	}
	a := image.from
	if image.stream() {
		return usagef("%s is read in order, and cannot be compared: compare its digest", printable(image.path))
	}
	r, err := imageops.Compare(ctx, a, b, imageops.Options{Log: s.host.Log, Progress: s.progress()})
	if err == nil {
		err = errors.Join(image.Changed(ctx), other.Changed(ctx))
	}
	if err != nil {
		return err
	}
	s.result("%s and %s are equal: %s", printable(image.path), printable(path), guard.Bytes(a.Size()))
	s.object(outcomeJSON{Command: "verify", Source: image.path, Target: path, Size: a.Size(), Read: r.Read, Verified: r.Verified, Seconds: fmt.Sprintf("%.3f", r.Elapsed.Seconds())})
	return nil
}
