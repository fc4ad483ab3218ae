package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/blockio"
	"imgward/imageops/format"
)

// A transfer is what copy, clone and overwrite have in common: a source, a
// target, and how the bytes go.
type transfer struct {
	*session
	options  imageops.Options
	tokens   []string // of --confirm
	resize   bool
	alike    bool   // a target that nearly equals the source is overwritten with Delta
	writing  string // of --write
	reflink  bool
	grow     bool
	newIDs   string           // disk or all; empty: none
	manifest string           // where it is written; empty: nowhere
	stated   bool             // the format of the source was
	fan      *imageops.Fanout // nil: there is one target
	ready    func()           // called before it is joined
	own      *notes           // of one of several targets
}

// guard makes the guard of a target.
func (t *transfer) guard(op guard.Operation, source *guard.Target) *guard.Guard {
	g := t.session.guard(op, source)
	if t.own != nil {
		g.Notice = func(f guard.Finding) { t.note(t.own, f) }
	}
	return g
}

// about begins what is said of one of several targets.
func (t *transfer) about() string {
	if t.own == nil {
		return ""
	}
	return t.own.about
}

// told gives what was told beside the work on the target.
func (t *transfer) told() []findingJSON {
	if t.own == nil {
		return t.noted.all()
	}
	return append(t.noted.all(), t.own.all()...)
}

// bytesOptions are the options about the bytes.
func bytesOptions(more ...cli.Flag) []cli.Flag {
	return targeted(append(slices.Concat(expectOptions(), formatOptions(), mannersOptions(), wayOptions(), []cli.Flag{
		&cli.StringSliceFlag{Name: "digest", Value: cli.NewStringSlice("blake3"), Usage: "checksum of the source: `none|blake3|sha256|sha512` (repeatable)"},
		&cli.StringFlag{Name: "manifest", Usage: "write a digest of each piece of the source to the new `FILE`, for verify"},
		&cli.BoolFlag{Name: "no-verify", Usage: "do not read the target back"},
		&cli.BoolFlag{Name: "no-extents", Usage: "read the source's holes too: for file systems that tell holes where data is"},
		&cli.StringFlag{Name: "sparse", Value: "keep", Usage: "zeros: `keep|detect|off`: holes of the source, runs of zeros too (what is not raw), or none"},
	}), more...)...)
}

// targetOptions are the options about a target that may exist already.
func targetOptions(more ...cli.Flag) []cli.Flag {
	return bytesOptions(append(append(tableOptions(),
		&cli.StringSliceFlag{Name: "confirm", Usage: "the `TOKEN` of what is on the target now, which may be replaced (repeatable, for several targets)"},
		&cli.BoolFlag{Name: "no-claim", Usage: "do not have Xen refuse a device to every domain while it is written"},
		&cli.BoolFlag{Name: "resize", Usage: "give a target file the size of the source"},
	), more...)...)
}

// transfer reads the options of a command with a source and a target.
func (u *ui) transfer(c *cli.Context, op guard.Operation) (*transfer, error) {
	if c.NArg() < 2 || c.NArg() > 2 && op != guard.Clone {
		return nil, usagef("%s needs a source and a target, and got %d operands", c.Command.Name, c.NArg())
	}
	u.writes = true
	kinds, err := digestKinds(c.StringSlice("digest"))
	if err != nil {
		return nil, err
	}
	sparse, err := sparseMode(c.String("sparse"))
	if err != nil {
		return nil, err
	}
	expect, err := expectations(c, c.Args().First())
	if err != nil {
		return nil, err
	}
	extents := imageops.ExtentsAsked
	if c.Bool("no-extents") {
		extents = imageops.ExtentsIgnored
	}
	manifest := c.String("manifest")
	if manifest != "" {
		if err := freeName(manifest); err != nil {
			return nil, err
		}
	}
	chunk, depth, err := requests(c)
	if err == nil {
		err = writing(c.String("write"))
	}
	if err != nil {
		return nil, err
	}
	rate, err := manners(c)
	if err != nil {
		return nil, err
	}
	t := &transfer{
		tokens: c.StringSlice("confirm"), stated: c.IsSet("format"), manifest: manifest, resize: c.Bool("resize"),
		alike: !c.IsSet("delta"), writing: c.String("write"),
		options: imageops.Options{
			ChunkSize: chunk, QueueDepth: depth, Digest: kinds[0], Also: kinds[1:], Expect: expect, Verify: !c.Bool("no-verify"), Sparse: sparse, Extents: extents, Rate: rate, Manifest: manifest != "",
			Progress: u.progress(),
		},
	}
	if err := t.fit(c); err != nil {
		return nil, err
	}
	if t.session, err = u.open(c, op); err != nil {
		return nil, err
	}
	t.noClaim, t.options.Log = c.Bool("no-claim"), t.host.Log
	return t, nil
}

