package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"imgward/guard/hostfs"
)

// managed tells storage that a tool stack keeps its own books of, by its layout
// alone: nobody is asked, so it works where the tool does not run, and it says
// nothing about who uses the target.
//
//   - XenServer and XCP-ng: file systems at /run/sr-mount/SR (the storage manager,
//     since XenServer 5), volume groups VG_XenStorage-SR, volumes VHD-VDI, LV-VDI
//     and QCOW2-VDI, links /dev/sm/phy/SR/VDI
//   - Qubes OS: the volume group qubes_dom0, images below /var/lib/qubes
//   - Proxmox VE, where /etc/pve is: volumes and images vm-ID-disk-N, and zvols
//     of that name through the links in /dev/zvol
//
// It does not see volumes that are not active, pools of Qubes in other groups
// and directories, and what tapdisk serves under another name.
type managed struct{}

func (managed) Name() string { return "managed" }

func (managed) Reads() []string {
	return []string{
		"/run/sr-mount", "/run/sr-mount/*", "/var/run/sr-mount", "/var/run/sr-mount/*", "/etc/xensource-inventory",
		"/dev/sm/phy", "/dev/sm/phy/*", "/dev/sm/phy/*/*",
		"/var/lib/qubes/appvms", "/var/lib/qubes/vm-templates",
		"/etc/pve", "/dev/zvol", "/dev/zvol/*", "/dev/zvol/*/*", "/dev/zvol/*/*/*", "/dev/zvol/*/*/*/*",
	}
}

// Collect implements [Collector].
func (managed) Collect(_ context.Context, host *Host, t *Target, s *Sheet) {
	m := &managedLook{host: host, t: t, s: s, up: sync.OnceValue(func() []ancestor {
		as, where, err := t.ancestors(host.FS)
		if err != nil {
			s.Blind(where, err)
		}
		return as
	})}
	m.volumes()
	m.repositories()
	m.links()
	m.qubesImages()
	m.proxmoxImage()
	m.zvols()
	m.say()
}

type managedLook struct {
	host   *Host
	t      *Target
	s      *Sheet
	claims []claim
	up     func() []ancestor // the directories that the target lies in
}

// A claim says that the target, or what overlaps it, is a tool's.
type claim struct {
	volume
	rel    Relation
	by     ID // through what
	source string
}

// volumes looks at the names of logical volumes that overlap the target.
func (m *managedLook) volumes() {
	for _, d := range m.t.stack.devices {
		if d.kind != "dm" || !strings.HasPrefix(d.uuid, "LVM-") {
			continue
		}
		group, name := splitMapperName(d.alias)
		v, ok := volumeOf(group, name)
		if !ok {
			continue
		}
		if rel := m.t.Relate(d.id); rel != Unrelated {
			m.claims = append(m.claims, claim{v, rel, d.id, "/sys/block/" + d.name + "/dm/name: " + quote(d.alias)})
		}
	}
}

// repositories looks at whether the target lies in a file system of the storage
// manager's, by whatever mount one came to it.
func (m *managedLook) repositories() {
	if m.t.ID.Kind == KindBlock {
		return
	}
	for _, dir := range []string{"/run/sr-mount", "/var/run/sr-mount"} {
		for _, sr := range m.list(dir) {
			if rest, ok := m.inside(dir + "/" + sr); ok {
				v := volume{code: ManagedXAPI, group: sr}
				if id, _, _ := strings.Cut(path.Base(rest), "."); isUUID(id) {
					v.name = id
				}
				m.claims = append(m.claims, claim{volume: v, rel: Same, by: m.t.ID, source: dir + "/" + sr})
			}
		}
	}
}

// links follows the names that the storage manager gives to what it has
// attached: /dev/sm/phy/SR/VDI.
func (m *managedLook) links() {
	const dir = "/dev/sm/phy"
	for _, sr := range m.list(dir) {
		for _, vdi := range m.list(dir + "/" + sr) {
			name := dir + "/" + sr + "/" + vdi
			if id, rel := m.relate(name); rel != Unrelated {
				m.claims = append(m.claims, claim{volume{code: ManagedXAPI, group: sr, name: vdi}, rel, id, name})
			}
		}
	}
}

