package testkit

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// GNUdd is the path of the dd that imgward's is compared with: that of coreutils
// 9.1. Where another one is installed, the test is skipped.
func GNUdd(t testing.TB) string {
	t.Helper()
	Need(t, "dd")
	path, err := exec.LookPath("dd")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if version, _, _ := strings.Cut(string(out), "\n"); version != "dd (coreutils) 9.1" {
		Missing(t, "dd of coreutils 9.1")
	}
	return path
}

// Seed is what random cases are made from: always the same ones, unless SEED in
// the environment asks for others.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(1)
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the seed is %d", seed)
	return seed
}
