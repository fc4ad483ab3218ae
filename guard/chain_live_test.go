package guard

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/internal/testkit"
)

// newChain puts two overlays of QEMU's making on the place's image, one on the
// other.
func newChain(t *testing.T) (b *place, overlay, top string) {
	t.Helper()
	testkit.Need(t, "qemu-img")
	b = newPlace(t)
	overlay, top = filepath.Join(b.dir, "a.qcow2"), filepath.Join(b.dir, "b.qcow2")
	b.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "web1.img", "-F", "raw", overlay)
	b.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", overlay, "-F", "qcow2", top)
	return b, overlay, top
}

func (b *place) run(name string, args ...string) {
	b.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// codes gives the codes of what refuses the image to be overwritten.
func (b *place) codes(path string) []Code {
	b.Helper()
	target, v, err := b.guard.Check(b.Context(), path)
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	return v.Codes()
}

// The base of a machine that is not running is refused and not touched; the top
// of the chain is free; and what the refusal advises makes the base free.
func TestBaseOfStoppedMachine(t *testing.T) {
	b, overlay, top := newChain(t)
	b.guard.Collectors = append(b.guard.Collectors, chain{})
	err := b.guard.Write(t.Context(), b.path, unexpected)
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("%v, want a refusal", err)
	}
	v := refused.Verdict
	want := []string{"chain.parent same " + overlay, "chain.parent above " + top}
	if got := found(v.Because); !slices.Equal(got, want) {
		t.Errorf("refused because of %q, want %q", got, want)
	}
	b.wantContent(b.path, b.content)
	if got := b.codes(overlay); !slices.Equal(got, []Code{ChainParent}) {
		t.Errorf("the overlay in the middle: %v", got)
	}
	if got := b.codes(top); len(got) != 0 {
		t.Errorf("the top of the chain: %v", got)
	}
	advice, command, ok := v.Because[0].Remedy, "", false
	if _, command, ok = strings.Cut(advice, "\""); ok {
		command, _, ok = strings.Cut(command, "\"")
	}
	if !ok {
		t.Fatalf("no command in %q", advice)
	}
	b.run("sh", "-c", command)
	if got := b.codes(b.path); len(got) != 0 {
		t.Errorf("after %s: %v", command, got)
	}
}

// While QEMU runs from the top, the base is refused for that as well.
func TestBaseOfRunningMachine(t *testing.T) {
	testkit.Need(t, "root", "qemu-system-x86_64")
	b, overlay, top := newChain(t)
	b.guard.Collectors = []Collector{procfd{}, lease{}, chain{}}
	cmd := exec.Command("qemu-system-x86_64", "-S", "-machine", "none", "-display", "none", "-monitor", "stdio",
		"-blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename="+top)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if _, err := bufio.NewReader(out).ReadString(')'); err != nil { // its prompt is "(qemu)"
		t.Fatal(err)
	}
	for _, path := range []string{b.path, overlay} {
		if got := b.codes(path); !slices.Contains(got, FDVM) || !slices.Contains(got, ChainParent) {
			t.Errorf("%s: %v", path, got)
		}
	}
	if _, err := in.Write([]byte("quit\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := b.codes(b.path); slices.Contains(got, FDVM) || !slices.Contains(got, ChainParent) {
		t.Errorf("when QEMU has ended: %v", got)
	}
}

// Files beside one another can be written to at the same time: that each guard
// reads the headers of the others' targets disturbs none of them.
func TestWritesSideBySide(t *testing.T) {
	testkit.Need(t, "root")
	b := newPlace(t)
	b.guard.Collectors = []Collector{procfd{}, lease{}, locks{}, chain{}, self{}, marks{}}
	b.guard.Host.Patience = 50 * time.Millisecond
	paths := []string{b.path}
	for i := range 5 {
		paths = append(paths, filepath.Join(b.dir, strconv.Itoa(i)))
		b.put(paths[i+1], b.content)
	}
	want := bytes.Repeat([]byte("new!"), 4096)
	var wg sync.WaitGroup
	for _, path := range paths {
		wg.Go(func() {
			if err := b.guard.Write(t.Context(), path, b.fill(want)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	wg.Wait()
	for _, path := range paths {
		b.wantContent(path, want)
	}
}
