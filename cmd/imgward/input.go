package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/blockio"
	"imgward/imageops/format"
	"imgward/imageops/probe"
)

// An input is the image that the bytes come from: a file or device that was
// examined, as its raw bytes or as what is in it, or standard input.
type input struct {
	path    string // "-" is standard input
	kind    format.Kind
	from    imageops.Source
	file    *blockio.File   // nil for standard input
	source  *guard.Source   // nil for standard input
	parents []*guard.Source // that the image was derived from
	closers []io.Closer
	looking sync.Mutex // held while it is looked at again
	past    bool       // it was told that it is read past the page cache
	warm    bool       // it is read through the page cache
	leaves  bool       // what that brings there is taken out again, where it does not go by itself
}

// readOption says how the source is read.
func readOption() cli.Flag {
	return &cli.StringFlag{Name: "read", Value: "auto", Usage: "read the source `auto|direct|cache`: past the page cache, or through it; by itself the latter where most of it is there"}
}

// formatOptions are the options about what an image is.
func formatOptions() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "format", Usage: "read the image as `raw|gzip|zstd|xz|bzip2|qcow2|vhd`; known by itself where its name and its first bytes agree"},
		&cli.StringSliceFlag{Name: "backing", Usage: "the image at `PATH` is what the image was derived from (repeatable, down the chain)"},
	}
}

// input opens the image to read from. Without raw its format is found out.
func (s *session) input(c *cli.Context, path string, raw bool) (in *input, err error) {
	told := c.String("format")
	if _, ok := format.Parse(told); told != "" && !ok {
		return nil, usagef("format %q: want raw, gzip, zstd, xz, bzip2, qcow2 or vhd", told)
	}
	if raw && told == "" {
		told = format.Raw.String()
	}
	in = &input{path: path}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	if path == "-" {
		return in, s.standardInput(c.Context, in, told, c.StringSlice("backing"))
	}
	if in.source, err = s.source(c.Context, path); err != nil {
		return in, err
	}
	if in.file, err = blockio.NewFile(in.source.File); err != nil {
		return in, err
	}
	if err := in.choose(c.String("read")); err != nil {
		return in, err
	}
	looks, err := format.Guess(in.file, in.file.Size())
	if err != nil {
		return in, err
	}
	if in.kind, err = chooseFormat(path, told, looks); err != nil {
		return in, err
	}
	return in, s.interpret(c.Context, in, told != "", c.StringSlice("backing"))
}

// choose decides whether the file is read past the page cache, or through it because
// most of it is there: memory is faster than the disk then, and direct I/O would not
// use it. A device is not: what is written to its partitions, or to it from elsewhere,
// does not reach its own cache.
func (in *input) choose(told string) error {
	switch told {
	case "direct":
		in.past = true
		return nil
	case "cache":
		return in.cached(false)
	case "", "auto":
	default:
		return usagef("read %q: want auto, direct or cache", told)
	}
	if in.source.Target.ID.Kind != guard.KindFile {
		return nil
	}
	n, err := in.file.Cached()
	if err != nil || n < in.file.Size()/2 || n == 0 {
		return nil // a kernel that does not tell is no reason to stop
	}
	return in.cached(false)
}

// cached has the file read through the page cache, which is left as it was found if
// leave is set.
func (in *input) cached(leave bool) error {
	in.warm, in.leaves = true, leave
	return fresh(in.source, in.file)
}

// fresh has an image read through the page cache, and a device without what is there
// already, which may be old.
func fresh(src *guard.Source, file *blockio.File) error {
	if src.Target.ID.Kind != guard.KindFile {
		if err := file.Uncache(0, file.Size()); err != nil {
			return err
		}
	}
	return file.SetDirect(false)
}

