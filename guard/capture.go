package guard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgward/guard/hostfs"
)

// A Question is what a captured host is asked, a line of its comment:
//
//	question: overwrite /srv/images/web1.img
type Question struct {
	Operation Operation // Overwrite, Create or Read
	Path      string
}

// verbs are the operations that a question can be about.
var verbs = []struct {
	word string
	op   Operation
}{{"overwrite", Overwrite}, {"create", Create}, {"read", Read}}

// String is the question without its head. Its path is quoted as a Go string if
// it would not be read as itself.
func (q Question) String() string {
	path := q.Path
	if unquoted, err := strconv.Unquote(path); err == nil && unquoted != path || path != strings.TrimSpace(path) || strings.IndexFunc(path, control) >= 0 {
		path = strconv.Quote(path)
	}
	for _, v := range verbs {
		if v.op == q.Operation {
			return v.word + " " + path
		}
	}
	return "overwrite " + path
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// Questions gives the questions in the comment of a capture.
func Questions(root *hostfs.Root) ([]Question, error) {
	var out []Question
	for line := range strings.Lines(root.Comment()) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "question: ")
		if !ok {
			continue
		}
		verb, path, _ := strings.Cut(text, " ")
		if unquoted, err := strconv.Unquote(path); err == nil {
			path = unquoted
		}
		i := slices.IndexFunc(verbs, func(v struct {
			word string
			op   Operation
		}) bool {
			return v.word == verb
		})
		if i < 0 || path == "" {
			return nil, fmt.Errorf("malformed question %q", text)
		}
		out = append(out, Question{verbs[i].op, path})
	}
	return out, nil
}

// Check resolves path, looks and judges as [Guard.Check] does, for whom there is no
// Guard that could write.
func (p Policy) Check(ctx context.Context, host *Host, path string) (*Target, Verdict, error) {
	return (&Guard{Host: host, Policy: p}).Check(ctx, path)
}

// verdict judges what a look at t found.
func (p Policy) verdict(t *Target, e Evidence) Verdict {
	judged := p.Operation.on(t.ID.Kind)
	if p.Operation.dd() {
		p.Operation = judged
	}
	v := p.Judge(e.Findings)
	v.Operation, v.Target, v.Looked = judged, t.String(), e.Looked
	return v
}

// Capture looks at the host, as it does to judge each of the paths, and gives all
// that it asked with all the answers: a root that is judged as the host was, with
// a question for each path in its comment. A path that cannot be resolved is
// asked about all the same. The store is not part of it.
//
// Whoever looks decides what is captured, not the patterns that collectors
// declare: what is read depends on what was read before (a link, a header, a line
// of a table), and most patterns match what must not be opened, such as every
// image in a directory. So that other paths can be judged as well, the host is
// also looked at for a file and for a device that nobody uses, and all block
// devices are identified; what is missing then is what the kernel says of the
// thing itself (its lease, its exclusive open, what is in it), which the replay
// reports as not captured.
func Capture(ctx context.Context, host *Host, paths []string) (*hostfs.Root, []Verdict, error) {
	root := hostfs.New()
	view := *host
	view.FS = host.FS.Tee(root)
	if err := survey(ctx, &view); err != nil {
		return nil, nil, err
	}
	var verdicts []Verdict
	comment := ""
	for _, path := range paths {
		q, v, err := asked(ctx, &view, path)
		if err != nil {
			return nil, nil, err
		}
		comment += "question: " + q.String() + "\n"
		verdicts = append(verdicts, v)
	}
	root.SetComment(comment)
	return root, verdicts, nil
}

// asked judges one path. What cannot be resolved yields no verdict, and the
// question still.
func asked(ctx context.Context, host *Host, path string) (Question, Verdict, error) {
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return Question{}, Verdict{}, openError(path, err)
		}
		path = wd + "/" + path
	}
	q := Question{Overwrite, path}
	t, v, err := Policy{Operation: Check}.Check(ctx, host, path)
	if ctx.Err() != nil {
		return q, Verdict{}, context.Cause(ctx)
	}
	if err != nil {
		return q, Verdict{}, nil
	}
	if !t.Exists() {
		q.Operation = Create
	}
	v.Operation = q.Operation
	return q, v, t.Close()
}

// survey looks at all that collectors look at whatever the target is, and at every
// block device.
func survey(ctx context.Context, host *Host) error {
	for _, kind := range []Kind{KindFile, KindBlock} {
		// It lies where there are no files, so that none beside it are read.
		nobody := &Target{Path: "/sys/nobody", Real: "/sys/nobody", Base: "nobody", ID: ID{Kind: kind}, handle: newPin(&hostfs.Handle{Real: "/"})}
		e := Examine(ctx, host, nobody, Collectors())
		if kind == KindBlock {
			identify(ctx, host, e.view.stack)
		}
		if err := nobody.Close(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// identify asks who every block device is, under every name that it usually has.
// The answers are for the record; what cannot be told is in it as well.
func identify(ctx context.Context, host *Host, s *stack) {
	names := []string{}
	for _, d := range s.devices {
		names = append(names, "/dev/"+d.name)
		if d.alias != "" {
			names = append(names, "/dev/mapper/"+d.alias)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		h, err := host.FS.Open(name)
		if err != nil {
			continue
		}
		if h.Stat.Type == hostfs.BlockDevice {
			_, _ = host.FS.Ask(ctx, hostfs.Size, h.Name())
			_, _ = host.FS.Ask(ctx, hostfs.ReadOnly, h.Name())
			_, _ = host.FS.Ask(ctx, hostfs.DMStatus, hostfs.FormatDev(h.Stat.Rdev))
		}
		_ = h.Close()
	}
}

// Answer writes a verdict as captures hold it, in the member "want QUESTION".
func (v Verdict) Answer() string {
	var b strings.Builder
	codes := make([]string, 0)
	for _, c := range v.Codes() {
		codes = append(codes, string(c))
	}
	fmt.Fprintf(&b, "decision: %s\ncodes: %s\n\n", v.Decision, strings.Join(codes, " "))
	_ = v.Explain(&b) // a builder takes everything
	for _, h := range v.Hints() {
		fmt.Fprintf(&b, "hint: %s\n", h)
	}
	return b.String()
}
