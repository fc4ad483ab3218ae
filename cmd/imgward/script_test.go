package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// runAsProgram in the environment makes the test binary the program itself, for
// tests that kill it.
const runAsProgram = "IMGWARD_TEST_RUN_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		main()
	}
	testscript.Main(mainAndAfter{m}, map[string]func(){"imgward": main})
}

// mainAndAfter removes what tests have in common when all were run.
type mainAndAfter struct{ *testing.M }

func (m mainAndAfter) Run() int {
	code := m.M.Run()
	for _, dir := range removeAfterwards {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// TestScripts runs the command lines of testdata/script against the real
// program. Beside testscript's own commands there are:
//
//	status N imgward ARG...   run it, and demand this exit status
//	again N imgward ARG...    the same, and then once more with the words behind
//	                          "add: " in its hints appended, which must succeed
//	same FILE FILE            demand equal contents
//	make N FILE               make a file of N bytes that repeat nowhere and in no other file
//	damage FILE OFFSET        change one byte
//	hassum FILE               demand that standard output has the first word of FILE
//	token FILE VAR            put the token of what is in FILE into VAR
//	holdopen FILE VAR         have a process keep FILE open for reading, its pid in VAR
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("IMGWARD_STATE", filepath.Join(env.WorkDir, ".state"))
			env.Setenv("IMGWARD_LOCAL", filepath.Join(env.WorkDir, ".local"))
			env.Setenv("XENSTORED_PATH", "")
			env.Setenv("LONG", strings.Repeat("x", 4096))
			env.Setenv("ZEROS", strings.Repeat("0", 64))
			env.Setenv("ESCAPES", "no/evil\x1b[2Jname")
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   func(ts *testscript.TestScript, _ bool, args []string) { status(ts, args) },
			"again":    again,
			"same":     same,
			"make":     makeFile,
			"damage":   damage,
			"hassum":   hasSum,
			"token":    token,
			"holdopen": holdOpen,
		},
	})
}

// status runs args[1:] and fails the script unless its exit status is args[0].
// What it printed can be matched with stdout and stderr afterwards.
func status(ts *testscript.TestScript, args []string) string {
	if len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
	return ts.ReadFile("stderr")
}

func again(ts *testscript.TestScript, _ bool, args []string) {
	said := status(ts, args)
	var added []string
	for line := range strings.Lines(said) {
		if _, words, ok := strings.Cut(line, "add: "); ok && strings.HasPrefix(line, "hint: ") {
			added = append(added, strings.Fields(words)...)
		}
	}
	if len(added) == 0 {
		ts.Fatalf("no hint says what to add")
	}
	status(ts, slices.Concat([]string{"0"}, args[1:], added))
}

// condition answers [root] and [program:NAME] in scripts. What must not be
// skipped because of REQUIRE=all fails instead.
func condition(cond string) (bool, error) {
	have := os.Geteuid() == 0
	if name, ok := strings.CutPrefix(cond, "program:"); ok {
		_, err := exec.LookPath(name)
		have = err == nil
	} else if cond != "root" {
		return false, fmt.Errorf("unknown condition %q", cond)
	}
	if !have && os.Getenv("REQUIRE") == "all" {
		return false, fmt.Errorf("needs %s, and REQUIRE=all forbids a skip", cond)
	}
	return have, nil
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	a, b := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	if (a == b) == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], a == b)
	}
}

// makeFile fills a file with bytes that depend on its name.
func makeFile(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	seed := sha256.Sum256([]byte(args[1]))
	data := make([]byte, n)
	// Reading from a ChaCha8 cannot fail.
	_, _ = rand.NewChaCha8(seed).Read(data)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o644))
}

func damage(ts *testscript.TestScript, _ bool, args []string) {
	off, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	ts.Check(err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], off)
	ts.Check(err)
}

func hasSum(ts *testscript.TestScript, neg bool, args []string) {
	sum, _, _ := strings.Cut(strings.TrimSpace(ts.ReadFile(args[0])), " ")
	if sum == "" || strings.Contains(ts.ReadFile("stdout"), sum) == neg {
		ts.Fatalf("%q in the output is %v", sum, neg)
	}
}

func token(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("imgward", "check", "--porcelain", args[0]))
	ts.Setenv(args[1], strings.Split(ts.ReadFile("stdout"), "\t")[1])
}

// holdOpen has a process keep a file open for reading. That it is open before
// the command line goes on is certain: the descriptor is inherited.
func holdOpen(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = []*os.File{f}
	ts.Check(cmd.Start())
	ts.Setenv(args[1], strconv.Itoa(cmd.Process.Pid))
	ts.Defer(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
}
