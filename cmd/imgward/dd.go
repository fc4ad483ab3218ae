package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/imageops/ddcmd"
)

// ddCommand is dd in the list of commands. What dd's command line says is not for
// the cli library, see [runDD].
func (u *ui) ddCommand() *cli.Command {
	return &cli.Command{
		Name: "dd", Usage: "GNU dd, which writes to nothing that is in use; its own words follow it", ArgsUsage: "[OPERAND]...", HideHelpCommand: true,
		Action: func(*cli.Context) error { return usagef("dd's operands follow \"imgward dd\"") },
	}
}

const ddHelp = `Usage: dd [OPERAND]...
  or:  imgward dd [OPERAND]...
Copy a file as GNU dd does, and write to no file or device that is in use.

  if=FILE of=FILE                 instead of standard input and output
  bs=BYTES ibs=BYTES obs=BYTES    sizes of blocks, 512 unless told
  cbs=BYTES                       size of conv=block's records
  count=N skip=N seek=N           blocks to copy, and to pass over in the input (also
                                  iseek=N) and the output (oseek=N); bytes if N has a B
  status=LEVEL                    none, noxfer, progress
  conv=LIST                       ascii ebcdic ibm block unblock lcase ucase sparse
                                  swab sync excl nocreat notrunc noerror fdatasync fsync
  iflag=LIST oflag=LIST           append direct directory dsync sync fullblock nocache
                                  nonblock noatime noctty nofollow count_bytes
                                  skip_bytes seek_bytes

Numbers may have a factor behind them: c=1 w=2 b=512 kB=1000 K=KiB=1024 MB M MiB and
so on for G T P E Z Y, and may be products: 2xM. SIGUSR1 makes it print statistics.

  --override=CODE:SUBJECT         take the one finding upon yourself (repeatable)
  --domain=NAME                   the output is a disk of domain NAME, which is shut down
  --no-claim                      do not have Xen refuse a device while it is written
  --help --version

Exit status: 0 done, 1 failed, 3 refused and nothing was written, 4 stopped because
somebody came while it was written.
`

// ddTry points to the help.
const ddTry = "Try 'dd --help' for more information."

// A ddRun is one command line of dd's.
type ddRun struct {
	*ui
	said ddSaid
	plan *ddcmd.Plan
	job  *ddcmd.Job
	held atomic.Bool // the output is held by the guard, and is to be let go
}

// runDD carries out dd's command line and gives the exit status.
func runDD(words []string, con *console) int {
	fail := func(text string, help bool) int {
		fmt.Fprintf(con.err, "dd: %s\n", text)
		if help {
			fmt.Fprintln(con.err, ddTry)
		}
		return exitFailed
	}
	d := &ddRun{ui: &ui{con: con, writes: true}}
	said, words, err := splitDD(words)
	if err != nil {
		return fail(err.Error(), true)
	}
	d.said = said
	_, posix := os.LookupEnv("POSIXLY_CORRECT") // set is set, also to nothing
	operands, option, err := ddOptions(words, posix)
	switch {
	case err != nil:
		return fail(err.Error(), true)
	case option != "":
		text := ddHelp
		if option == "version" {
			text = "dd (imgward) " + version + "\n"
		}
		if _, err := fmt.Fprint(con.out, text); err != nil {
			return fail(fmt.Sprintf("write error: %v", err), false)
		}
		return exitOK
	}
	locale := ddcmd.LocaleOf(con.getenv)
	plan, warnings, err := locale.Parse(operands)
	for _, w := range warnings {
		fail(w, false)
	}
	var wrong *ddcmd.Error
	if errors.As(err, &wrong) {
		return fail(wrong.Text, wrong.Help)
	}
	d.plan = plan
	d.job = &ddcmd.Job{
		Plan: plan, Locale: locale, Stdin: os.Stdin, Stderr: con.err,
		BrokenPipe: func() { die(syscall.SIGPIPE) },
	}
	ctx, stop := d.signals()
	defer stop()
	status, err := d.run(ctx)
	if s := signalOf(err); s != 0 {
		d.interrupted(s)
	}
	if err != nil {
		return d.failed(err)
	}
	return status
}

