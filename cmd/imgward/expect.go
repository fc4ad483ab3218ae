package main

import (
	"fmt"
	"io"
	"os"

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
