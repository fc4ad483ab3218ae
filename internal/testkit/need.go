// Package testkit holds what the tests of all packages share: one way to ask
// for a privilege or a program, so that a skip is never silent.
package testkit

import (
	"os"
	"os/exec"
	"testing"
)

// Need skips the test unless everything named is there: "root" is an effective
// uid of 0, anything else a program on the PATH. With REQUIRE=all in the
// environment a missing need is a failure, so that a run that must be complete
// cannot pass by skipping.
func Need(t testing.TB, needs ...string) {
	t.Helper()
	for _, n := range needs {
		if n == "root" && os.Geteuid() == 0 {
			continue
		}
		if n != "root" {
			if _, err := exec.LookPath(n); err == nil {
				continue
			}
		}
		Missing(t, n)
	}
}

// Missing skips the test because of what, or fails it with REQUIRE=all. It is
// for needs that are no program: a kernel feature, a file system.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REQUIRE") == "all" {
		t.Fatalf("needs %s, and REQUIRE=all forbids a skip", what)
	}
	t.Skipf("needs %s", what)
}