// failed says an error of the guard's, or of what follows the copying, and gives the
// exit status. dd says itself what is wrong with the copying.
func (d *ddRun) failed(err error) int {
	status := ddStatus(err)
	if status == exitIncomplete {
		d.job.Stats() // unless all was copied, when they were printed
	}
	var closing *fs.PathError
	if status == exitFailed && errors.As(err, &closing) && closing.Op == "close" && closing.Path == d.plan.Out {
		status = d.job.FailedToClose(closing)
		var left *guard.LeftError
		if !errors.As(err, &left) {
			return status
		}
		err = left
	}
	d.fail(err, status)
	return status
}

// ddOptions takes dd's own options from its words as getopt_long(3) does: they may
// stand anywhere, unless strict, and may be shortened.
func ddOptions(words []string, strict bool) (operands []string, option string, err error) {
	for i, w := range words {
		name, _, joined := strings.Cut(w, "=")
		switch {
		case w == "--":
			return append(operands, words[i+1:]...), "", nil
		case w == "-" || !strings.HasPrefix(w, "-"):
			if strict {
				return append(operands, words[i:]...), "", nil
			}
			operands = append(operands, w)
			continue
		case !strings.HasPrefix(w, "--"):
			return nil, "", fmt.Errorf("invalid option -- '%s'", w[1:2])
		}
		for _, o := range []string{"help", "version"} {
			if strings.HasPrefix("--"+o, name) {
				option = o
			}
		}
		switch {
		case option == "":
			return nil, "", fmt.Errorf("unrecognized option '%s'", w)
		case joined:
			return nil, "", fmt.Errorf("option '--%s' doesn't allow an argument", option)
		}
		return nil, option, nil
	}
	return operands, "", nil
}

// run opens what the operands name, in dd's order, and copies. The status is dd's;
// an error is one of the guard's, or says that a signal ended the work.
func (d *ddRun) run(ctx context.Context) (status int, err error) {
	if d.job.OpenInput() != nil {
		return exitFailed, nil
	}
	if !d.plan.HasOut && !holdsBytes(os.Stdout) {
		return d.job.Copy(ctx, os.Stdout, false)
	}
	if d.job.TooLarge() {
		return exitFailed, nil
	}
	if f, err := d.openUnguarded(); err != nil {
		return d.job.FailedToOpen(err), nil
	} else if f != nil {
		return d.job.Copy(ctx, f, true)
	}
	started := false
	work := func(ctx context.Context, f *os.File) (err error) {
		started, d.writes = true, false // from here on something was, perhaps
		status, err = d.job.Copy(ctx, f, false)
		return err
	}
	err = d.guarded(ctx, func(ctx context.Context, g *guard.Guard) (err error) {
		if !d.plan.HasOut {
			return g.DDInherited(ctx, os.Stdout, work)
		}
		for _, flags := range d.plan.OutputFlags() {
			// The guard reads what is there in any size.
			err = g.DD(ctx, d.plan.Out, flags&^unix.O_DIRECT, ddcmd.Perm, work)
			if started || err == nil || guardSays(err) || ctx.Err() != nil {
				break
			}
		}
		return err
	})
	if err != nil && !started && d.plan.HasOut && signalOf(err) == 0 && !guardSays(err) {
		return d.job.FailedToOpen(err), nil
	}
	return status, err
}

// guardSays reports whether an error is the guard's answer.
func guardSays(err error) bool { return ddStatus(err) != exitFailed }