// chooseFormat decides how an image is read: as told, or as its name and its bytes
// both say. The bytes alone are no witness: a guest can write them to a raw disk.
func chooseFormat(path, told string, looks format.Kind) (format.Kind, error) {
	if kind, ok := format.Parse(told); ok {
		if kind != format.Raw && kind != looks {
			return 0, fmt.Errorf("%s does not look like %v", printable(path), kind)
		}
		return kind, nil
	}
	asRaw := "to copy its bytes as they are, add: --format raw"
	switch named := format.ByName(path); {
	case looks == named && looks != format.Other:
		return looks, nil
	case looks == format.Other, looks == format.Raw && named == format.Other:
		return format.Raw, nil
	case looks == format.Raw:
		return 0, &hintedError{fmt.Errorf("%s is named like %v and does not look like it", printable(path), named), []string{asRaw}}
	}
	e := fmt.Errorf("%s looks like %v, which its name does not say; a guest can write that to its raw disk", printable(path), looks)
	return 0, &hintedError{e, []string{fmt.Sprintf("to read it as what it looks like, add: --format %v", looks), asRaw}}
}

// interpret makes the source of an open file.
func (s *session) interpret(ctx context.Context, in *input, told bool, backing []string) error {
	if len(backing) > 0 && !in.kind.Container() {
		return usagef("%s is read as %v, which has no backing image", printable(in.path), in.kind)
	}
	if !in.kind.Container() { // which is read back and forth, in parts of pages
		in.file.LeaveCache()
	}
	if in.kind == format.Raw {
		in.from = in.file
		return nil
	}
	if in.past {
		return usagef("%s is read as %v, in small and odd pieces, which goes through the page cache: leave out --read direct", printable(in.path), in.kind)
	}
	// What is read in small or odd pieces is better read ahead by the kernel.
	if err := in.cached(!in.warm); err != nil {
		return err
	}
	if in.kind.Compressed() {
		if err := in.decompress(io.NewSectionReader(in.file, 0, in.file.Size()), told); err != nil {
			return err
		}
		s.remark("%s is read as %v", printable(in.path), in.kind)
		return nil
	}
	chain, err := s.chain(ctx, in, backing)
	if err != nil {
		return err
	}
	in.from = chain
	over := ""
	for _, path := range backing {
		over += " over " + printable(path)
	}
	s.remark("%s is read as %v: a disk of %s%s", printable(in.path), in.kind, guard.Bytes(chain.Size()), over)
	return nil
}

// decompress makes the source of what r gives. A container in it is not raw, and
// cannot be read in order.
func (in *input) decompress(r io.Reader, told bool) error {
	d, err := format.Decompress(in.kind, r)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", printable(in.path), err)
	}
	in.closers = append(in.closers, d)
	if told {
		in.from = imageops.NewStream(d, in.path)
		return nil
	}
	head := make([]byte, 512)
	n, err := io.ReadFull(d, head)
	if err != nil && err != io.EOF && (err != io.ErrUnexpectedEOF || n == 0) {
		return fmt.Errorf("decompress %s: %w", printable(in.path), err)
	}
	inside, guessErr := format.Guess(strings.NewReader(string(head[:n])), -1)
	inName := format.ByName(strings.TrimSuffix(in.path, filepath.Ext(in.path)))
	if guessErr != nil || inside != format.Raw || inName != format.Raw {
		return &hintedError{
			fmt.Errorf("what is in %s is another image, which cannot be read in order: decompress it first", printable(in.path)),
			[]string{fmt.Sprintf("to take its bytes as they are, add: --format %v", in.kind)},
		}
	}
	in.from = imageops.NewStream(io.MultiReader(strings.NewReader(string(head[:n])), d), in.path)
	return nil
}

