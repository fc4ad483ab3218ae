package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

type config struct {
	size   int64  // bytes of the file that is copied
	dir    string // where a directory for it is made, and removed
	rounds int
	peers  []peer

	dropCaches bool // all of the machine, else only the source's pages
}

// A peer is one way to copy a file to a new file.
type peer struct {
	name string
	argv []string // SRC and DST stand for the files, also inside of an argument
	ours bool     // a failure fails the benchmark
}

// direct is the peer that the others are compared with.
const direct = "dd direct"

func peers(imgward string) []peer {
	return []peer{
		{"imgward", []string{imgward, "copy", "--no-verify", "SRC", "DST"}, true},
		{"imgward, verified", []string{imgward, "copy", "SRC", "DST"}, true},
		{direct, []string{"dd", "if=SRC", "of=DST", "bs=4M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none"}, false},
		{"dd", []string{"dd", "if=SRC", "of=DST", "bs=4M", "conv=fsync", "status=none"}, false},
		{"cp", []string{"cp", "--reflink=never", "--sparse=never", "SRC", "DST"}, false},
		{"qemu-img", []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "SRC", "DST"}, false},
		{"qemu-img direct", []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "-t", "none", "-T", "none", "SRC", "DST"}, false},
		{"nbdcopy", []string{"nbdcopy", "--flush", "SRC", "DST"}, false},
		{"dcfldd sha256", []string{"dcfldd", "if=SRC", "of=DST", "bs=4M", "hash=sha256", "status=off"}, false},
	}
}

// command is the peer's argv for two files.
func (p peer) command(src, dst string) []string {
	var argv []string
	for _, a := range p.argv {
		argv = append(argv, strings.NewReplacer("SRC", src, "DST", dst).Replace(a))
	}
	return argv
}

func fromEnvironment(getenv func(string) string) (config, error) {
	c := config{size: 4 << 30, dir: "/var/tmp", rounds: 3, dropCaches: os.Geteuid() == 0}
	var err error
	if s := getenv("BENCH_SIZE"); s != "" {
		if c.size, err = parseSize(s); err != nil {
			return config{}, fmt.Errorf("BENCH_SIZE: %w", err)
		}
	}
	if s := getenv("BENCH_ROUNDS"); s != "" {
		if c.rounds, err = strconv.Atoi(s); err != nil || c.rounds < 1 {
			return config{}, fmt.Errorf("BENCH_ROUNDS %q: not a number from 1", s)
		}
	}
	if s := getenv("BENCH_DIR"); s != "" {
		c.dir = s
	}
	imgward, err := filepath.Abs("bin/imgward")
	if err != nil {
		return config{}, err
	}
	c.peers = peers(imgward)
	return c, nil
}

// parseSize reads a number of bytes with an optional K, M, G or T, in powers of
// 1024. Direct I/O wants whole 4 KiB blocks.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	if n := len(s) - 1; n >= 0 {
		if i := strings.IndexByte("KMGT", s[n]); i >= 0 {
			digits, shift = s[:n], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64>>shift || n<<shift%4096 != 0 {
		return 0, fmt.Errorf("size %q: not a multiple of 4096 bytes", s)
	}
	return n << shift, nil
}
