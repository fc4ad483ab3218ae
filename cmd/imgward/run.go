package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"imgward/guard"
	"imgward/imageops"
)

// The exit statuses. Each answers first whether anything was written. 2 is never
// used: Go's own panics end with it.
const (
	exitOK         = 0   // done and durable
	exitFailed     = 1   // failed, nothing was written
	exitRefused    = 3   // in use or could not be judged, nothing was written
	exitIncomplete = 4   // failed after writing began
	exitMismatch   = 5   // what was read back or compared is not equal
	exitConfirm    = 6   // confirmation is needed, nothing was written
	exitUsage      = 64  // the command line
	exitInterrupt  = 130 // interrupted, nothing was written
)

// errInterrupted is the cause of every context that a signal ended.
var errInterrupted = errors.New("interrupted")

// A usageError is about the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// A console is what the program speaks through. Tests make their own.
type console struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // a person sits at in and err
	getenv   func(string) string
}

func system() *console {
	return &console{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv,
		terminal: term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd())),
	}
}

// run carries out one command line and gives the exit status. It is the only
// place that maps errors to exit statuses.
func run(argv []string, con *console) int {
	if words, ok := ddWords(argv); ok {
		return runDD(words, con)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	// A reader that is gone does not stop a write in the middle.
	signal.Ignore(syscall.SIGPIPE)
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()

	out := &checkedWriter{Writer: con.out}
	con.out, con.err = out, &sharedWriter{w: con.err}
	u := &ui{con: con}
	defer u.onRequest()()
	u.preset(argv)
	app := newApp(u)
	args, err := order(argv, app)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	code := exitStatus(err)
	u.fail(err, code)
	if out.err != nil {
		fmt.Fprintf(con.err, "imgward: %v\n", out.err)
		if code == exitOK && !u.writes {
			return exitFailed // the answer was all that was asked for
		}
	}
	return code
}

// A checkedWriter remembers the first error, so that a result that nobody could
// read does not pass for one that was printed.
type checkedWriter struct {
	io.Writer
	err error
}

func (w *checkedWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// A sharedWriter writes one thing after the other, whoever it comes from.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// screen is the writer itself where it is a file, of which a progress bar asks how
// wide it is.
func screen(w io.Writer) io.Writer {
	if s, ok := w.(*sharedWriter); ok {
		if f, ok := s.w.(*os.File); ok {
			return f
		}
	}
	return w
}

// unsuspended keeps the terminal and the shell from suspending us until stop is
// called: whoever opens the target meanwhile waits for our answer.
func (u *ui) unsuspended() (stop func()) {
	came, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(came, syscall.SIGTSTP)
	// Were these two handled, reading from the terminal in the background would be
	// tried again for ever: ignored, it is an error (EIO), and writing passes.
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
	go func() {
		for {
			select {
			case <-came:
				u.remark("imgward: cannot be suspended while it writes; ^C stops it safely")
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Notify(came, syscall.SIGTTIN, syscall.SIGTTOU) // Reset alone leaves them ignored
		signal.Reset(syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
		close(done)
	}
}

// wrote reports whether err is one of a write that had begun.
func wrote(err error) bool {
	var (
		incomplete *guard.IncompleteError
		broken     *guard.BrokenError
		written    *guard.WrittenError
	)
	return errors.As(err, &incomplete) || errors.As(err, &broken) || errors.As(err, &written)
}

func exitStatus(err error) int {
	var (
		usage    *usageError
		refused  *guard.RefusedError
		unseen   *unseenError
		confirm  *confirmError
		mismatch *imageops.MismatchError
		digest   *imageops.DigestError
		damage   *imageops.DamageError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &mismatch), errors.As(err, &digest), errors.As(err, &damage):
		return exitMismatch
	case wrote(err):
		return exitIncomplete
	case errors.As(err, &refused), errors.As(err, &unseen):
		return exitRefused
	case errors.As(err, &confirm):
		return exitConfirm
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupt
	}
	return exitFailed
}

// newApp lists the commands, in the order of the help.
func newApp(u *ui) *cli.App {
	app := &cli.App{
		Name:                      "imgward",
		Usage:                     "copy, clone and overwrite disk images, and never one that is in use",
		Version:                   version,
		Writer:                    u.con.out,
		ErrWriter:                 u.con.err,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return usagef("%v", err) },
		Action:                    func(*cli.Context) error { return usagef("a command is needed; \"imgward --help\" lists them") },
		Commands: []*cli.Command{
			u.checkCommand(),
			u.explainCommand(),
			u.domainsCommand(),
			u.captureCommand(),
			u.copyCommand(),
			u.cloneCommand(),
			u.overwriteCommand(),
			u.verifyCommand(),
			u.trustLocalCommand(),
			u.releaseCommand(),
			u.preflightCommand(),
			u.shellInitCommand(),
			u.ddCommand(),
		},
	}
	app.Commands = append(app.Commands, u.completeCommand(app))
	for _, c := range app.Commands {
		c.OnUsageError = app.OnUsageError // the library does not hand it down
	}
	return app
}

// version is what --version prints.
const version = "0.1.0"
