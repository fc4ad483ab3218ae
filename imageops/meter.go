package imageops

// A meter counts what is done of a phase and tells it.
type meter struct {
	now  Progress
	tell func(Progress)
}

func newMeter(phase string, total int64, tell func(Progress)) *meter {
	if tell == nil {
		tell = func(Progress) {}
	}
	return &meter{now: Progress{Phase: phase, Total: total}, tell: tell}
}

// add is called when n more bytes are done.
func (m *meter) add(n int64) {
	if n == 0 {
		return
	}
	m.now.Done += n
	m.tell(m.now)
}

// full reports whether all of the phase is done.
func (m *meter) full() bool { return m.now.Done == m.now.Total }
