package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// mannersOptions are the options about what else runs on the host.
func mannersOptions() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "limit-rate", Usage: "read no more than `BYTES` a second, and so write no more to a target (K, M, G: powers of 1024)"},
		&cli.BoolFlag{Name: "idle", Usage: "let the disk serve others first, where its scheduler knows of that (ionice(1), class idle)"},
	}
}

// manners carries out the options, and gives the rate; 0 is no limit.
func manners(c *cli.Context) (rate int64, err error) {
	if text := c.String("limit-rate"); text != "" {
		if rate, err = parseBytes("rate", text); err != nil {
			return 0, err
		}
	}
	if c.Bool("idle") {
		return rate, beIdle()
	}
	return rate, nil
}

// parseBytes reads a number of bytes with an optional K, M, G or T.
func parseBytes(what, text string) (int64, error) {
	digits, shift := text, 0
	if n := len(text) - 1; n >= 0 {
		if i := strings.IndexByte("KMGT", text[n]); i >= 0 {
			digits, shift = text[:n], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64>>shift {
		return 0, usagef("%s %q: want a number of bytes, perhaps with K, M, G or T", what, text)
	}
	return n << shift, nil
}

// beIdle puts all threads of this process into the idle class of I/O priorities
// (ioprio_set(2)); those to come inherit it from the one that starts them.
func beIdle() error {
	const (
		whoProcess = 1
		idle       = 3 << 13
	)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(tid), idle)
		if errno != 0 && errno != unix.ESRCH {
			return fmt.Errorf("set the I/O priority: %w", errno)
		}
	}
	return nil
}
