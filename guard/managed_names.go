package guard

import (
	"fmt"
	"strings"
)

// A volume is a disk as the tool that manages it calls it.
type volume struct {
	code  Code
	group string // the storage repository, the qube, or the number of the machine
	name  string // the VDI, or the volume of the qube or the machine; empty when it is not known which
}

// splitMapperName undoes the names that LVM gives to its device-mapper devices:
// group and volume, joined by a dash, with their own dashes doubled, and perhaps
// a layer after one more dash (lvm2, libdm/libdm-string.c).
func splitMapperName(alias string) (group, name string) {
	var parts [3]strings.Builder
	n := 0
	for i := 0; i < len(alias); i++ {
		switch {
		case alias[i] != '-':
		case i+1 < len(alias) && alias[i+1] == '-':
			i++
		case n < len(parts)-1:
			n++
			continue
		}
		parts[n].WriteByte(alias[i])
	}
	return parts[0].String(), parts[1].String()
}

var uuidForm = pattern(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func isUUID(s string) bool { return uuidForm().MatchString(s) }

// afterPrefix gives the uuid that follows one of the prefixes.
func afterPrefix(s string, prefixes ...string) string {
	for _, p := range prefixes {
		if id, ok := strings.CutPrefix(s, p); ok && isUUID(id) {
			return id
		}
	}
	return ""
}

// volumeOf tells whose a logical volume is by the names of its group and of
// itself. A Proxmox volume is one only on a host of Proxmox.
func volumeOf(group, name string) (volume, bool) {
	sr := afterPrefix(group, "VG_XenStorage-", "XSLocalEXT-")
	vdi := afterPrefix(name, "VHD-", "LV-", "QCOW2-")
	if sr != "" || vdi != "" {
		return volume{ManagedXAPI, sr, vdi}, true
	}
	if group == "qubes_dom0" && strings.HasPrefix(name, "vm-") {
		v := volume{code: ManagedQubes}
		if f := qubesForm().FindStringSubmatch(name); f != nil {
			v.group, v.name = f[1], f[2]
		}
		return v, true
	}
	return proxmoxVolume(name)
}

// qubesForm is what Qubes calls the volumes of a qube: the volume itself, the
// snapshot that a running qube works on, and what is kept of earlier ones
// (qubes-core-admin, qubes/storage/lvm.py).
var qubesForm = pattern(`^vm-(.+)-(private|root|volatile)(?:-(?:snap|tick|import|[0-9]+(?:-back)?))?$`)

// proxmoxForm is what Proxmox VE calls volumes and image files: of a machine or
// a template, and their snapshots (pvesm(1), PVE::Storage::Plugin).
var proxmoxForm = pattern(`^(?:snap_)?(?:vm|base)-([1-9][0-9]{2,8})-(disk-[0-9]+|cloudinit|state-.+)$`)

func proxmoxVolume(name string) (volume, bool) {
	for _, suffix := range []string{".raw", ".qcow2", ".vmdk"} {
		name = strings.TrimSuffix(name, suffix)
	}
	if f := proxmoxForm().FindStringSubmatch(name); f != nil {
		return volume{ManagedProxmox, f[1], f[2]}, true
	}
	return volume{}, false
}

// finding says whose the volume is and how one writes to it instead. has tells
// whether a file is there, which decides whether the tool can be called here.
func (v volume) finding(has func(name string) bool) Finding {
	f := Finding{Code: v.code}
	switch v.code {
	case ManagedXAPI:
		f.Subject, f.Key, f.Detail = "the storage repository "+quote(v.group), v.group, "holds it"
		if v.group == "" {
			f.Subject, f.Key = "a storage repository", v.name
		}
		if v.name != "" {
			f.Key, f.Detail = v.name, "holds it as VDI "+quote(v.name)
		}
		switch {
		case !has("/etc/xensource-inventory"):
			f.Remedy = "use \"xe vdi-import\" on a host of the pool that this storage belongs to"
		case v.name != "":
			f.Remedy = "use \"xe vdi-import uuid=" + shellSafe(v.name) + " filename=SRC format=raw\""
		default:
			f.Remedy = "look for the VDI with \"xe vdi-list sr-uuid=" + shellSafe(v.group) + "\" and use \"xe vdi-import\""
		}
	case ManagedQubes:
		f.Subject, f.Key, f.Detail = "Qubes OS", "qubes", "keeps volumes of qubes on it"
		f.Remedy = "use \"qvm-volume import\""
		if v.group != "" && v.name != "" {
			f.Key, f.Domain = v.group+"/"+v.name, v.group
			f.Detail = fmt.Sprintf("has it as the volume %s of the qube %s", v.name, quote(v.group))
			f.Remedy = "use \"qvm-volume import " + shellSafe(v.group) + ":" + v.name + " SRC\""
		}
	case ManagedProxmox:
		f.Subject, f.Key = "Proxmox VE", v.group+"/"+v.name
		f.Detail = fmt.Sprintf("has it as %s of machine %s", quote(v.name), v.group)
		f.Remedy = "use \"qm importdisk " + v.group + " SRC STORAGE\""
	}
	return f
}
