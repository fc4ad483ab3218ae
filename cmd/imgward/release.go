package main

import (
	"github.com/urfave/cli/v2"

	"imgward/guard"
	"imgward/xenstore"
)

func (u *ui) releaseCommand() *cli.Command {
	return &cli.Command{
		Name: "release", Usage: "withdraw the claim that an interrupted write left, so that Xen starts domains on the device again",
		ArgsUsage: "TARGET", HideHelpCommand: true,
		Flags: common(),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("release takes one target")
			}
			s, err := u.open(c, guard.Check)
			if err != nil {
				return err
			}
			defer s.close()
			r, err := guard.Release(c.Context, s.host, c.Args().First())
			if err == nil || len(r.Withdrawn) > 0 {
				s.released(r)
			}
			return err
		},
	}
}

type releasedJSON struct {
	Command    string      `json:"command"`
	Target     string      `json:"target"`
	Withdrawn  []claimJSON `json:"withdrawn"`
	Incomplete bool        `json:"incomplete"`
}

type claimJSON struct {
	PID       int    `json:"pid"`
	Operation string `json:"operation"`
	Devices   int    `json:"devices"` // how many were claimed
}

// released says what was withdrawn, one line for each process that had claimed
// the target and what shares bytes with it.
func (s *session) released(r guard.Released) {
	o := releasedJSON{Command: "release", Target: r.Target, Withdrawn: []claimJSON{}, Incomplete: r.Incomplete}
	var last xenstore.Claim
	for _, c := range r.Withdrawn {
		if n := len(o.Withdrawn); n > 0 && c.PID == last.PID && c.Start == last.Start {
			o.Withdrawn[n-1].Devices++
			continue
		}
		last = c
		o.Withdrawn = append(o.Withdrawn, claimJSON{PID: c.PID, Operation: c.Operation, Devices: 1})
	}
	for _, c := range o.Withdrawn {
		s.result("withdrew the claim of imgward (process %d, %q): Xen starts domains on %s again", c.PID, c.Operation, printable(r.Target))
	}
	if len(o.Withdrawn) == 0 {
		s.result("nothing was left on %s", printable(r.Target))
	}
	if r.Incomplete {
		s.remark("note: %s is incomplete still: what is started on it finds half an image", printable(r.Target))
	}
	s.object(o)
}