func sparseMode(name string) (imageops.SparseMode, error) {
	m, ok := map[string]imageops.SparseMode{"keep": imageops.SparseKeep, "detect": imageops.SparseDetect, "off": imageops.SparseOff}[name]
	if !ok {
		return 0, usagef("sparse %q: want keep, detect or off", name)
	}
	return m, nil
}

// open opens the source. What is not raw has no holes that are worth keeping unless
// zeros are looked for, and cannot be shared; its file, as it lies, must have the
// expected digests, not what is in it.
func (t *transfer) open(c *cli.Context) (*input, error) {
	in, err := t.input(c, c.Args().First(), false)
	if refused := (*guard.RefusedError)(nil); errors.As(err, &refused) {
		if also := t.refusesTarget(c.Context, c.Args().Slice()[1:]); also != nil {
			err = also
		}
	}
	if err != nil || in.kind == format.Raw && !in.stream() {
		return in, err
	}
	if !c.IsSet("sparse") {
		t.options.Sparse = imageops.SparseDetect
	}
	t.reflink = false
	if t.resize && in.stream() {
		err = usagef("the size of %s is not known before it was read: --resize needs another source", printable(in.path))
	}
	if err == nil && in.kind != format.Raw && len(t.options.Expect) > 0 {
		err = t.expectFile(c.Context, in)
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// refusesTarget is the refusal of an existing target, where there is one. Of a
// command whose source is refused, too, that is what has to be known first: who
// overrides what stands in the way of the source must have seen it.
func (t *transfer) refusesTarget(ctx context.Context, dsts []string) error {
	for _, dst := range dsts {
		target, v, err := t.guard(t.policy.Operation, nil).Check(ctx, dst)
		if err != nil {
			continue // the source's refusal stands
		}
		if refusal := v.Err(); target.Exists() && refusal != nil {
			return errors.Join(refusal, target.Close())
		}
		if err := target.Close(); err != nil {
			return err
		}
	}
	return nil
}

// expectFile compares the file that an image lies in with the expected digests,
// before anything else is done with it.
func (t *transfer) expectFile(ctx context.Context, in *input) error {
	if in.file == nil {
		return usagef("what comes through standard input is checked only as raw bytes: decompress it in the pipe")
	}
	r, err := imageops.Digest(ctx, in.file, imageops.Options{Digest: imageops.DigestNone, Expect: t.options.Expect, Progress: t.options.Progress})
	if err != nil {
		return err
	}
	t.options.Expect = nil
	t.expected(r)
	return nil
}

// asIs refuses a new file that is named as if it were to be in the source's format.
func asIs(in *input, told bool, dst string) error {
	if told || in.kind == format.Raw || format.ByName(dst) != in.kind {
		return nil
	}
	return &hintedError{
		fmt.Errorf("%s is read as %v, and %s would get its contents as they are on a disk", printable(in.path), in.kind, printable(dst)),
		[]string{"to copy the file as it is, add: --format raw", fmt.Sprintf("to write the contents, add: --format %v", in.kind)},
	}
}

// bytes copies the source to a target, alone or together with the other targets.
func (t *transfer) bytes(ctx context.Context, o *outcome, to *blockio.File, in *input) (err error) {
	if err := t.way(to); err != nil {
		return err
	}
	written := "through the page cache"
	if to.Direct() {
		written = "directly"
	}
	o.how = fmt.Sprintf("read %s, written %s", in.how(), written)
	if o.fitting, err = t.fitting(in, to.Size(), to.Sector()); err != nil {
		return err
	}
	dst := o.fitting.dest(to)
	if t.fan != nil {
		o.joined = true
		t.ready()
		o.report, err = t.fan.Join(ctx, dst, o.created)
		return err
	}
	options := t.options
	options.Fresh, options.HoldBack = o.created, !o.created
	options.Delta = t.options.Delta || t.alike && !o.created && options.Sparse != imageops.SparseOff && imageops.Alike(to, in.from)
	o.delta = options.Delta
	o.report, err = imageops.Copy(ctx, dst, in.from, options)
	return err
}

// create makes a new file of the source.
func (t *transfer) create(ctx context.Context, in *input, dst string) (*outcome, error) {
	o := &outcome{source: in.path, target: dst, created: true}
	if t.grow {
		return o, usagef("a new file has the size of the source: for --grow make %s larger before, with \"truncate -s SIZE\"", printable(dst))
	}
	if _, err := t.fitting(in, in.from.Size(), 0); err != nil {
		return o, err
	}
	err := t.guard(guard.Create, in.target()).Create(ctx, dst, func(ctx context.Context, f *os.File) error {
		to, err := blockio.NewFile(f)
		if err != nil {
			return err
		}
		if t.reflink {
			if done, err := t.share(o, to, in); done || err != nil {
				return errors.Join(err, in.Changed(ctx))
			}
		}
		if !in.stream() {
			if err := to.Truncate(in.from.Size()); err != nil {
				return err
			}
		}
		if err := t.bytes(ctx, o, to, in); err != nil {
			return err
		}
		return in.Changed(ctx)
	})
	return o, err
}

// replace puts the source in the place of what is in an existing target.
func (t *transfer) replace(ctx context.Context, in *input, dst string, op guard.Operation) (*outcome, error) {
	o := &outcome{source: in.path, target: dst}
	g := t.guard(op, in.target())
	target, v, err := g.Check(ctx, dst)
	if err != nil {
		return o, err
	}
	defer target.Close()
	if err := v.Err(); err != nil {
		return o, err
	}
	if !target.Exists() {
		return o, &hintedError{fmt.Errorf("open %s: %w", printable(dst), fs.ErrNotExist), []string{"to make a new file, use \"imgward copy\""}}
	}
	size := in.from.Size()
	if err := t.fits(size, target); err != nil {
		return o, err
	}
	tooShort := func(size int64) error {
		return &hintedError{
			fmt.Errorf("%s is incomplete, and the source is too short to make it whole: it has %d bytes of %d", target, size, target.Size),
			[]string{"to have zeros behind the source, add: --tail zero"},
		}
	}
	if !in.stream() && size < target.Size && !t.resize && !t.options.ZeroTail && v.Incomplete() {
		return o, tooShort(size)
	}
	if _, err := t.fitting(in, target.Size, 0); err != nil {
		return o, err
	}
	for _, f := range v.Overridden {
		t.remark("overridden for %s: %s", printable(dst), printable(f.Subject+" "+f.Detail))
	}
	tokens, err := t.confirm(ctx, g, target, v, t.tokens, fmt.Sprintf("%s (%s)", printable(in.path), in.size()))
	if err != nil {
		return o, err
	}
	if t.fan == nil {
		defer t.unsuspended()()
	}
	err = g.Write(ctx, dst, func(ctx context.Context, p *guard.Permit) error {
		if err := confirmed(p, tokens); err != nil {
			return err
		}
		if err := t.fits(size, p.Target()); err != nil {
			return err
		}
		f, err := p.File()
		if err != nil {
			return err
		}
		if !p.Lasting() {
			t.remark("note: %sthis target has no lasting name, so after a reboot nothing would tell that it is incomplete", t.about())
		}
		touched, err := t.fill(ctx, o, f, in)
		if !touched {
			p.Untouched()
		}
		if err == nil && in.stream() && o.report.Tail > 0 && !t.options.ZeroTail && v.Incomplete() {
			return tooShort(target.Size - o.report.Tail)
		}
		return err
	})
	return o, o.stopped(err, dst)
}

// fits checks the sizes before anything is written.
func (t *transfer) fits(size int64, target *guard.Target) error {
	if t.resize && target.ID.Kind != guard.KindFile {
		return fmt.Errorf("%s is a device and cannot be resized", target)
	}
	if size > target.Size && !t.resize {
		e := fmt.Errorf("the source has %d bytes, and %s has only %d", size, target, target.Size)
		if target.ID.Kind == guard.KindFile {
			return &hintedError{e, []string{"to make the file larger, add: --resize"}}
		}
		return e
	}
	return nil
}

// fill writes the source to the descriptor of an existing target, and tells
// whether anything reached it.
func (t *transfer) fill(ctx context.Context, o *outcome, f *os.File, in *input) (touched bool, err error) {
	to, err := blockio.NewFile(f)
	if err != nil {
		return false, err
	}
	// What follows does not ask the context itself.
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	size := in.from.Size()
	if t.resize && to.Size() < size {
		if err := to.Truncate(size); err != nil {
			return true, err
		}
		touched = true
	}
	// What is to differ in an existing target is held back, which shared blocks are not.
	if t.reflink && !t.fitted() && !t.options.ZeroTail {
		if done, err := t.share(o, to, in); done || err != nil {
			return true, errors.Join(err, t.shrink(ctx, o, to, size), in.Changed(ctx))
		}
	}
	err = t.bytes(ctx, o, to, in)
	touched = touched || o.report.Touched
	if err != nil {
		return touched, err
	}
	return touched, errors.Join(t.shrink(ctx, o, to, size), in.Changed(ctx))
}

// shrink cuts off what is behind the end of the source, if that was asked for.
func (t *transfer) shrink(ctx context.Context, o *outcome, to *blockio.File, size int64) error {
	if !t.resize || to.Size() <= size {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.report.Tail = 0
	return errors.Join(to.Truncate(size), to.Sync())
}

// A hintedError carries advice.
type hintedError struct {
	error
	advice []string
}

func (e *hintedError) Unwrap() error { return e.error }
