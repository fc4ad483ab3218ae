package main

import (
	"math/bits"

	"github.com/urfave/cli/v2"

	"imgward/imageops/blockio"
)

// wayOptions say how the bytes go. What is not told is chosen by what can be
// measured cheaply, and the result says what that was.
func wayOptions() []cli.Flag {
	return []cli.Flag{
		readOption(),
		&cli.StringFlag{Name: "write", Value: "auto", Usage: "write targets `auto|direct|cache`: past the page cache, or through it; by itself the former where the file system can"},
		&cli.StringFlag{Name: "chunk", Usage: "read and write so many `BYTES` at a time, a power of two (K, M: powers of 1024)"},
		&cli.IntFlag{Name: "depth", Usage: "have `N` chunks in memory, and so many requests on their way; by itself at most 8 that fill 16 MiB, and at least 2"},
	}
}

// requests are the size and the number of requests as told; 0 is not told.
func requests(c *cli.Context) (chunk, depth int, err error) {
	if text := c.String("chunk"); text != "" {
		n, err := parseBytes("chunk", text)
		if err != nil {
			return 0, 0, err
		}
		if n < 4<<10 || n > 64<<20 || bits.OnesCount64(uint64(n)) != 1 {
			return 0, 0, usagef("chunk %q: want a power of two from 4K to 64M", text)
		}
		chunk = int(n)
	}
	if depth = c.Int("depth"); c.IsSet("depth") && (depth < 1 || depth > 4096) {
		return 0, 0, usagef("depth %d: want 1 to 4096", depth)
	}
	return chunk, depth, nil
}

// writing checks what is said of how targets are written.
func writing(told string) error {
	if told != "auto" && told != "direct" && told != "cache" {
		return usagef("write %q: want auto, direct or cache", told)
	}
	return nil
}

// way has a target written as told. It comes as one that is written directly, where
// its file system can do that.
func (t *transfer) way(to *blockio.File) error {
	switch {
	case t.writing == "cache" && to.Direct():
		return to.SetDirect(false)
	case t.writing == "direct" && !to.Direct():
		return to.SetDirect(true)
	}
	return nil
}