// openUnguarded opens what there is no guard for: what exists and holds no bytes, a
// pipe, a terminal, /dev/null, a switch of the kernel's in /proc or /sys. Without a
// file and an error there is something else.
func (d *ddRun) openUnguarded() (*os.File, error) {
	if !d.plan.HasOut {
		return nil, nil
	}
	pin, err := unix.Open(d.plan.Out, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil
	}
	at := os.NewFile(uintptr(pin), d.plan.Out)
	held := holdsBytes(at)
	if err := at.Close(); held || err != nil {
		return nil, err
	}
	f, err := d.job.OpenOutput()
	if err != nil {
		return nil, err
	}
	if holdsBytes(f) {
		return nil, f.Close() // it was replaced meanwhile, and nothing happened to it
	}
	return f, nil
}

// holdsBytes tells a file or a block device. What is not known is taken for one.
func holdsBytes(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
		return true
	}
	var at unix.Statfs_t
	return st.Mode().IsRegular() && (unix.Fstatfs(int(f.Fd()), &at) != nil || !slices.Contains(kernelsOwn, int64(at.Type)))
}

// kernelsOwn are the file systems whose regular files are the kernel's to answer, and
// hold no image (statfs(2), f_type).
var kernelsOwn = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
	unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.EFIVARFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC,
	0x62656570, // configfs (fs/configfs/mount.c)
}

// guarded calls work with a guard, while a signal ends the context instead of the
// program.
func (d *ddRun) guarded(ctx context.Context, work func(ctx context.Context, g *guard.Guard) error) error {
	d.held.Store(true)
	defer d.held.Store(false)
	// A reader of messages that is gone does not stop a write in the middle.
	signal.Ignore(syscall.SIGPIPE)
	s, err := d.connect(ctx, d.said.policy(), nil)
	if err != nil {
		return err
	}
	defer s.close()
	s.noClaim = d.said.noClaim
	defer d.unsuspended()()
	g := s.guard(guard.DD, nil)
	g.Notice = nil // dd says nothing beside its own words
	g.Own = []*os.File{d.job.Input()}
	return work(ctx, g)
}

// signalled is the cause of a context that a signal ended.
type signalled struct{ signal syscall.Signal }

func (s *signalled) Error() string        { return s.signal.String() }
func (s *signalled) Is(target error) bool { return target == errInterrupted }

// signalOf is the signal that ended the work; 0 if none did, or if the guard has
// more to say than that.
func signalOf(err error) syscall.Signal {
	var s *signalled
	if !errors.As(err, &s) || guardSays(err) {
		return 0
	}
	return s.signal
}

// signals sees to dd's signals until stop is called: SIGUSR1 prints the statistics
// (unless POSIXLY_CORRECT), SIGINT does, too, and ends dd. While the guard holds the
// output, what ends dd ends the context, and dd when the output was let go. SIGINT
// and SIGHUP that our parent ignored stay ignored; of the others that cannot be
// known, since Go's runtime has put its own handlers in their place before we begin.
func (d *ddRun) signals() (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	// Each kind has its channel: who asks often must not push out who ends it.
	came, asked := make(chan os.Signal, 4), make(chan os.Signal, 4)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(came, s)
		}
	}
	if _, posix := os.LookupEnv("POSIXLY_CORRECT"); !posix {
		signal.Notify(asked, syscall.SIGUSR1)
	}
	go func() {
		for {
			select {
			case <-asked:
				d.job.Stats()
			case s := <-came:
				if s := s.(syscall.Signal); d.held.Load() {
					cancel(&signalled{s})
				} else {
					d.job.Stop()
					d.interrupted(s)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(came)
		signal.Stop(asked)
		cancel(nil)
	}
}

// interrupted ends dd by the signal.
func (d *ddRun) interrupted(s syscall.Signal) {
	if s == syscall.SIGINT {
		d.job.Stats()
	}
	die(s)
}

// die ends the program by a signal, whatever the runtime does with it otherwise.
func die(s syscall.Signal) {
	var action [8]uint64 // sigaction(2): zeros are SIG_DFL and no flags
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	_ = unix.Kill(os.Getpid(), s)
	select {} // the signal is on its way
}
