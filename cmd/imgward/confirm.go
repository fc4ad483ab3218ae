package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"imgward/guard"
	"imgward/imageops/probe"
)

// A confirmError says that the operator has not said yet that this target, with
// what is on it now, is to be replaced. Nothing was written.
type confirmError struct {
	text  string
	token string // what --confirm takes; empty where no token would help
}

func (e *confirmError) Error() string { return e.text }

func (e *confirmError) hints() []string {
	if e.token == "" {
		return nil
	}
	return []string{"if this is the right target, add: --confirm " + e.token}
}

// confirm gets the operator's word that the target may be replaced and returns
// the token that it is for. With a token on the command line it asks nothing:
// the token is compared when the target is held. Without a terminal it never
// asks, and it asks about one target at a time.
func (s *session) confirm(ctx context.Context, g *guard.Guard, t *guard.Target, v guard.Verdict, given []string, source string) (tokens []string, err error) {
	if len(given) > 0 {
		return given, nil
	}
	token, err := g.Token(ctx, t)
	if err != nil {
		return nil, err
	}
	if !s.con.terminal || s.json || s.quiet {
		return nil, &confirmError{fmt.Sprintf("%s would be replaced, and nobody said that it may be", t), token}
	}
	name := v.Domain()
	if name == "" {
		name = t.Base
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	f, err := t.Open()
	if err != nil {
		return nil, err
	}
	// What a library cannot make sense of is shown as that; it stops nothing.
	contents, lookErr := probe.Look(f, t.Size)
	if err := f.Close(); err != nil {
		return nil, err
	}
	fmt.Fprintf(s.con.err, "%s holds\n", printable(t.String()))
	for _, line := range contents.Lines() {
		fmt.Fprintf(s.con.err, "  %s\n", printable(line))
	}
	if lookErr != nil {
		fmt.Fprintf(s.con.err, "  %s\n", printable(lookErr.Error()))
	}
	fmt.Fprintf(s.con.err, "and would be replaced by %s\ntype %q to go on: ", source, name)
	answer, err := s.readLine(ctx)
	if err != nil {
		return nil, err
	}
	if answer != name {
		return nil, &confirmError{text: fmt.Sprintf("%q was typed, not %q", answer, name)}
	}
	return []string{token}, nil
}

// readLine reads a line from the person at the terminal, until ctx ends.
func (s *session) readLine(ctx context.Context) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(s.con.in).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return "", &confirmError{text: "no answer was given"}
		}
		return strings.TrimSpace(a.line), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// confirmed compares the token that the operator agreed to with what is on the
// target now that nobody else can get at it. Of several targets each has its own.
func confirmed(p *guard.Permit, want []string) error {
	token, err := p.Token()
	if err != nil {
		return err
	}
	for _, w := range want {
		if token == strings.ToLower(w) {
			return nil
		}
	}
	return &confirmError{
		fmt.Sprintf("the token %q is not that of %s: something else is on it than when you looked", strings.Join(want, " "), p.Target()), token,
	}
}
