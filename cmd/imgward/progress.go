package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/imageops"
)

// plainEvery is the time between two lines of progress where there is no
// terminal to draw a bar on.
const plainEvery = 10 * time.Second

// A pace is how far a command is, and since when its phase lasts.
type pace struct {
	mu    sync.Mutex
	now   imageops.Progress
	since time.Time
}

// note takes p down, which is told as it comes.
func (s *pace) note(p imageops.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Phase != s.now.Phase {
		s.since = time.Now()
	}
	s.now = p
}

// line says how far it is, how fast it goes, and how long it will take.
func (s *pace) line() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return paceLine(s.now, time.Since(s.since))
}

func paceLine(p imageops.Progress, d time.Duration) string {
	switch {
	case p.Phase == "":
		return "nothing is being copied"
	case p.Total < 0:
		return fmt.Sprintf("%s: %s, %s", p.Phase, guard.Bytes(p.Done), rate(p.Done, d))
	case p.Total == 0 || p.Done == 0:
		return fmt.Sprintf("%s: %s of %s", p.Phase, guard.Bytes(p.Done), guard.Bytes(p.Total))
	}
	left := time.Duration(float64(d) / float64(p.Done) * float64(p.Total-p.Done))
	return fmt.Sprintf("%s: %s of %s (%.0f %%), %s, %.0f s left",
		p.Phase, guard.Bytes(p.Done), guard.Bytes(p.Total), 100*float64(p.Done)/float64(p.Total), rate(p.Done, d), left.Seconds())
}

// onRequest prints how far the command is whenever SIGUSR1 comes, as dd(1) does,
// until stop is called. Without it the signal would end the program.
func (u *ui) onRequest() (stop func()) {
	came, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(came, unix.SIGUSR1)
	go func() {
		for {
			select {
			case <-came:
				u.remark("%s", u.pace.line())
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(came)
		close(done)
	}
}

// progress gives the function that shows how far a copy is: a bar on a terminal,
// a line now and then elsewhere, nothing with -q and --json.
func (u *ui) progress() func(imageops.Progress) {
	if u.quiet || u.json {
		return nil
	}
	if !u.con.terminal {
		last := time.Now()
		return func(p imageops.Progress) {
			u.pace.note(p)
			if now := time.Now(); now.Sub(last) >= plainEvery {
				last = now
				u.remark("%s", u.pace.line())
			}
		}
	}
	var bar *progressbar.ProgressBar
	phase := ""
	return func(p imageops.Progress) {
		u.pace.note(p)
		if p.Phase != phase {
			phase = p.Phase
			bar = progressbar.NewOptions64(p.Total,
				progressbar.OptionSetWriter(screen(u.con.err)), progressbar.OptionSetDescription(phase),
				progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish())
		}
		// A terminal that is gone does not stop a copy.
		_ = bar.Set64(p.Done)
	}
}
