// Command refuses runs imgward and fails unless it refuses, as the cases of the
// tests on a real Xen expect:
//
//	refuses WHO CODE... -- COMMAND OPERAND... TARGET
//
// The exit status has to be 3, each of the codes has to be among the reasons, one
// of them has to name the domain WHO (- for nobody's), and TARGET has to be as it
// was. Then each collector that the codes belong to is asked alone, which shows
// that none leans on another.
//
// FROM=2M compares TARGET from there on, where a domain writes to the rest. HUNG=1
// says that imgward is meant to be blind. What it said goes to descriptor 3. It is one
// program, because a process costs a tenth of a second where all is emulated.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/hostfs"
	"imgward/xenstore"
)

// compared is how much of the target is looked at, in bytes: imgward would write
// to the beginning first.
const compared = 16 << 20

// tries is how often is asked where the answer is that imgward could not look: on
// a busy, emulated host xenstored is sometimes slower than imgward's three seconds.
const tries = 10

func main() {
	dashes := slices.Index(os.Args, "--")
	if dashes < 2 || len(os.Args) < dashes+3 {
		fmt.Fprintln(os.Stderr, "usage: refuses WHO CODE... -- COMMAND OPERAND... TARGET")
		os.Exit(64)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2:dashes], os.Args[dashes+1:]); err != nil {
		fmt.Println("refuses:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, who string, codes, command []string) error {
	target := command[len(command)-1]
	before, err := contents(target)
	if err != nil {
		return err
	}
	reasons, err := ask(ctx, command)
	if err != nil {
		return err
	}
	after, err := contents(target)
	if err != nil {
		return err
	}
	if !bytes.Equal(before, after) {
		return fmt.Errorf("%s was changed", target)
	}
	for _, code := range codes {
		if !slices.ContainsFunc(reasons, func(r reason) bool { return r.Code == code }) {
			return fmt.Errorf("no %s", code)
		}
	}
	if who != "-" && !slices.ContainsFunc(reasons, func(r reason) bool { return r.Domain == who }) {
		return fmt.Errorf("domain %s is not named", who)
	}
	return alone(ctx, target, codes)
}

// contents reads what is compared of the target. A device is read past its cache,
// which it does not share with its disk.
func contents(path string) ([]byte, error) {
	from, err := size(os.Getenv("FROM"))
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Type()&fs.ModeDevice != 0 {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_DIRECT); err != nil {
			return nil, err
		}
	}
	buf, err := unix.Mmap(-1, 0, compared, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	n, err := f.ReadAt(buf, from)
	if err == io.EOF {
		err = nil
	}
	return buf[:n], err
}

// size reads "2M"; "" is 0.
func size(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(s, "M"), 10, 32)
	return n << 20, err
}

// A reason is a finding as imgward prints it.
type reason struct{ Code, Domain, Subject, Detail, Outcome string }

// ask runs imgward until it can look, and gives the reasons for which it refuses.
func ask(ctx context.Context, command []string) ([]reason, error) {
	for try := 1; ; try++ {
		c := exec.CommandContext(ctx, "imgward", append([]string{"--json"}, command...)...)
		var remarks strings.Builder
		c.Stderr = &remarks
		said, err := c.Output()
		if exited := new(exec.ExitError); err != nil && !errors.As(err, &exited) {
			return nil, err
		}
		if status := c.ProcessState.ExitCode(); status != 3 {
			return nil, fmt.Errorf("exit status %d:\n%s%s", status, said, &remarks)
		}
		var verdict struct{ Findings []reason }
		if err := json.Unmarshal(said, &verdict); err != nil {
			return nil, fmt.Errorf("%w: %s", err, said)
		}
		refusing := slices.DeleteFunc(verdict.Findings, func(r reason) bool { return r.Outcome != "refuses" })
		blind := slices.ContainsFunc(refusing, func(r reason) bool { return strings.HasPrefix(r.Code, "blind.") })
		if blind && os.Getenv("HUNG") == "" && try < tries {
			continue
		}
		if _, err := os.NewFile(3, "descriptor 3").Write(said); err != nil {
			return nil, err
		}
		for _, r := range refusing {
			fmt.Printf("%s %s: %s %s\n", r.Code, r.Domain, r.Subject, r.Detail)
		}
		return refusing, nil
	}
}

// collectors tell which collector a code belongs to, by the code's first word,
// where that is not its name. "" are those about the command, not the target.
var collectors = map[string]string{
	"loop": "holders", "holder": "holders", "fd": "procfd", "mount": "mounts", "config": "configs", "content": "contents",
	"lock": "locks", "export": "exports", "domain": "", "source": "",
}

// alone fails unless each of the codes refuses with nothing but its collector.
func alone(ctx context.Context, target string, codes []string) error {
	for _, code := range codes {
		word, rest, _ := strings.Cut(code, ".")
		if word == "blind" {
			word = rest
		}
		name, ok := collectors[word]
		if !ok {
			name = word
		}
		if name == "" {
			continue
		}
		if err := refusesWith(ctx, target, name, code); err != nil {
			return err
		}
	}
	return nil
}

func refusesWith(ctx context.Context, path, name, code string) error {
	i := slices.IndexFunc(guard.Collectors(), func(c guard.Collector) bool { return c.Name() == name })
	if i < 0 {
		return fmt.Errorf("there is no collector %s", name)
	}
	for try := 1; ; try++ {
		codes, err := judge(ctx, path, guard.Collectors()[i])
		switch {
		case err != nil:
			return err
		case slices.Contains(codes, guard.Code(code)):
			return nil
		case try == tries || os.Getenv("HUNG") != "" || !slices.Contains(codes, guard.Code("blind."+name)):
			return fmt.Errorf("%s alone has %v, not %s", name, codes, code)
		}
	}
}

// judge gives the codes that refuse with one collector alone.
func judge(ctx context.Context, path string, c guard.Collector) ([]guard.Code, error) {
	host := &guard.Host{FS: hostfs.Live(), State: "/var/lib/imgward", Patience: 200 * time.Millisecond}
	store, err := xenstore.Dial(ctx, &xenstore.Config{Timeout: 3 * time.Second})
	switch {
	case err == nil:
		host.Store = store
		defer store.Close()
	case !errors.Is(err, fs.ErrNotExist):
		host.StoreErr = err
	}
	g := &guard.Guard{Host: host, Collectors: []guard.Collector{c}, Policy: guard.Policy{Operation: guard.Overwrite}}
	t, v, err := g.Check(ctx, path)
	if err != nil {
		return nil, err
	}
	return v.Codes(), t.Close()
}
