package hostfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"imgward/guard/hostfs"
)

// TestCapturedHosts requires of every captured host that it can be loaded, that
// the targets of its questions are there or known to be missing, and that what it
// says of one thing in several places agrees.
func TestCapturedHosts(t *testing.T) {
	files, err := filepath.Glob("../../testdata/hosts/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured hosts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r := load(t, string(text))
			questions := 0
			for line := range strings.Lines(r.Comment()) {
				if q, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "question: "); ok {
					questions++
					checkQuestion(t, r, q)
				}
			}
			if questions == 0 {
				t.Error("no questions")
			}
			checkDevices(t, r)
			checkProcesses(t, r)
		})
	}
}

func checkQuestion(t *testing.T, r *hostfs.Root, question string) {
	verb, target, _ := strings.Cut(question, " ")
	h, err := r.Open(target)
	if verb == "create" {
		_, dirErr := r.Open(path.Dir(target))
		if !errors.Is(err, fs.ErrNotExist) || dirErr != nil {
			t.Errorf("%s: %v, and its directory: %v", question, err, dirErr)
		}
		return
	}
	if err != nil || verb != "overwrite" && verb != "read" {
		t.Errorf("%s: %v", question, err)
		return
	}
	asks := []hostfs.Question{hostfs.Lease}
	if h.Stat.Type == hostfs.BlockDevice {
		asks = []hostfs.Question{hostfs.Excl, hostfs.Size, hostfs.ReadOnly}
	}
	for _, q := range asks {
		if _, err := r.Ask(t.Context(), q, h.Name()); errors.Is(err, hostfs.ErrNotCaptured) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", question, err)
		}
	}
}

// unreadable says that the host itself could not be read there.
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, fs.ErrPermission)
}

// checkDevices compares sysfs, the device nodes and the ioctls.
func checkDevices(t *testing.T, r *hostfs.Root) {
	names, err := r.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		dir := "/sys/block/" + name
		number, err := r.ReadFile(dir + "/dev")
		if unreadable(err) {
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		dev := strings.TrimSuffix(string(number), "\n")
		st, err := r.Stat("/dev/" + name)
		if err != nil || st.Type != hostfs.BlockDevice || hostfs.FormatDev(st.Rdev) != dev {
			t.Errorf("/dev/%s: %+v, %v, not %s", name, st, err, dev)
		}
		if same, err := r.ReadFile("/sys/dev/block/" + dev + "/dev"); string(same) != string(number) || err != nil {
			t.Errorf("/sys/dev/block/%s: %q, %v", dev, same, err)
		}
		for _, side := range []string{"slaves", "holders"} {
			others, err := r.ReadDir(dir + "/" + side)
			if err != nil {
				t.Error(err)
			}
			for _, o := range others {
				a, err1 := r.ReadFile(dir + "/" + side + "/" + o + "/dev")
				b, err2 := r.ReadFile("/sys/block/" + o + "/dev")
				if string(a) != string(b) || err1 != nil || err2 != nil {
					t.Errorf("%s/%s/%s: %q, %q, %v, %v", dir, side, o, a, b, err1, err2)
				}
			}
		}
		file, fileErr := r.ReadFile(dir + "/loop/backing_file")
		status, err := r.Ask(t.Context(), hostfs.LoopStatus, "/dev/"+name)
		if strings.HasPrefix(name, "loop") && (err == nil) != (fileErr == nil) {
			t.Errorf("%s: status %q, %v; file %q, %v", name, status, err, file, fileErr)
		}
		alias, aliasErr := r.ReadFile(dir + "/dm/name")
		status, err = r.Ask(t.Context(), hostfs.DMStatus, dev)
		_, tableErr := r.Ask(t.Context(), hostfs.DMTable, dev)
		if unreadable(errors.Join(aliasErr, err)) {
			continue
		}
		if strings.HasPrefix(name, "dm-") && (aliasErr != nil || err != nil || tableErr != nil ||
			!strings.HasSuffix(status, " name="+strconv.Quote(strings.TrimSuffix(string(alias), "\n")))) {
			t.Errorf("%s: %q, %v; name %q, %v; table: %v", name, status, err, alias, aliasErr, tableErr)
		}
	}
}

// checkProcesses requires that every descriptor of every process has a target, an
// identity and flags.
func checkProcesses(t *testing.T, r *hostfs.Root) {
	names, err := r.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range names {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		dir := "/proc/" + pid
		for _, name := range []string{"/comm", "/maps"} {
			if _, err := r.ReadFile(dir + name); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"/ns/mnt", "/ns/pid"} {
			if _, err := r.Readlink(dir + name); err != nil && !unreadable(err) {
				t.Error(err)
			}
		}
		fds, err := r.ReadDir(dir + "/fd")
		if err != nil && !unreadable(err) {
			t.Error(err)
		}
		for _, fd := range fds {
			_, err1 := r.Readlink(dir + "/fd/" + fd)
			_, err2 := r.Stat(dir + "/fd/" + fd)
			info, err3 := r.ReadFile(dir + "/fdinfo/" + fd)
			if err := errors.Join(err1, err2, err3); err != nil || !strings.Contains(string(info), "\nflags:\t") {
				t.Errorf("descriptor %s of process %s: %q, %v", fd, pid, info, err)
			}
		}
	}
}
