package guard

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// referencePaths gives the absolute paths that a name out of an image's header
// can mean for an image in dir, as QEMU reads it (block.c, bdrv_open and
// path_combine): "file:" and the like in front of a path are dropped, "json:" is
// followed by an object with a file's name somewhere in it, and what has another
// protocol is no file of this host. Only "://" tells a protocol for sure: in other
// formats than QEMU's a colon is a letter like others, so that what has one is
// looked up as a path as well. The error is for a name that begins with "json:" and
// is not understood.
func referencePaths(dir, name string) ([]string, error) {
	var out []string
	add := func(name string) {
		if name == "" || strings.Contains(name, "://") {
			return
		}
		if !strings.HasPrefix(name, "/") {
			name = strings.TrimSuffix(dir, "/") + "/" + name
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	text, ok := strings.CutPrefix(name, "json:")
	if !ok {
		add(name)
		add(withoutProtocol(name))
		return out, nil
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return nil, fmt.Errorf("the name %s is not understood: %w", quote(name), err)
	}
	for _, n := range fileNames(object) {
		add(n)
		add(withoutProtocol(n))
	}
	return out, nil
}

// withoutProtocol drops the protocols of a file or device of this host.
func withoutProtocol(name string) string {
	for _, p := range []string{"file:", "host_device:", "host_cdrom:"} {
		if rest, ok := strings.CutPrefix(name, p); ok {
			return strings.TrimPrefix(rest, "//")
		}
	}
	return name
}

// fileNames gives the names of files in an object of block device options: the
// values of "filename", also behind dots, at any depth. A name out of a header is
// too short to be deep.
func fileNames(value any) []string {
	var out []string
	switch v := value.(type) {
	case map[string]any:
		for key, value := range v {
			if text, ok := value.(string); ok && (key == "filename" || strings.HasSuffix(key, ".filename")) {
				out = append(out, text)
			}
			out = append(out, fileNames(value)...)
		}
	case []any:
		for _, value := range v {
			out = append(out, fileNames(value)...)
		}
	}
	slices.Sort(out)
	return out
}
