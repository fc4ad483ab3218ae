package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/blockio"
)

func (u *ui) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "compare an image with another, or with a digest; without either, print its digest",
		ArgsUsage: "IMAGE [OTHER]", HideHelpCommand: true,
		Flags: judged(
			&cli.StringFlag{Name: "digest", Value: "blake3", Usage: "which digest to print: `blake3|sha256|sha512`"},
			&cli.StringFlag{Name: "expect", Usage: "the digest that it must have: `ALGORITHM:HEX`"},
		),
		Action: func(c *cli.Context) error {
			want, err := parseExpect(c.String("expect"), c.String("digest"))
			if err != nil {
				return err
			}
			if c.NArg() < 1 || c.NArg() > 2 || c.NArg() == 2 && want.sum != nil {
				return usagef("verify needs an image, and another image or --expect")
			}
			s, err := u.open(c, guard.Read)
			if err != nil {
				return err
			}
			defer s.close()
			image, err := s.source(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			defer image.Close()
			if c.NArg() == 2 {
				return s.compare(c.Context, image, c.Args().Get(1))
			}
			return s.digest(c.Context, image, want)
		},
	}
}

type expectation struct {
	kind imageops.DigestKind
	sum  []byte // nil: only print
}

func parseExpect(expect, digest string) (expectation, error) {
	name, text, ok := strings.Cut(expect, ":")
	if expect == "" {
		name = digest
	} else if !ok {
		return expectation{}, usagef("expect %q: want ALGORITHM:HEX", expect)
	}
	kind, err := digestKind(name)
	if err != nil {
		return expectation{}, err
	}
	if kind == imageops.DigestNone {
		return expectation{}, usagef("verify needs a digest: blake3, sha256 or sha512")
	}
	if expect == "" {
		return expectation{kind: kind}, nil
	}
	sum, err := hex.DecodeString(text)
	if size := map[imageops.DigestKind]int{imageops.BLAKE3: 32, imageops.SHA256: 32, imageops.SHA512: 64}[kind]; err != nil || len(sum) != size {
		return expectation{}, usagef("expect %q: a %s digest is %d hexadecimal digits", expect, kind, 2*size)
	}
	return expectation{kind, sum}, nil
}

func (s *session) digest(ctx context.Context, image *guard.Source, want expectation) error {
	f, err := blockio.NewFile(image.File)
	if err != nil {
		return err
	}
	r, err := imageops.Digest(ctx, f, imageops.Options{Digest: want.kind, Log: s.host.Log, Progress: s.progress()})
	if err == nil {
		err = image.Changed(ctx)
	}
	if err != nil {
		return err
	}
	got := want.kind.String() + ":" + hex.EncodeToString(r.Digest)
	if want.sum != nil && !bytes.Equal(want.sum, r.Digest) {
		return &digestError{fmt.Sprintf("%s has digest %s, not %s:%s", printable(image.Target.Path), got, want.kind, hex.EncodeToString(want.sum))}
	}
	s.result("%s  %s", got, printable(image.Target.Path))
	s.object(outcomeJSON{Command: "verify", Source: image.Target.Path, Size: f.Size(), Read: r.Read, Digest: got, Seconds: fmt.Sprintf("%.3f", r.Elapsed.Seconds())})
	return nil
}

// A digestError says that an image does not have the digest that it should.
type digestError struct{ text string }

func (e *digestError) Error() string { return e.text }

func (s *session) compare(ctx context.Context, image *guard.Source, path string) (err error) {
	other, err := s.source(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	a, b, err := endpoints(image, other.File)
	if err != nil {
		return err
	}
	r, err := imageops.Compare(ctx, a, b, imageops.Options{Log: s.host.Log, Progress: s.progress()})
	if err == nil {
		err = errors.Join(image.Changed(ctx), other.Changed(ctx))
	}
	if err != nil {
		return err
	}
	s.result("%s and %s are equal: %s", printable(image.Target.Path), printable(path), guard.Bytes(a.Size()))
	s.object(outcomeJSON{Command: "verify", Source: image.Target.Path, Target: path, Size: a.Size(), Read: r.Read, Verified: r.Verified, Seconds: fmt.Sprintf("%.3f", r.Elapsed.Seconds())})
	return nil
}
