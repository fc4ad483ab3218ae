package guard

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgward/internal/testkit"
)

// An opener is a row of the table of openers in ARCHITECTURE.md: a way to come to a
// target while it is written. The shell commands find the target's path in F, a
// bind mount of it in A, a directory in M, and a file for their notes in O.
type opener struct {
	needs []string
	comes string
	goes  string // undoes what comes did
	swap  bool   // the target holds a swap area, and else an ext4 file system
}

var openers = map[string]opener{
	"losetup":  {needs: []string{"losetup"}, comes: `losetup --find --show "$F" >"$O"`, goes: `losetup -d "$(cat "$O")"`},
	"qemu-img": {needs: []string{"qemu-img"}, comes: `qemu-img convert -f raw -O raw "$F" "$O"`},
	"qemu-io":  {needs: []string{"qemu-io"}, comes: `qemu-io -f raw -c "write 0 512" "$F"`},
	"qemu-system-x86_64": {needs: []string{"qemu-system-x86_64"}, comes: `echo '{"execute":"qmp_capabilities"}{"execute":"quit"}' |
		qemu-system-x86_64 -S -nodefaults -display none -accel tcg -drive file="$F",format=raw,if=virtio -qmp stdio`},
	"dd":            {needs: []string{"dd"}, comes: `dd if=/dev/zero of="$F" bs=512 count=1 conv=notrunc`},
	"mount -o loop": {needs: []string{"mount", "umount", "losetup"}, comes: `mount -o loop "$F" "$M"`, goes: `umount "$M"`},
	"cat":           {needs: []string{"cat"}, comes: `cat "$F"`},
	"swapon":        {needs: []string{"swapon", "swapoff", "mkswap"}, comes: `swapon "$F"`, goes: `swapoff "$F"`, swap: true},
	"bind mount":    {needs: []string{"dd"}, comes: `dd if=/dev/zero of="$A" bs=512 count=1 conv=notrunc`},
}

// protections are the columns of the table: what stands before the target.
var protections = map[string]func(t *testing.T, b *place){
	"file, gate": func(*testing.T, *place) {},
	"file, lease": func(_ *testing.T, b *place) {
		b.guard.Lockers = slices.DeleteFunc(b.guard.Lockers, func(l Locker) bool { return l.Name() == "gate" })
	},
	"device": func(t *testing.T, b *place) { b.path, _ = loopDevice(t, b) },
}

// outcomes are what the cells of the table can say, and what shows it.
var outcomes = map[string]struct {
	let    bool // the opener gets what it wants, and is gone before the write ends or afterwards
	breaks Code // the hold
	told   Code // to the operator
}{
	"fails, told":               {false, "", HoldDenied},
	"fails":                     {false, "", ""},
	"stops it: `hold.lease`":    {true, HoldLease, ""},
	"stops it: `loop.attached`": {true, LoopAttached, ""},
	"stops it: `fd.write`":      {true, FDWrite, ""},
	"told":                      {true, "", FDRead},
}

// openersTable reads the table of ARCHITECTURE.md: what becomes of an opener under a
// protection.
func openersTable(t *testing.T) (table map[string]map[string]string, columns []string) {
	t.Helper()
	b, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n## Who comes while it is written\n")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no table of openers")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	table = map[string]map[string]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 || strings.HasPrefix(cells[1], "---") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		cells = cells[1 : len(cells)-1]
		if columns == nil {
			columns = cells[1:]
			continue
		}
		if len(cells) != len(columns)+1 || table[cells[0]] != nil {
			t.Fatalf("malformed row %q", line)
		}
		table[cells[0]] = map[string]string{}
		for i, c := range columns {
			table[cells[0]][c] = cells[i+1]
		}
	}
	return table, columns
}

