package guard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Mark records that a write was begun and has not been finished. It lies in
// a file of the state directory's folder "incomplete", written and synced before
// the first byte of the target is, and removed after the last.
type Mark struct {
	ID       string    `json:"id"`      // see stableID
	Lasting  bool      `json:"lasting"` // whether ID means the same after a reboot
	Path     string    `json:"path"`
	Numbers  ID        `json:"numbers"` // of this boot
	Boot     string    `json:"boot"`
	PID      string    `json:"pid"`
	PIDs     string    `json:"pid-namespace"` // that PID is of; "" if it is not known
	Start    string    `json:"start"`         // of the process, in clock ticks since boot
	Command  []string  `json:"command"`
	Started  time.Time `json:"started"`
	previous []byte    // a mark that this one stands in for
	begun    bool      // previous is known, so that restore can undo what write did
	file     string
	count    string // the file that counts the writes
	writes   uint64 // begun before this one
}

func marksDir(host *Host) string { return filepath.Join(host.State, "incomplete") }

// makeMark prepares the mark of t; write puts it on disk.
func makeMark(ctx context.Context, host *Host, t *Target, now time.Time, command []string) (*Mark, error) {
	m := &Mark{Path: t.Real, Numbers: t.ID, Boot: bootID(host), PID: strconv.Itoa(os.Getpid()), PIDs: pidNamespace(host), Command: command, Started: now.UTC().Truncate(time.Second)}
	m.ID, m.Lasting = stableID(ctx, host, t)
	var err error
	if m.Start, err = startTime(host, m.PID); err != nil {
		return nil, err
	}
	m.file = filepath.Join(marksDir(host), fileName(m.ID))
	m.count = countFile(host, m.ID)
	m.writes, err = writesBegun(host, m.ID)
	return m, err
}

// fileName makes a file name of a stable id, which may hold anything.
func fileName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:12])
}

// countFile holds the number of writes that were begun to one target.
func countFile(host *Host, id string) string {
	return filepath.Join(host.State, "writes", fileName(id))
}

// writesBegun tells how many writes imgward began to the target of this id.
func writesBegun(host *Host, id string) (uint64, error) {
	b, err := host.FS.ReadFile(countFile(host, id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: not a count of writes", quote(countFile(host, id)))
	}
	return n, nil
}

// write puts the mark on disk so that it survives a power failure.
func (m *Mark) write() error {
	for _, dir := range []string{filepath.Dir(m.file), filepath.Dir(m.count)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := replaceFile(m.count, strconv.AppendUint(nil, m.writes+1, 10)); err != nil {
		return err
	}
	previous, err := os.ReadFile(m.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m.previous, m.begun = previous, true
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(m.file, append(text, '\n'))
}

// remove takes the mark away after the target is whole.
func (m *Mark) remove() error {
	if err := os.Remove(m.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(m.file))
}

// restore undoes write, for a target that was not touched after all.
func (m *Mark) restore() error {
	if !m.begun {
		return nil
	}
	if m.previous == nil {
		return m.remove()
	}
	return replaceFile(m.file, m.previous)
}

// replaceFile writes a file under a temporary name, syncs it, renames it into
// place and syncs the directory. That name is the file's own, so that what is left
// under it by one who was killed goes with the next.
func replaceFile(name string, data []byte) error {
	next := filepath.Join(filepath.Dir(name), ".new-"+filepath.Base(name))
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// marks reads the records of unfinished writes and tells whether the target, or
// something over or under it, is in the middle of one or was left behind by one.
type marks struct{}

func (marks) Name() string { return "marks" }

func (marks) Reads() []string {
	return []string{
		"/var/lib/imgward/incomplete", "/var/lib/imgward/incomplete/*", "/proc", "/proc/*/stat", "/proc/*/ns/pid", "/proc/sys/kernel/random/boot_id",
		"/dev/disk/by-uuid", "/dev/disk/by-uuid/*", "/sys/block/*/wwid", "/sys/block/*/device/wwid", "/sys/block/*/serial",
		"/sys/block/*/device/serial", "/sys/block/*/loop/backing_file", "identity",
	}
}

// Collect implements [Collector].
func (marks) Collect(ctx context.Context, host *Host, t *Target, s *Sheet) {
	dir := marksDir(host)
	names, err := host.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || t.ID.Kind == KindMissing {
		return
	}
	if err != nil {
		s.Blind(dir, err)
		return
	}
	id, boot := "", bootID(host)
	for _, name := range names {
		file := dir + "/" + name
		if strings.HasPrefix(name, ".new-") {
			continue // never became a mark
		}
		m, err := readMark(host, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // finished since the listing
		}
		if err != nil {
			s.Blind(file, err)
			continue
		}
		if id == "" {
			id, _ = stableID(ctx, host, t)
		}
		rel, now := Unrelated, m.Boot == boot || m.Boot == unknownBoot || boot == unknownBoot
		if now {
			rel = t.Relate(m.Numbers)
		}
		if m.ID == id {
			rel = Same
		}
		if rel == Unrelated {
			continue
		}
		s.Found(m.finding(host, rel, now, file))
	}
}

func readMark(host *Host, file string) (*Mark, error) {
	b, err := host.FS.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var m Mark
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("not a record of imgward's: %w", err)
	}
	if m.ID == "" || m.PID == "" || m.Start == "" {
		return nil, errors.New("not a record of imgward's: no id or no process")
	}
	return &m, nil
}

func (m *Mark) writer() writer { return writer{m.PID, m.Start, m.Boot, m.PIDs} }

// finding says what the mark means. now tells that it is of this boot, or may be.
func (m *Mark) finding(host *Host, rel Relation, now bool, file string) Finding {
	words := make([]string, len(m.Command))
	for i, w := range m.Command {
		words[i] = quote(w)
	}
	f := Finding{
		Relation: rel, Subject: "imgward (process " + quote(m.PID) + ")", Key: "imgward." + m.PID,
		Source: quote(file) + ": " + strings.Join(words, " "),
	}
	since := m.Started.Format("2006-01-02 15:04:05 UTC")
	if now && m.writer().lives(host) {
		f.Code, f.Detail, f.Remedy = SelfWriting, "has been writing to it since "+since, "wait until it is done"
		return f
	}
	f.Code, f.Detail = SelfIncomplete, "began to write to it on "+since+" and did not finish: it is incomplete"
	f.Remedy = "overwrite it with a whole image first"
	return f
}
