package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"imgward/imageops"
	"imgward/imageops/format"
)

// standardInput makes in what comes through standard input: a pipe, whose format
// nobody but the operator can tell.
func (s *session) standardInput(ctx context.Context, in *input, told string, backing []string) error {
	if len(backing) > 0 {
		return usagef("standard input is read in order and has no backing image")
	}
	r := &pipe{ctx: ctx, r: s.con.in}
	if f, ok := s.con.in.(*os.File); ok {
		if err := r.examine(f); err != nil {
			return err
		}
	}
	buffered := bufio.NewReaderSize(r, 1<<20)
	in.kind, _ = format.Parse(told)
	switch {
	case in.kind.Container():
		return usagef("%v cannot be read in order from standard input", in.kind)
	case told == "":
		head, err := buffered.Peek(512)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read standard input: %w", err)
		}
		if looks := formatOf(head); looks != format.Raw && looks != format.Other {
			hints := []string{"to take its bytes as they are, add: --format raw"}
			if looks.Compressed() {
				hints = append([]string{fmt.Sprintf("to read it as what it looks like, add: --format %v", looks)}, hints...)
			}
			return &hintedError{fmt.Errorf("standard input looks like %v", looks), hints}
		}
	}
	if in.kind == format.Raw {
		in.from = imageops.NewStream(buffered, "standard input")
	} else if err := in.decompress(buffered, true); err != nil {
		return err
	}
	in.from = &pipeStream{in.from.(*imageops.Stream), r}
	return nil
}

// formatOf is what the beginning of a stream looks like.
func formatOf(head []byte) format.Kind {
	kind, err := format.Guess(readerAt(head), -1)
	if err != nil {
		return format.Raw // memory does not fail
	}
	return kind
}

// readerAt is bytes in memory.
type readerAt []byte

func (b readerAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b[min(off, int64(len(b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// pipeStream is the stream of a pipe: when it is stopped, nobody waits for the
// program at the pipe's other end any more.
type pipeStream struct {
	*imageops.Stream
	pipe *pipe
}

func (p *pipeStream) Stop(why error) {
	p.pipe.stopped.Store(true)
	p.Stream.Stop(why)
}

// pipe reads from a descriptor and can be stopped.
type pipe struct {
	ctx     context.Context // when it ends, so does reading
	r       io.Reader
	file    *os.File // nil: r cannot be waited for
	stopped atomic.Bool
}

// errStopped is the answer of a pipe that was stopped.
var errStopped = errors.New("reading was stopped")

// examine refuses what is better named: a file or device could be in use, or be the
// target, and nobody would look.
func (p *pipe) examine(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	switch mode := st.Mode(); {
	case mode.IsRegular(), mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		return usagef("standard input is a file or device: name it instead of \"-\", so that it can be examined")
	case term.IsTerminal(int(f.Fd())):
		return usagef("standard input is a terminal")
	}
	p.file = f
	return nil
}

// patience is how long one wait for the pipe takes, in milliseconds, until it is
// asked again whether to stop.
const patience = 100

func (p *pipe) Read(b []byte) (int, error) {
	for !p.stopped.Load() && p.ctx.Err() == nil {
		if p.file == nil {
			return p.r.Read(b)
		}
		fds := []unix.PollFd{{Fd: int32(p.file.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, patience)
		switch {
		case err != nil && err != unix.EINTR:
			return 0, err
		case err == nil && n > 0:
			return p.file.Read(b)
		}
	}
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	return 0, errStopped
}
