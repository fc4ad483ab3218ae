package main

import (
	"time"

	"github.com/schollz/progressbar/v3"

	"imgward/guard"
	"imgward/imageops"
)

// plainEvery is the time between two lines of progress where there is no
// terminal to draw a bar on.
const plainEvery = 10 * time.Second

// progress gives the function that shows how far a copy is: a bar on a terminal,
// a line now and then elsewhere, nothing with -q and --json.
func (u *ui) progress() func(imageops.Progress) {
	if u.quiet || u.json {
		return nil
	}
	if !u.con.terminal {
		last := time.Now()
		return func(p imageops.Progress) {
			now := time.Now()
			if now.Sub(last) < plainEvery {
				return
			}
			last = now
			if p.Total < 0 {
				u.remark("%s: %s", p.Phase, guard.Bytes(p.Done))
			} else if p.Total > 0 {
				u.remark("%s: %s of %s (%d %%)", p.Phase, guard.Bytes(p.Done), guard.Bytes(p.Total), p.Done*100/p.Total)
			}
		}
	}
	var bar *progressbar.ProgressBar
	phase := ""
	return func(p imageops.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			bar = progressbar.NewOptions64(p.Total,
				progressbar.OptionSetWriter(u.con.err), progressbar.OptionSetDescription(phase),
				progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish())
		}
		// A terminal that is gone does not stop a copy.
		_ = bar.Set64(p.Done)
	}
}
