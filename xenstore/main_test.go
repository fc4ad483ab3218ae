package xenstore_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// TestMain fails a run that leaves goroutines or descriptors behind.
func TestMain(m *testing.M) {
	goroutines, descriptors := runtime.NumGoroutine(), open()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		// What has been told to end may take a moment.
		for end := time.Now().Add(5 * time.Second); leaked(goroutines, descriptors) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if leaked(goroutines, descriptors) {
			fmt.Fprintf(os.Stderr, "leaked: %d goroutines, were %d; %d descriptors, were %d\n",
				runtime.NumGoroutine(), goroutines, open(), descriptors)
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked reports whether there are more goroutines or descriptors than before.
func leaked(goroutines, descriptors int) bool {
	return runtime.NumGoroutine() > goroutines || open() > descriptors
}

// open counts this process's descriptors of files and sockets; those of the
// runtime's own poller come with the first of them.
func open() int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}
