package guard

import (
	"sync/atomic"
	"testing"
	"time"

	"imgward/guard/hostfs"
)

// What several collectors ask of one source's paths is asked of the host once, also
// where nothing is.
func TestLookups(t *testing.T) {
	m := newMachine()
	asked := map[string]int{}
	l := newLookups(m.fs.Record(func(op, name string) { asked[op+" "+name]++ }))
	for range 3 {
		if st, err := l.Stat(image); err != nil || st.Type != hostfs.Regular {
			t.Errorf("%+v, %v", st, err)
		}
		if _, err := l.Stat("/srv/images/none"); !nothingThere(err) {
			t.Errorf("what is not there: %v", err)
		}
	}
	if asked["stat "+image] != 1 || asked["stat /srv/images/none"] != 1 {
		t.Errorf("asked %v", asked)
	}
}

// Those who ask for a path at the same time wait for one answer.
func TestLookupsAtOnce(t *testing.T) {
	m := newMachine()
	var asked atomic.Int64
	l := newLookups(m.fs.Record(func(string, string) {
		asked.Add(1)
		time.Sleep(10 * time.Millisecond)
	}))
	crew(4, func() {
		if st, err := l.Stat(image); err != nil || st.Type != hostfs.Regular {
			t.Errorf("%+v, %v", st, err)
		}
	})
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
