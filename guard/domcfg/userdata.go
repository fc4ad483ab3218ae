package domcfg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// userdata is the part of libxl's record of a domain (libxl_types.idl,
// libxl_domain_config) that names images.
type userdata struct {
	Create struct {
		Name string `json:"name"`
	} `json:"c_info"`
	Build struct {
		Kernel  string `json:"kernel"`
		Ramdisk string `json:"ramdisk"`
	} `json:"b_info"`
	Disks []struct {
		Path    string `json:"pdev_path"`
		Dev     string `json:"vdev"`
		Format  string `json:"format"`
		Script  string `json:"script"`
		Active  string `json:"active_disk"`
		Hidden  string `json:"hidden_disk"`
		Backend string `json:"backend_domname"`
		Domid   uint32 `json:"backend_domid"`
	} `json:"disks"`
	Shares []struct {
		Path    string `json:"path"`
		Tag     string `json:"tag"`
		Backend string `json:"backend_domname"`
		Domid   uint32 `json:"backend_domid"`
	} `json:"p9s"`
}

// ParseUserdata reads libxl's own record of a domain, the JSON of
// /var/lib/xen/userdata-d.DOMID.UUID.libxl-json and in the heads of saved
// domains. libxl ends it with a NUL.
func ParseUserdata(text []byte) (Domain, error) {
	text = bytes.TrimRight(text, "\x00")
	if !utf8.Valid(text) {
		// The library would read other names than there are.
		return Domain{}, &SyntaxError{0, "not UTF-8"}
	}
	var u userdata
	if err := json.Unmarshal(text, &u); err != nil {
		return Domain{}, jsonError(text, err)
	}
	d := Domain{Name: u.Create.Name}
	add := func(disk Disk, key, path, backend string, domid uint32) {
		if path == "" {
			return
		}
		disk.Path, disk.Words = path, fmt.Sprintf("%q: %q", key, path)
		switch {
		case !controlDomain(backend):
			disk.Backend = backend
		case domid != 0:
			disk.Backend = fmt.Sprint(domid)
		}
		d.Disks = append(d.Disks, disk)
	}
	for _, k := range []struct{ key, path string }{{"kernel", u.Build.Kernel}, {"ramdisk", u.Build.Ramdisk}} {
		if strings.HasPrefix(k.path, "/") {
			add(Disk{Kind: Boot}, k.key, k.path, "", 0)
		}
	}
	for _, k := range u.Disks {
		disk := Disk{Dev: k.Dev, Script: k.Script}
		if k.Format != "empty" {
			add(disk, "pdev_path", k.Path, k.Backend, k.Domid)
		}
		add(disk, "active_disk", k.Active, k.Backend, k.Domid)
		add(disk, "hidden_disk", k.Hidden, k.Backend, k.Domid)
	}
	for _, k := range u.Shares {
		add(Disk{Kind: Directory, Dev: k.Tag}, "path", k.Path, k.Backend, k.Domid)
	}
	return d, nil
}

// jsonError turns the offset of an error into a line.
func jsonError(text []byte, err error) error {
	off := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		off = syntax.Offset
	case errors.As(err, &kind):
		off = kind.Offset
	}
	if off < 0 || off > int64(len(text)) {
		return &SyntaxError{0, err.Error()}
	}
	return &SyntaxError{1 + bytes.Count(text[:off], []byte("\n")), err.Error()}
}
