package xenstore

import (
	"fmt"
	"strings"
	"syscall"
)

// The longest paths that a daemon takes, in bytes (xs_wire.h,
// XENSTORE_ABS_PATH_MAX and XENSTORE_REL_PATH_MAX).
const (
	maxAbsPath = 3072
	maxRelPath = 2048
)

// checkPath reports why a daemon would not take path. A path that does not begin
// with a slash is relative to the domain's own home, or special, as
// "@introduceDomain" in a watch. The error is an EINVAL, which is what the
// daemon would answer.
func checkPath(path string) error {
	limit := maxRelPath
	if strings.HasPrefix(path, "/") {
		limit = maxAbsPath
	}
	switch {
	case path == "":
		return fmt.Errorf("empty path: %w", syscall.EINVAL)
	case len(path) > limit:
		return fmt.Errorf("path of %d bytes exceeds %d: %w", len(path), limit, syscall.EINVAL)
	case path == "/":
		return nil
	case strings.HasSuffix(path, "/") || strings.Contains(path, "//"):
		return fmt.Errorf("empty name in path: %w", syscall.EINVAL)
	}
	for i := range len(path) {
		if !pathByte(path[i]) {
			return fmt.Errorf("byte %#02x not allowed in a path: %w", path[i], syscall.EINVAL)
		}
	}
	return nil
}

// pathByte reports whether b is in the alphabet of paths: ASCII letters and
// digits and -/_@ (xenstore.txt).
func pathByte(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	return b == '-' || b == '/' || b == '_' || b == '@'
}
