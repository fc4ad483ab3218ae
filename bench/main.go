// Command bench does pieces of work with imgward and with the programs that people
// use instead, side by side in one run, and prints seconds, ratios, and which of its
// bars are met. A bar that is not met is no failure: disks differ, and so do their days.
//
//	BENCH_SIZE    of the source, 4G unless told (K, M, G, T are powers of 1024)
//	BENCH_DIR     where it lies, /var/tmp unless told; five times the size must fit
//	BENCH_ROUNDS  5 unless told
//	BENCH_ONLY    names of the pieces: overwrite overwrite-warm verified sparse delta clone reflink dd
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	c, err := fromEnvironment(os.Getenv)
	if err == nil {
		err = run(ctx, c, os.Stdout)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
