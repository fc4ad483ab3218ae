package guard

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
)

// self keeps imgward from its own things: the program that is running and the
// records of unfinished writes.
type self struct{}

func (self) Name() string { return "self" }

func (self) Reads() []string {
	return []string{"/proc/self/exe", "/var/lib/imgward", "/var/lib/imgward/incomplete", "/var/lib/imgward/writes"}
}

// Collect implements [Collector].
func (self) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	for _, dir := range []string{host.State, marksDir(host), filepath.Dir(countFile(host, ""))} {
		st, err := host.FS.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.Blind(dir, err)
			continue
		}
		if above, err := host.FS.Stat(filepath.Dir(t.Real)); err == nil && above.Dev == st.Dev && above.Ino == st.Ino {
			s.Found(Finding{Code: SelfState, Relation: Same, Subject: "imgward", Key: "imgward", Detail: "keeps its own records there", Source: quote(dir)})
			break
		}
	}
	if t.ID.Kind != KindFile {
		return
	}
	st, err := host.FS.Stat("/proc/self/exe")
	if errors.Is(err, fs.ErrNotExist) {
		return // the program's file was deleted
	}
	if err != nil {
		s.Blind("the running program", err)
		return
	}
	if id, ok := idOf(st); ok && id == t.ID {
		s.Found(Finding{Code: SelfBinary, Relation: Same, Subject: "imgward", Key: "imgward", Detail: "is running from this very file", Source: "/proc/self/exe", Remedy: "check the path"})
	}
}

// overlap refuses a target that is the source, or lies over, under or beside
// it. It is added to the list for one operation, whose source it knows.
type overlap struct{ source *Target }

func (overlap) Name() string { return "self" }

func (overlap) Reads() []string { return nil }

// Collect implements [Collector].
func (o overlap) Collect(_ context.Context, _ *Host, t *Target, s *Sheet) {
	rel := t.Relate(o.source.ID)
	if rel == Unrelated {
		return
	}
	detail := "is the same as the target"
	if rel != Same {
		detail = "overlaps the target" + t.via(rel, o.source.ID)
	}
	s.Found(Finding{
		Code: SelfOverlap, Relation: rel, Subject: "the source " + quote(o.source.Path), Key: "source", Detail: detail,
		Source: o.source.ID.String(), Remedy: "check both paths",
	})
}
