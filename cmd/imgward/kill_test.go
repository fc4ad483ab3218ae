package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgward/internal/testkit"
)

// child runs the real program in a process of its own.
func child(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), runAsProgram+"=1")
	return cmd
}

// kill -9 of a copy at any moment leaves nothing, or the whole, under the name.
func TestKilledCopyLeavesNoHalfFile(t *testing.T) {
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 32<<20, 1)
	want := sum(t, golden)
	whole := 0
	for i := range 12 {
		target := filepath.Join(dir, fmt.Sprintf("new%d.img", i))
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*20)*time.Millisecond)
		// That it was killed is the point.
		_ = child(ctx, "copy", golden, target).Run()
		cancel()
		if _, err := os.Stat(target); err == nil {
			whole++
			if sum(t, target) != want {
				t.Fatalf("after %d ms a half file has the final name", i*20)
			}
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".imgward") {
				t.Fatalf("after %d ms %s was left", i*20, e.Name())
			}
		}
	}
	t.Logf("%d of 12 copies were done before the kill", whole)
}

// kill -9 of an overwrite in the middle leaves a target that says so, that does
// not boot or mount, that is no source, and that an overwrite repairs.
func TestKilledOverwriteIsKnownAsIncomplete(t *testing.T) {
	testkit.Need(t, "mkfs.ext4", "blkid")
	dir := lab(t)
	golden := filepath.Join(dir, "golden.img")
	command(t, "truncate", "-s", "256M", golden)
	command(t, "mkfs.ext4", "-q", "-F", "-L", "golden", golden)
	image := write(t, filepath.Join(dir, "web1.img"), 256<<20, 2)
	token := strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitOK).out, "\t")[1]

	cmd := child(t.Context(), "overwrite", "-v", "--sparse", "off", golden, image, "--confirm", token)
	underWay(t, cmd)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()

	imgward(t, nil, "check", image).want(t, exitOK, "did not finish: it is incomplete", "imgward overwrite "+golden+" "+image)
	if out, err := exec.Command("blkid", "-p", image).CombinedOutput(); err == nil {
		t.Errorf("half an image is recognised: %s", out)
	}
	imgward(t, nil, "copy", image, filepath.Join(dir, "new.img")).want(t, exitRefused, "self.incomplete")
	token = strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitOK).out, "\t")[1]
	short := write(t, filepath.Join(dir, "short.img"), 4<<20, 3)
	imgward(t, nil, "overwrite", short, image, "--confirm", token).want(t, exitFailed, "too short to make it whole", "nothing was written")
	imgward(t, nil, "check", image).want(t, exitOK, "incomplete")
	imgward(t, nil, "overwrite", golden, image, "--confirm", token).want(t, exitOK)
	if s := imgward(t, nil, "check", image).want(t, exitOK); strings.Contains(s.out, "incomplete") {
		t.Errorf("a repaired target is still called incomplete:\n%s", s.out)
	}
	if got := command(t, "blkid", "-p", "-o", "value", "-s", "LABEL", image); got != "golden" {
		t.Errorf("the repaired target has label %q", got)
	}
}

// ^C during an overwrite stops it, and the status says that something was written.
func TestInterrupt(t *testing.T) {
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 64<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 64<<20, 2)
	token := strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitOK).out, "\t")[1]
	cmd := child(t.Context(), "overwrite", "-v", golden, image, "--confirm", token)
	stderr := underWay(t, cmd)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	incomplete := strings.Contains(imgward(t, nil, "check", image).out, "incomplete")
	switch {
	case code == exitIncomplete && incomplete && strings.Contains(string(rest), "is incomplete: interrupted"):
	case code == exitOK && !incomplete && sum(t, image) == sum(t, golden):
		t.Log("done before the interrupt")
	default:
		t.Errorf("exit status %d, incomplete is %v\n%s", code, incomplete, rest)
	}
}

// underWay starts an overwrite and returns when data is on its way: the target's
// first and last MiB are zero then.
func underWay(t *testing.T, cmd *exec.Cmd) io.Reader {
	t.Helper()
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stderr := bufio.NewReader(pipe)
	for {
		line, err := stderr.ReadString('\n')
		if err != nil {
			t.Fatalf("the overwrite ended early: %v", err)
		}
		if strings.Contains(line, "step=transfer") {
			return stderr
		}
	}
}

// An overwrite cannot be suspended: whoever opens the target would wait for it.
// It goes on and says so. Who is refused meanwhile is told of.
func TestCannotBeSuspended(t *testing.T) {
	testkit.Need(t, "root", "cat")
	dir := lab(t)
	golden := write(t, filepath.Join(dir, "golden.img"), 256<<20, 1)
	image := write(t, filepath.Join(dir, "web1.img"), 256<<20, 2)
	token := strings.Split(imgward(t, nil, "check", "--porcelain", image).want(t, exitOK).out, "\t")[1]
	cmd := child(t.Context(), "overwrite", "-v", golden, image, "--confirm", token)
	stderr := underWay(t, cmd)
	for _, sig := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cat", image).Output(); err == nil {
		t.Errorf("the target was opened while it was written: %d bytes", len(out))
	}
	rest, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, rest)
	}
	for _, want := range []string{"cannot be suspended while it writes", "(cat) started by process", "tried to open it and was refused"} {
		if !strings.Contains(string(rest), want) {
			t.Errorf("%q is not in\n%s", want, rest)
		}
	}
	if sum(t, image) != sum(t, golden) {
		t.Error("the image is not equal to the golden one")
	}
}