func (m *managedLook) qubesImages() {
	if m.t.ID.Kind == KindBlock {
		return
	}
	for _, dir := range []string{"/var/lib/qubes/appvms", "/var/lib/qubes/vm-templates"} {
		if rest, ok := m.inside(dir); ok {
			vm, file := path.Split(rest)
			v := volume{code: ManagedQubes, group: path.Clean(vm)}
			for _, kind := range []string{"private", "root", "volatile"} {
				if strings.HasPrefix(file, kind) {
					v.name = kind
				}
			}
			if vm == "" {
				v.group = ""
			}
			m.claims = append(m.claims, claim{volume: v, rel: Same, by: m.t.ID, source: dir})
		}
	}
}

func (m *managedLook) proxmoxImage() {
	if m.t.ID.Kind == KindBlock {
		return
	}
	if v, ok := proxmoxVolume(m.t.Base); ok && path.Base(path.Dir(m.t.Real)) == v.group {
		m.claims = append(m.claims, claim{volume: v, rel: Same, by: m.t.ID, source: "/etc/pve"})
	}
}

// zvols finds the names of ZFS volumes that overlap the target: their devices,
// zd0 and so on, have none.
func (m *managedLook) zvols() {
	for _, d := range m.t.stack.devices {
		if strings.HasPrefix(d.name, "zd") && m.t.Relate(d.id) != Unrelated {
			m.zvolsIn("/dev/zvol", 4)
			return
		}
	}
}

func (m *managedLook) zvolsIn(dir string, depth int) {
	for _, n := range m.list(dir) {
		name := dir + "/" + n
		if v, ok := proxmoxVolume(n); ok {
			if id, rel := m.relate(name); rel != Unrelated {
				m.claims = append(m.claims, claim{v, rel, id, name})
			}
			continue
		}
		st, err := m.host.FS.Stat(name)
		switch {
		case err == nil && st.Type == hostfs.Directory && depth > 1:
			m.zvolsIn(name, depth-1)
		case err != nil && !nothingThere(err):
			m.s.Blind(name, err)
		}
	}
}

// list gives what is in a directory, which is empty where it is not there.
func (m *managedLook) list(dir string) []string {
	names, err := m.host.FS.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.s.Blind(dir, err)
	}
	return names
}

// inside tells whether the target lies below dir, and gives the way to it.
func (m *managedLook) inside(dir string) (rest string, ok bool) {
	st, err := m.host.FS.Stat(dir)
	if err != nil {
		if !nothingThere(err) {
			m.s.Blind(dir, err)
		}
		return "", false
	}
	return inside(m.up(), st)
}

// relate follows a name to what it leads to.
func (m *managedLook) relate(name string) (ID, Relation) {
	st, err := m.host.FS.Stat(name)
	if err != nil && !nothingThere(err) {
		m.s.Blind(name, err)
	}
	id, ok := idOf(st)
	if err != nil || !ok {
		return id, Unrelated
	}
	return id, m.t.Relate(id)
}

// has tells whether a file that only one tool has is there; one that cannot be
// looked at is.
func (m *managedLook) has(name string) bool {
	_, err := m.host.FS.Stat(name)
	return err == nil || !nothingThere(err)
}

// say makes one finding of all that belongs to one tool: the clearest, and how
// many there are beside.
func (m *managedLook) say() {
	for _, code := range []Code{ManagedXAPI, ManagedQubes, ManagedProxmox} {
		claims := slices.DeleteFunc(slices.Clone(m.claims), func(c claim) bool { return c.code != code })
		if len(claims) == 0 || code == ManagedProxmox && !m.has("/etc/pve") {
			continue
		}
		slices.SortFunc(claims, func(a, b claim) int {
			return cmp.Or(-cmp.Compare(a.clarity(), b.clarity()), cmp.Compare(a.group+"/"+a.name, b.group+"/"+b.name), cmp.Compare(a.source, b.source))
		})
		c := claims[0]
		others := map[string]bool{}
		for _, o := range claims {
			if o.volume != c.volume && o.name != "" {
				others[o.group+"/"+o.name] = true
			}
		}
		f := c.finding(m.has)
		f.Relation, f.Source = c.rel, c.source
		if c.rel != Same {
			f.Domain = "" // one volume of many on it
		}
		f.Detail += m.t.via(c.rel, c.by)
		if len(others) > 0 {
			f.Detail += fmt.Sprintf(", and %s more", count(len(others), "volume"))
		}
		m.s.Found(f)
	}
}

// clarity prefers the target itself to what overlaps it, and a volume with a
// name to one without.
func (c claim) clarity() int {
	n := 0
	if c.rel == Same {
		n += 2
	}
	if c.name != "" {
		n++
	}
	return n
}
