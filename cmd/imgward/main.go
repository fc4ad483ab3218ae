// Command imgward copies, clones and overwrites disk images and block devices,
// and refuses to write to anything that a domain or the host has in use.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

func main() {
	// A look at a crowded host leaves ten times as much garbage as it keeps, which
	// is some MiB, and is over before it matters.
	debug.SetGCPercent(400)
	// Where there is one processor, which many a dom0 is given, the looks at who came
	// would wait for the workers of the copy: Go asks the network only when it has
	// nothing else to do. With two threads the kernel shares it between them.
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(2)
	}
	os.Exit(run(os.Args, system()))
}
