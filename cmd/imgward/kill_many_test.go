package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/internal/testkit"
	"imgward/xenstore"
)

// A victim is a target whose overwrites are killed.
type victim struct {
	*testing.T
	path    string
	file    string // path, or what lies under the device
	device  bool
	words   []string // what hints say is to be added
	store   *xenstore.Conn
	goldens []string
	wholes  [][sha256.Size]byte // what it may hold when it is not incomplete

	before, middle, after int // how many were killed when
}

// look asks the guard what an earlier write left, and for the token.
func (v *victim) look() (token string, codes []guard.Code) {
	v.Helper()
	g := &guard.Guard{
		Host:   &guard.Host{FS: hostfs.Live(), Store: v.store, State: os.Getenv("IMGWARD_STATE")},
		Policy: guard.Policy{Operation: guard.Check},
	}
	for _, c := range guard.Collectors() {
		if slices.Contains([]string{"xen", "self", "marks"}, c.Name()) {
			g.Collectors = append(g.Collectors, c)
		}
	}
	target, verdict, err := g.Check(v.Context(), v.path)
	if err != nil {
		v.Fatal(err)
	}
	defer target.Close()
	if err := verdict.Err(); err != nil {
		v.Fatal(err)
	}
	if token, err = g.Token(v.Context(), target); err != nil {
		v.Fatal(err)
	}
	for _, f := range verdict.All() {
		codes = append(codes, f.Code)
	}
	return token, codes
}

// free fails if anything refuses or holds up one who wants the target.
func (v *victim) free() {
	v.Helper()
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if v.device {
		flags |= unix.O_EXCL
	}
	fd, err := unix.Open(v.path, flags, 0)
	if err != nil {
		v.Fatalf("open: %v", err)
	}
	defer unix.Close(fd)
	if v.device {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	} else {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	}
	if err != nil {
		v.Errorf("flock or lease: %v", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock); err != nil || lock.Type != unix.F_UNLCK {
		v.Errorf("somebody has bytes locked: %+v, %v", lock, err)
	}
}

// kill kills an overwrite after a while, and looks at what it left.
func (v *victim) kill(n int, after time.Duration) {
	v.Helper()
	token, was := v.look()
	ctx, cancel := context.WithTimeout(v.Context(), after)
	defer cancel()
	cmd := child(ctx, slices.Concat([]string{"overwrite", "--no-verify", "--digest", "none", v.goldens[n%2], v.path, "--confirm", token}, v.words)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil && ctx.Err() != nil {
		return // the time was over before it had begun
	}
	if cmd.ProcessState == nil {
		v.Fatal(err)
	}
	code := cmd.ProcessState.ExitCode()
	v.free()
	now, codes := v.look()
	incomplete := slices.Contains(codes, guard.SelfIncomplete)
	switch {
	case code == exitOK:
		v.after++
	case code >= 0:
		v.Errorf("exit status %d: %s", code, out)
	case now != token: // it counts the writes that began
		v.middle++
	default:
		v.before++
	}
	if slices.Contains(codes, guard.ClaimLeft) && !incomplete {
		v.Errorf("killed after %v, it left a claim on a target that is not incomplete: %q", after, codes)
	}
	if code == exitOK && (incomplete || slices.Contains(codes, guard.ClaimLeft)) {
		v.Errorf("it did not clear away what was left before: %q", codes)
	}
	if !incomplete && !slices.Contains(v.wholes, sum(v.T, v.file)) {
		v.Errorf("killed after %v, it left something half done that is not said to be incomplete; before it %q", after, was)
	}
}

// kill -9 at any moment leaves nothing that refuses or holds up anybody, but for a
// claim on what is recorded as incomplete; and what is not, is whole.
func TestKilledAtAnyMoment(t *testing.T) {
	testkit.Need(t, "root", "losetup", "xenstore-ls")
	dir := lab(t)
	conn, err := xenstore.Dial(t.Context(), &xenstore.Config{Path: xenstored(t).Socket()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var victims []*victim
	for i := range 4 {
		// Of its own: a look at a target goes into the images beside it.
		dir := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		v := &victim{T: t, file: write(t, filepath.Join(dir, "web1.img"), 2<<20, 2), device: i%2 == 0, store: conn}
		for seed := range byte(2) {
			v.goldens = append(v.goldens, write(t, filepath.Join(dir, fmt.Sprintf("golden%d.img", seed)), 2<<20, seed))
		}
		for _, name := range append(v.goldens, v.file) {
			v.wholes = append(v.wholes, sum(t, name))
		}
		if v.path = v.file; v.device {
			v.path = loop(t, v.file)
			for line := range strings.Lines(imgward(t, nil, "check", v.path).err) {
				if _, words, ok := strings.Cut(line, "add: "); ok {
					v.words = strings.Fields(words)
				}
			}
		}
		victims = append(victims, v)
	}
	kills := 40
	if os.Getenv("REQUIRE") == "all" {
		kills = 200
	}
	var killing sync.WaitGroup
	for _, v := range victims {
		killing.Go(func() {
			token, _ := v.look()
			start := time.Now()
			if out, err := child(t.Context(), slices.Concat([]string{"overwrite", v.goldens[0], v.path, "--confirm", token}, v.words)...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
				return
			}
			usual := time.Since(start)
			for n := range kills / len(victims) {
				v.kill(n, rand.N(usual*11/10))
			}
		})
	}
	killing.Wait()
	before, middle := 0, 0
	for _, v := range victims {
		before, middle = before+v.before, middle+v.middle
		t.Logf("%s: %d killed before, %d in the middle, %d were done", v.path, v.before, v.middle, v.after)
		token, _ := v.look()
		imgward(t, nil, slices.Concat([]string{"overwrite", v.goldens[0], v.path, "--confirm", token}, v.words)...).want(t, exitOK)
	}
	if before == 0 || middle == 0 {
		t.Error("that is not at any moment")
	}
	if left := claims(t); len(left) > 0 {
		t.Errorf("left in xenstore: %q", left)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "state", "incomplete")); err == nil && len(left) > 0 {
		t.Errorf("%d records are left", len(left))
	}
	if n := strings.Count(command(t, "losetup", "-n", "-O", "BACK-FILE"), dir); n != len(victims)/2 {
		t.Errorf("%d loop devices, want %d", n, len(victims)/2)
	}
}
