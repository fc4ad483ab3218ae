// Package guard is the safety path: it decides whether an image may be written
// to, and is the only door to a writable descriptor of one that exists.
//
// A Target is a path that was resolved once and pinned by a descriptor; its ID
// says what it is by number. A Collector looks at one place of the Host where a
// use of the target can show and writes Findings to a Sheet: what it found, what
// it looked at, and where it could not look. Target.Relate tells whether
// something found overlaps the target, through the whole block stack. A Policy
// judges findings and yields a Verdict, which explains itself. A Locker keeps
// others out, a Watcher notices those who come in, and together they are the Hold
// under which a Permit is valid.
//
//	g := &guard.Guard{Host: host, Collectors: guard.Collectors(), Lockers: guard.Lockers(), Watchers: guard.Watchers()}
//	err := g.Write(ctx, "/srv/images/web1.img", func(ctx context.Context, p *guard.Permit) error {
//		f, err := p.File()
//		if err != nil {
//			return err
//		}
//		return fill(ctx, f)
//	})
//
// Every question has three answers: in use, not in use, could not look. The last
// is a finding of its own and refuses.
package guard
