package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

type config struct {
	size    int64  // bytes of the source
	dir     string // where a directory for the files is made, and removed
	rounds  int
	sets    []set
	dd      bool // measure dd's command line, too
	imgward string

	dropCaches bool // all of the machine, else only the files' pages
}

// A set is one piece of work and the ways to do it.
type set struct {
	name    string
	what    string
	sparse  bool // most of the source is holes
	old     int  // targets that are there already
	nearly  bool // they have all but one of a hundred parts of the source
	warm    bool // the source is in the page cache
	targets int
	base    string // the peer that the others are compared with
	peers   []peer
	xfs     bool // on a file system that shares blocks, made for it
	bars    []bar
}

// A bar is what one of ours has to reach. Without peers to be compared with it is
// about ours alone.
type bar struct {
	ours    string
	against []string      // the fastest of them counts
	least   float64       // how many times as fast ours is
	within  time.Duration // ours takes no longer
	writes  float64       // ours writes no more than so many times what has changed
}

// maxPeak is the bar for the memory of all of ours, in bytes.
const maxPeak = 64 << 20

// A peer is one way to do it. In its arguments SRC is the source, and DST, DST2,
// DST3 and so on are the targets; TOKEN is what imgward wants for DST.
type peer struct {
	name string
	argv []string
	ours bool // a failure fails the benchmark
}

const (
	ddDirect = "dd if=SRC of=DST bs=4M iflag=direct oflag=direct conv=notrunc,fsync status=none"
	ddCached = "dd if=SRC of=DST bs=4M conv=notrunc,fsync status=none"
)

// words makes a peer of a command line without quotes.
func words(name, line string) peer { return peer{name: name, argv: strings.Fields(line)} }

// shell makes a peer of what a shell is to run.
func shell(name, line string) peer { return peer{name: name, argv: []string{"sh", "-ec", line}} }

// ours makes a peer of arguments for imgward.
func ours(imgward, name, args string) peer {
	return peer{name: "imgward " + name, argv: append([]string{imgward}, strings.Fields(args)...), ours: true}
}

