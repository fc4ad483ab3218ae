package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

var advice = regexp.MustCompile(`say so with "imgward ([^"]+)"`)

// What the refusal says to type lifts the doubt about the storage that it is
// about, and about no other that comes to bear its name.
func TestStatementAboutAMount(t *testing.T) {
	testkit.Need(t, "root", "bindfs", "umount")
	dir := lab(t)
	t.Setenv("SUDO_USER", "alice")
	first, second, point := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "point")
	for _, d := range []string{first, second, point} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(first, "web1.img"), 1<<20, 1)
	write(t, filepath.Join(second, "web1.img"), 1<<20, 2)
	t.Cleanup(func() { command(t, "umount", point) })
	image := filepath.Join(point, "web1.img")
	doubt := func() said {
		t.Helper()
		return imgward(t, nil, "check", image)
	}

	command(t, "bindfs", first, point)
	refused := doubt().want(t, exitRefused, "fuse on "+point+" is storage that other hosts can use")
	words := advice.FindStringSubmatch(refused.err)
	if words == nil {
		t.Fatalf("no advice in\n%s", refused.err)
	}
	imgward(t, nil, strings.Fields(words[1])...).want(t, exitOK, "mount "+point+" is", "says alice at 2")
	if said := doubt(); !strings.Contains(said.out, "but alice said on ") || strings.Contains(said.out+said.err, "locality.shared") {
		t.Errorf("the statement does not count:\n%s%s", said.out, said.err)
	}

	command(t, "umount", point)
	command(t, "bindfs", second, point)
	doubt().want(t, exitRefused, "locality.shared", "what alice said of "+point, "is void")

	imgward(t, nil, "trust-local", "--list").want(t, exitOK, "mount "+point+" is")
	imgward(t, nil, "trust-local", "--forget", point).want(t, exitOK)
	if said := imgward(t, nil, "trust-local", "--list").want(t, exitOK); said.out != "" {
		t.Errorf("still stated: %s", said.out)
	}
	doubt().want(t, exitRefused, "locality.shared")
}
