package guard

import (
	"testing"

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
