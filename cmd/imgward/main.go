// Command imgward copies, clones and overwrites disk images and block devices,
// and refuses to write to anything that a domain or the host has in use.
package main

import "os"

func main() { os.Exit(run(os.Args, system())) }
