package guard

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever has something to tell does not wait for it to be told, and at the end all
// of it was, in order.
func TestQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		notice, end := queued(func(f Finding) {
			time.Sleep(time.Hour) // the terminal is held up
			told = append(told, f.Key)
		})
		start := time.Now()
		for _, key := range []string{"a", "b", "c"} {
			notice(Finding{Key: key})
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("waited %s", waited)
		}
		end()
		notice(Finding{Key: "late"})
		if !slices.Equal(told, []string{"a", "b", "c"}) {
			t.Errorf("told %q", told)
		}
	})
	if notice, end := queued(nil); notice != nil {
		t.Error("there is nobody to tell")
	} else {
		end()
	}
}
