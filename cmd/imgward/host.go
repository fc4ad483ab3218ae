package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/xenstore"
)

// storeTimeout is how long one question to xenstore may take. A daemon that was
// stopped makes its clients hang.
const storeTimeout = 3 * time.Second

// A session is what one command works with: the host, and the way to speak.
type session struct {
	*ui
	host    *guard.Host
	policy  guard.Policy
	command []string
	asking  sync.Mutex // held while a person is asked something
	noClaim bool       // of --no-claim
	close   func()
}

// usualState is the directory of imgward's records unless the operator moved it.
const usualState = "/var/lib/imgward"

// policy reads the options of all commands that ask the guard.
func (u *ui) policy(c *cli.Context, op guard.Operation) (guard.Policy, error) {
	u.configure(c)
	p := guard.Policy{Operation: op, Domain: c.String("domain")}
	for _, o := range c.StringSlice("override") {
		parsed, err := guard.ParseOverride(o)
		if err != nil {
			return p, usagef("%v", err)
		}
		p.Override = append(p.Override, parsed)
	}
	return p, nil
}

// open looks where xenstore is and reads the options that all commands have.
func (u *ui) open(c *cli.Context, op guard.Operation) (*session, error) {
	policy, err := u.policy(c, op)
	if err != nil {
		return nil, err
	}
	return u.connect(c.Context, policy, append([]string{"imgward", c.Command.Name}, c.Args().Slice()...))
}

// connect looks where xenstore is, for a command with this policy.
func (u *ui) connect(ctx context.Context, policy guard.Policy, command []string) (*session, error) {
	s := &session{ui: u, close: func() {}, policy: policy, command: command}
	state := u.con.getenv("IMGWARD_STATE")
	if state == "" {
		state = usualState
	}
	if !filepath.IsAbs(state) {
		return nil, usagef("IMGWARD_STATE %q is no absolute path", state)
	}
	local := u.con.getenv("IMGWARD_LOCAL")
	if local != "" && !filepath.IsAbs(local) {
		return nil, usagef("IMGWARD_LOCAL %q is no absolute path", local)
	}
	level := slog.LevelWarn
	if u.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(u.con.err, &slog.HandlerOptions{Level: level}))
	s.host = &guard.Host{FS: hostfs.Live(), State: state, Local: local, Patience: 200 * time.Millisecond, Settle: 5 * time.Second, Log: log}

	conn, err := xenstore.Dial(ctx, &xenstore.Config{Timeout: storeTimeout})
	switch {
	case err == nil:
		s.host.Store, s.host.Claims = conn, conn
		s.close = func() { conn.Close() }
	case errors.Is(err, fs.ErrNotExist) && u.con.getenv("XENSTORED_PATH") == "" && u.con.getenv("XENSTORED_RUNDIR") == "":
		// No daemon and no device: the guard decides what that means here.
	default:
		s.host.StoreErr = err
	}
	return s, nil
}

// guard makes the guard of one operation.
func (s *session) guard(op guard.Operation, source *guard.Target) *guard.Guard {
	policy := s.policy
	if op == guard.Read {
		policy.Domain = "" // the assertion is about the target
	}
	policy.Operation = op
	return &guard.Guard{
		Host: s.host, Collectors: guard.Collectors(), Lockers: guard.Lockers(), Watchers: guard.Watchers(),
		Policy: policy, Source: source, Command: s.command, NoClaim: s.noClaim,
		Notice: func(f guard.Finding) { s.note(&s.noted, f) },
	}
}

// source opens the image to read from.
func (s *session) source(ctx context.Context, path string) (*guard.Source, error) {
	return s.guard(guard.Read, nil).Open(ctx, path)
}
