// Command bench copies one file of random bytes with imgward and with the
// programs that people use instead, side by side in one run, and prints seconds
// and ratios. It judges nothing: disks differ, and so do their days.
//
//	BENCH_SIZE    of the file, 4G unless told (K, M, G, T are powers of 1024)
//	BENCH_DIR     where it lies, /var/tmp unless told; twice the size must fit
//	BENCH_ROUNDS  3 unless told
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
