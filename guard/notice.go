package guard

import "sync"

// queued hands findings to tell, one after the other, without keeping whoever
// gives them: a terminal may be held up (^S), and those who wait for an answer of
// the gate, or for a look, must not be. end returns when all were told; what comes
// after it is told no more. Both may be called by any goroutine.
func queued(tell func(Finding)) (notice func(Finding), end func()) {
	if tell == nil {
		return nil, func() {}
	}
	var mu sync.Mutex
	var waiting []Finding
	over := false
	changed, told := sync.NewCond(&mu), make(chan struct{})
	go func() {
		defer close(told)
		mu.Lock()
		defer mu.Unlock()
		for {
			for len(waiting) == 0 {
				if over {
					return
				}
				changed.Wait()
			}
			f := waiting[0]
			waiting = waiting[1:]
			mu.Unlock()
			tell(f)
			mu.Lock()
		}
	}()
	notice = func(f Finding) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			waiting = append(waiting, f)
			changed.Signal()
		}
	}
	end = func() {
		mu.Lock()
		over = true
		changed.Signal()
		mu.Unlock()
		<-told
	}
	return notice, end
}
