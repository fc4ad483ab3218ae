package xenstore

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
)

const (
	// maxRestarts is how often a directory that changes between two parts is read
	// again from the start.
	maxRestarts = 10
	// maxDirectory caps the names of one directory, in bytes.
	maxDirectory = 16 << 20
)

// listParts reads a long directory with DIRECTORY_PART, whose replies carry a
// generation count: the same count throughout means one unchanged list. refused
// is about this directory, err about the connection.
func (c *Conn) listParts(ctx context.Context, path string) (names []string, refused, err error) {
	var all []byte // names so far, of one generation
	generation := ""
	for restarts := 0; ; {
		r, err := c.roundTrip(ctx, opDirectoryPart, path, strconv.Itoa(len(all)))
		if err != nil {
			return nil, nil, err
		}
		body, err := r.payload(opDirectoryPart)
		if err != nil {
			return nil, err, nil
		}
		p, err := parsePart(body)
		if err != nil {
			return nil, malformed(err), nil
		}
		if len(all) > 0 && p.generation != generation {
			if restarts++; restarts > maxRestarts {
				return nil, fmt.Errorf("changed %d times while it was read: %w", restarts, syscall.EAGAIN), nil
			}
			all = all[:0]
			continue
		}
		generation = p.generation
		all = append(all, p.names...)
		if len(all) > maxDirectory {
			return nil, fmt.Errorf("names exceed %d bytes: %w", maxDirectory, syscall.E2BIG), nil
		}
		if p.last {
			names, err := parseNames(all)
			return names, malformed(err), nil
		}
	}
}
