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
	list, err := readList(name)
	if err != nil {
		return nil, err
	}
	sum, err := imageops.FindSum(list, name, path)
	if err != nil {
		return nil, err
	}
	return append(want, sum), nil
}

func readList(name string) (list []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if list, err = io.ReadAll(io.LimitReader(f, maxSums+1)); err != nil {
		return nil, err
	}
	if len(list) > maxSums {
		return nil, fmt.Errorf("%q is longer than %d bytes, which is no list of digests", name, maxSums)
	}
	return list, nil
}

// expected says which digests the source was found to have.
func (u *ui) expected(r imageops.Report) {
	for _, sum := range r.Expected {
		u.result("as expected, the source has %s", sum)
	}
}
