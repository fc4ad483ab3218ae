// Command imgward copies, clones and overwrites disk images and block devices,
// and refuses to write to anything that a domain or the host has in use.
package main

import (
	"os"
	"runtime/debug"
)

func main() {
	// A look at a crowded host leaves ten times as much garbage as it keeps, which
	// is some MiB, and is over before it matters.
	debug.SetGCPercent(400)
	os.Exit(run(os.Args, system()))
}