// sets are what is measured, in the order in which it is.
func sets(imgward string) []set {
	overwrites := []peer{
		ours(imgward, "blake3", "overwrite --delta=false SRC DST --confirm TOKEN --no-verify"),
		words("dd direct", ddDirect),
		words("dd", ddCached),
		words("ddrescue", "ddrescue -q -f --synchronous SRC DST"),
		words("qemu-img", "qemu-img convert -n -f raw -O raw -t none -T none -W -m 16 SRC DST"),
		words("nbdcopy", "nbdcopy --flush SRC DST"),
		words("dcfldd sha256", "dcfldd if=SRC of=DST bs=4M conv=notrunc hash=sha256 status=off"),
		words("dc3dd sha256", "dc3dd if=SRC of=DST hash=sha256 bufsz=4M"),
	}
	var fan []string
	for i := range 4 {
		fan = append(fan, strings.ReplaceAll(ddDirect, "DST", targetName(i)))
	}
	return []set{
		{name: "overwrite", what: "a file is overwritten, the source is cold", old: 1, targets: 1, base: "dd direct", peers: overwrites,
			bars: []bar{{ours: "imgward blake3", against: []string{"dd direct"}, least: 1}}},
		{name: "overwrite-warm", what: "a file is overwritten, the source is in the page cache", old: 1, targets: 1, warm: true, base: "dd direct", peers: overwrites,
			bars: []bar{{ours: "imgward blake3", against: names(overwrites[1:]), least: 0.75}}},
		{name: "verified", what: "a file is overwritten and read back", old: 1, targets: 1, base: "dd, cmp", peers: []peer{
			ours(imgward, "blake3, read back", "overwrite --delta=false SRC DST --confirm TOKEN"),
			shell("dd, cmp", ddDirect+"; sync; echo 3 > /proc/sys/vm/drop_caches 2>/dev/null || :; cmp SRC DST"),
			words("dcfldd sha256", "dcfldd if=SRC of=DST bs=4M conv=notrunc hash=sha256 status=off"),
			words("dc3dd sha256", "dc3dd if=SRC of=DST hash=sha256 bufsz=4M"),
			words("dc3dd hof sha256", "dc3dd if=SRC hof=DST hash=sha256 bufsz=4M"),
		}, bars: []bar{
			{ours: "imgward blake3, read back", against: []string{"dd, cmp"}, least: 1.5},
			{ours: "imgward blake3, read back", against: []string{"dcfldd sha256", "dc3dd sha256"}, least: 8},
		}},
		{name: "sparse", what: "an image of which 60 % are holes is copied to a new file", sparse: true, targets: 1, base: "cp", peers: []peer{
			ours(imgward, "no digest", "copy SRC DST --digest none --no-verify"),
			ours(imgward, "blake3", "copy SRC DST --no-verify"),
			words("cp", "cp --reflink=never --sparse=always SRC DST"),
			words("qemu-img", "qemu-img convert -f raw -O raw SRC DST"),
			words("nbdcopy", "nbdcopy --flush SRC DST"),
			shell("bmaptool", "bmaptool -q create SRC -o DST.bmap && bmaptool -q copy --bmap DST.bmap SRC DST; rm -f DST.bmap"),
		}, bars: []bar{
			{ours: "imgward no digest", against: []string{"cp", "qemu-img", "nbdcopy", "bmaptool"}, least: 1},
			{ours: "imgward blake3", against: []string{"qemu-img", "bmaptool"}, least: 1},
		}},
		{name: "delta", what: "a file that has 99 % of the source already is overwritten", old: 1, nearly: true, targets: 1, base: "imgward in full", peers: []peer{
			ours(imgward, "delta", "overwrite SRC DST --confirm TOKEN --no-verify"),
			ours(imgward, "in full", "overwrite --delta=false SRC DST --confirm TOKEN --no-verify"),
			words("dd direct", ddDirect),
		}, bars: []bar{{ours: "imgward delta", against: []string{"imgward in full"}, least: 1.5}, {ours: "imgward delta", writes: 1.1}}},
		{name: "clone", what: "four new files are made of one source", targets: 4, base: "four dd direct", peers: []peer{
			ours(imgward, "clone", "clone --no-reflink --no-verify SRC DST DST2 DST3 DST4"),
			shell("four dd direct", strings.Join(fan, "; ")),
		}, bars: []bar{{ours: "imgward clone", against: []string{"four dd direct"}, least: 2}}},
		{name: "reflink", what: "a new file shares the blocks of one, on XFS", xfs: true, targets: 1, base: "cp", peers: []peer{
			ours(imgward, "clone", "clone SRC DST"),
			words("cp", "cp --reflink=always SRC DST"),
		}, bars: []bar{{ours: "imgward clone", within: 50 * time.Millisecond}}},
	}
}

func names(peers []peer) []string {
	var all []string
	for _, p := range peers {
		all = append(all, p.name)
	}
	return all
}

// targetName stands for the i-th target in arguments.
func targetName(i int) string {
	if i == 0 {
		return "DST"
	}
	return fmt.Sprintf("DST%d", i+1)
}

// command is the peer's argv for these files.
func (p peer) command(src string, dsts []string, token string) []string {
	pairs := []string{"SRC", src, "TOKEN", token}
	for i := len(dsts) - 1; i >= 0; i-- { // DST is the beginning of the others
		pairs = append(pairs, targetName(i), dsts[i])
	}
	r := strings.NewReplacer(pairs...)
	var argv []string
	for _, a := range p.argv {
		argv = append(argv, r.Replace(a))
	}
	return argv
}

func fromEnvironment(getenv func(string) string) (config, error) {
	c := config{size: 4 << 30, dir: "/var/tmp", rounds: 5, dropCaches: os.Geteuid() == 0}
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
	only := strings.Fields(getenv("BENCH_ONLY"))
	for _, s := range sets(imgward) {
		if wanted(s.name, only) {
			c.sets = append(c.sets, s)
		}
	}
	c.imgward, c.dd = imgward, wanted("dd", only)
	if len(c.sets) == 0 && !c.dd {
		return config{}, fmt.Errorf("BENCH_ONLY %q: there is nothing of that name", getenv("BENCH_ONLY"))
	}
	return c, nil
}

func wanted(name string, only []string) bool {
	for _, o := range only {
		if o == name {
			return true
		}
	}
	return len(only) == 0
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
