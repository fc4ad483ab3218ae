package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/xenstore"
	"imgward/xenstore/dump"
)

// The members of a capture in which the program keeps what is no file's content.
const (
	memberStore      = "xenstore"       // as xenstore-ls -f prints it; absent where there is none
	memberStoreError = "xenstore error" // why it could not be read, in one line
	memberDomid      = "xenstore domid" // of the domain that it was read in, if not 0
	memberState      = "state"          // the directory of imgward's records, if not the usual one
)

func (u *ui) captureCommand() *cli.Command {
	return &cli.Command{
		Name: "capture", Usage: "print this host's evidence about targets, as a bug report that is also a test case", ArgsUsage: "[TARGET...]", HideHelpCommand: true,
		Flags: common(&cli.BoolFlag{Name: "full", Usage: "leave nothing out: command lines, addresses and passwords too"}),
		Action: func(c *cli.Context) error {
			s, err := u.open(c, guard.Check)
			if err != nil {
				return err
			}
			defer s.close()
			if u.json {
				return usagef("capture prints a capture file, not JSON")
			}
			root, err := s.capture(c.Context, c.Args().Slice(), c.Bool("full"))
			if err != nil {
				return err
			}
			if u.quiet {
				return nil
			}
			return root.Save(u.con.out)
		},
	}
}

// capture writes down the host, and what is made of it when it is judged again
// from what was written.
func (s *session) capture(ctx context.Context, paths []string, full bool) (*hostfs.Root, error) {
	snapshot, storeErr := (*xenstore.Snapshot)(nil), s.host.StoreErr
	if conn, ok := s.host.Store.(*xenstore.Conn); ok {
		if snapshot, storeErr = xenstore.Take(ctx, conn); storeErr != nil {
			s.host.Store, s.host.StoreErr = nil, storeErr
		} else {
			s.host.Store = snapshot
		}
	}
	root, live, err := guard.Capture(ctx, s.host, paths)
	if err != nil {
		return nil, err
	}
	if snapshot != nil {
		var text strings.Builder
		for _, n := range snapshot.Nodes() {
			text.WriteString(n.String() + "\n")
		}
		root.SetMember(memberStore, text.String())
		if snapshot.Domid() != "0" {
			root.SetMember(memberDomid, snapshot.Domid()+"\n")
		}
	}
	if storeErr != nil {
		root.SetMember(memberStoreError, printable(storeErr.Error())+"\n")
	}
	if s.host.State != usualState {
		root.SetMember(memberState, s.host.State+"\n")
	}
	release, err := s.host.FS.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("captured by imgward %s on Linux %s, %s\n", version, printable(strings.TrimSpace(string(release))), time.Now().UTC().Format(time.DateTime))
	root.SetComment(head + root.Comment())
	if !full {
		root = guard.Redacted(root)
	}
	return root, answer(ctx, root, live)
}

// answer judges a captured host and adds the answers to its questions. Where they
// are not what was made of the live host, the comment says so.
func answer(ctx context.Context, root *hostfs.Root, live []guard.Verdict) error {
	host, qs, err := replay(root)
	if err != nil {
		return err
	}
	for i, q := range qs {
		said := ""
		t, v, err := guard.Policy{Operation: q.Operation}.Check(ctx, host, q.Path)
		if err == nil {
			root.SetMember("want "+q.String(), v.Answer())
			err = t.Close()
		}
		switch was := live[i]; {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			said = printable(err.Error())
		case was.Decision != v.Decision || !slices.Equal(was.Codes(), v.Codes()):
			said = fmt.Sprintf("judged live: %s, because of %v", was.Decision, was.Codes())
		}
		if said != "" {
			root.SetComment(root.Comment() + q.String() + ": " + said + "\n")
		}
	}
	return nil
}

// replay makes a host of a capture, and gives what it is asked.
func replay(root *hostfs.Root) (*guard.Host, []guard.Question, error) {
	host := &guard.Host{FS: root, State: usualState}
	if dir, ok := root.Member(memberState); ok {
		host.State = strings.TrimSuffix(dir, "\n")
	}
	if text, ok := root.Member(memberStore); ok {
		nodes, err := dump.Parse(strings.NewReader(text))
		if err != nil {
			return nil, nil, fmt.Errorf("read the capture's xenstore: %w", err)
		}
		domid, _ := root.Member(memberDomid)
		host.Store = xenstore.NewSnapshot(strings.TrimSpace(domid), nodes)
	}
	if text, ok := root.Member(memberStoreError); ok {
		host.Store, host.StoreErr = nil, errors.New(strings.TrimSpace(text))
	}
	qs, err := guard.Questions(root)
	return host, qs, err
}

// checkCapture judges from a capture file: the paths, or what the capture asks.
func (u *ui) checkCapture(c *cli.Context) error {
	policy, err := u.policy(c, guard.Check)
	if err != nil {
		return err
	}
	f, err := os.Open(c.String("host"))
	if err != nil {
		return err
	}
	root, err := hostfs.Load(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	host, qs, err := replay(root)
	if err != nil {
		return err
	}
	if c.NArg() > 0 {
		qs = nil
	}
	for _, path := range c.Args().Slice() {
		if !strings.HasPrefix(path, "/") {
			return usagef("%q is no absolute path, and a captured host has no working directory", path)
		}
		qs = append(qs, guard.Question{Operation: guard.Check, Path: path})
	}
	if len(qs) == 0 {
		return usagef("the capture asks nothing; check needs a target")
	}
	worst := error(nil)
	for _, q := range qs {
		policy.Operation = q.Operation
		t, v, err := policy.Check(c.Context, host, q.Path)
		if err == nil {
			err = errors.Join(u.verdict(v, q.Path, c.Bool("porcelain"), "", ""), t.Close())
		} else {
			err = u.unresolved(err, q.Path, c.Bool("porcelain"))
		}
		if err != nil && (worst == nil || exitStatus(err) == exitRefused) {
			worst = err
		}
	}
	if worst != nil {
		return &saidError{worst}
	}
	return nil
}
