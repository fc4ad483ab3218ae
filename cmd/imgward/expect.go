package main

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"imgward/imageops"
)

// maxSums bounds a list of digests, in bytes: some 100,000 lines.
const maxSums = 16 << 20

// expectOptions are the options that say which digest a source must have.
func expectOptions() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "expect", Usage: "a digest that the source must have: `ALGORITHM:HEX` (repeatable)"},
		&cli.StringFlag{Name: "expect-file", Usage: "the list `FILE` (SHA256SUMS, SHA512SUMS, B3SUMS) with the digest that the source must have, by its name"},
	}
}

// expectations are the digests that the image at path must have.
func expectations(c *cli.Context, path string) ([]imageops.Sum, error) {
	var want []imageops.Sum
	for _, text := range c.StringSlice("expect") {
		sum, err := imageops.ParseSum(text)
		if err != nil {
			return nil, usagef("expect: %v", err)
		}
		want = append(want, sum)
	}
	name := c.String("expect-file")
	if name == "" {
		return want, nil
	}
	list, err := readBounded(name, maxSums)
	if err != nil {
		return nil, err
	}
	sum, err := imageops.FindSum(list, name, path)
	if err != nil {
		return nil, err
	}
	return append(want, sum), nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(name string, most int64) (b []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, most+1)); err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%q is longer than %d bytes, which it should not be", name, most)
	}
	return b, nil
}

// expected says which digests the source was found to have.
func (u *ui) expected(r imageops.Report) {
	for _, sum := range r.Expected {
		u.result("as expected, the source has %s", sum)
	}
}

// digestKinds are several digests, none of them twice; none is the only one.
func digestKinds(names []string) ([]imageops.DigestKind, error) {
	var kinds []imageops.DigestKind
	for _, name := range names {
		kind, err := digestKind(name)
		if err != nil {
			return nil, err
		}
		if kind == imageops.DigestNone && len(names) > 1 || slices.Contains(kinds, kind) {
			return nil, usagef("digest %q: it stands beside others", name)
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

func digestKind(name string) (imageops.DigestKind, error) {
	for _, k := range []imageops.DigestKind{imageops.BLAKE3, imageops.SHA256, imageops.SHA512, imageops.DigestNone} {
		if k.String() == name {
			return k, nil
		}
	}
	return 0, usagef("digest %q: want none, blake3, sha256 or sha512", name)
}