// Every cell of the table of openers is what happens, and there is no way to come,
// and no protection, that the table does not have.
func TestOpeners(t *testing.T) {
	testkit.Need(t, "root", "mkfs.ext4")
	table, columns := openersTable(t)
	if len(table) != len(openers) || len(columns) != len(protections) {
		t.Errorf("the table has %d openers and %d protections, want %d and %d", len(table), len(columns), len(openers), len(protections))
	}
	for name, row := range table {
		for _, column := range columns {
			t.Run(name+"/"+strings.ReplaceAll(column, ", ", " "), func(t *testing.T) {
				o, ok := openers[name]
				protect, known := protections[column]
				if !ok || !known {
					t.Fatal("nothing tests this cell")
				}
				testkit.Need(t, o.needs...)
				o.test(t, protect, row[column])
			})
		}
	}
}

func (o opener) test(t *testing.T, protect func(*testing.T, *place), says string) {
	want, ok := outcomes[says]
	if !ok {
		t.Fatalf("the table says %q", says)
	}
	b := newPlace(t)
	golden := filepath.Join(b.dir, "golden.img")
	b.put(golden, make([]byte, 1<<20))
	b.put(b.path, make([]byte, 1<<20))
	format := []string{"mkfs.ext4", "-q", "-F", golden}
	if o.swap {
		format = []string{"mkswap", "-q", golden}
	}
	if out, err := exec.Command(format[0], format[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", format, err, out)
	}
	content, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	protect(t, b)
	b.guard.Collectors = []Collector{holders{}, exports{}, dm{}, mounts{}, swaps{}, lease{}, excl{}, self{}, marks{}}
	b.guard.Host.Patience = 100 * time.Millisecond
	told := make(chan Finding, 100)
	b.guard.Notice = func(f Finding) {
		if f.Code != HoldInForce {
			told <- f
		}
	}
	run := o.shell(t, b)

	// Without imgward it comes, or the cell proves nothing.
	b.put(b.path, content)
	if out, err := run(o.comes).CombinedOutput(); err != nil {
		t.Fatalf("without a hold: %v: %s", err, out)
	}
	undo := func() {
		if o.goes != "" {
			if out, err := run(o.goes).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", o.goes, err, out)
			}
		}
	}
	undo()

	ended := make(chan error, 1)
	err = b.guard.Write(t.Context(), b.path, func(ctx context.Context, p *Permit) error {
		if err := b.fill(content)(ctx, p); err != nil {
			return err
		}
		cmd := run(o.comes)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		goOn := make(chan struct{})
		go func() {
			<-goOn
			var out bytes.Buffer
			_, _ = out.ReadFrom(stdout)
			ended <- cmd.Wait()
		}()
		switch {
		case want.breaks != "":
			close(goOn)
			<-ctx.Done()
			return context.Cause(ctx)
		case want.told != "" && want.let:
			// What it reads is not taken off it, so that it stays.
			if f := next(ctx, t, told); f.Code != want.told {
				t.Errorf("told of %s: %s", f.Code, f.sentence())
			}
			close(goOn)
		default:
			close(goOn)
		}
		err = <-ended
		if (err == nil) != want.let {
			t.Errorf("it ended with %v", err)
		}
		ended <- err
		return nil
	})
	came := <-ended
	if came == nil {
		undo()
	}
	var broken *BrokenError
	switch {
	case want.breaks == "" && err != nil:
		t.Error(err)
	case want.breaks != "" && (!errors.As(err, &broken) || broken.Finding.Code != want.breaks):
		t.Errorf("%v, want one that is broken by %s", err, want.breaks)
	case want.told == HoldDenied && len(told) == 0:
		t.Error("nobody was told of it")
	}
	for want.told == HoldDenied && len(told) > 0 {
		if f := <-told; f.Code != HoldDenied {
			t.Errorf("told of %s: %s", f.Code, f.sentence())
		}
	}
}

// shell gives a way to run a script with the target and an alias of it at hand.
func (o opener) shell(t *testing.T, b *place) func(script string) *exec.Cmd {
	t.Helper()
	alias, mnt := filepath.Join(b.dir, "alias"), filepath.Join(b.dir, "mnt")
	b.put(alias, nil)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "--bind", b.path, alias).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", alias).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", script)
		cmd.Env = append(os.Environ(), "F="+b.path, "A="+alias, "M="+mnt, "O="+filepath.Join(b.dir, "notes"))
		return cmd
	}
}