// chain opens the images that in was derived from, each as the one above it says,
// and joins them. The paths are the operator's alone.
func (s *session) chain(ctx context.Context, in *input, backing []string) (*format.Chain, error) {
	layers := []format.Layer{{Kind: in.kind, File: in.file, Size: in.file.Size(), Name: in.path}}
	for _, path := range backing {
		above := layers[len(layers)-1]
		kind, err := parentKind(above)
		if err != nil {
			return nil, err
		}
		src, err := s.source(ctx, path)
		if err != nil {
			return nil, err
		}
		in.parents = append(in.parents, src)
		file, err := blockio.NewFile(src.File)
		if err != nil {
			return nil, err
		}
		if kind == nil {
			looks, err := format.Guess(file, file.Size())
			if err != nil {
				return nil, err
			}
			k, err := chooseFormat(path, "", looks)
			if err != nil {
				return nil, fmt.Errorf("%s does not say what its backing image is: %w", printable(above.Name), err)
			}
			kind = &k
		}
		if err := fresh(src, file); err != nil {
			return nil, err
		}
		layers = append(layers, format.Layer{Kind: *kind, File: file, Size: file.Size(), Name: path})
	}
	chain, err := format.Open(layers...)
	if errors.Is(err, format.ErrNeedsParent) {
		return nil, needsBacking(err, layers[len(layers)-1])
	}
	return chain, err
}

// parentKind is how an image says that its parent is to be read; nil if it does
// not. Who wrote its header knew.
func parentKind(l format.Layer) (*format.Kind, error) {
	refs, err := probe.References(l.File, l.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(l.Name), err)
	}
	for _, r := range refs {
		kind, ok := map[string]format.Kind{"raw": format.Raw, "qcow2": format.QCOW2, "vpc": format.VHD, "vhd": format.VHD}[r.Format]
		switch {
		case r.Format == "" || r.Kind != "backing" && r.Kind != "parent":
		case !ok:
			return nil, fmt.Errorf("%s says that its backing image is %q, which cannot be read", printable(l.Name), r.Format)
		default:
			return &kind, nil
		}
	}
	return nil, nil
}

// needsBacking says which image is missing, as far as the one above it names it.
func needsBacking(err error, l format.Layer) error {
	refs, refErr := probe.References(l.File, l.Size)
	if refErr != nil || len(refs) == 0 {
		return err
	}
	name := refs[0].Name
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(l.Name), name)
	}
	hint := "name it with --backing PATH"
	if plainWord(name) {
		hint = "if that is the right one, add: --backing " + name
	}
	return &hintedError{fmt.Errorf("%w; it names %q", err, refs[0].Name), []string{hint}}
}

// plainWord reports whether a shell takes s for one word as it is, and no option.
func plainWord(s string) bool {
	return s != "" && s[0] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:,@%") == ""
}

// target is the image as the guard knows it; nil for standard input.
func (in *input) target() *guard.Target {
	if in.source == nil {
		return nil
	}
	return in.source.Target
}

// how says how the image is read.
func (in *input) how() string {
	switch {
	case in.file == nil:
		return "from a pipe"
	case in.file.Direct():
		return "directly"
	}
	return "through the page cache"
}

// stream reports whether the size is not known.
func (in *input) stream() bool { return in.from.Size() < 0 }

// size is the size of what is read, in words.
func (in *input) size() string {
	if in.stream() {
		return "size not known"
	}
	return guard.Bytes(in.from.Size())
}

// Changed is guard.Source.Changed of all that was read.
func (in *input) Changed(ctx context.Context) error {
	if in.source == nil {
		return nil
	}
	in.looking.Lock()
	defer in.looking.Unlock()
	err := in.source.Changed(ctx)
	for _, p := range in.parents {
		err = errors.Join(err, p.Changed(ctx))
	}
	return err
}

func (in *input) Close() error {
	var err error
	for _, c := range in.closers {
		err = errors.Join(err, c.Close())
	}
	for _, p := range in.parents {
		err = errors.Join(err, p.Close())
	}
	if in.leaves && !in.file.LeavesCache() {
		err = errors.Join(err, in.file.Uncache(0, in.file.Size()))
	}
	if in.source != nil {
		err = errors.Join(err, in.source.Close())
	}
	return err
}
