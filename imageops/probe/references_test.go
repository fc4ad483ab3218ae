package probe

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"
)

// utf16le and utf16be encode names as VHD and VHDX have them.
func utf16le(s string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(s)) {
		b.WriteString(string([]byte{byte(u), byte(u >> 8)}))
	}
	return b.String()
}

func utf16be(s string) string {
	b := []byte(utf16le(s))
	for i := 0; i < len(b); i += 2 {
		b[i], b[i+1] = b[i+1], b[i]
	}
	return string(b)
}

func le16(v uint16) string { return le32(uint32(v))[:2] }

// qcow2Image is a header of the version, with a backing file's name at 512 and
// the given extensions.
func qcow2Image(version uint32, backing, extensions string, incompatible, autoclear uint64) bytesAt {
	m := bytesAt{0: "QFI\xfb" + be32(version), 20: be32(16)}
	if backing != "" {
		m[8], m[16], m[512] = be64(512), be32(uint32(len(backing))), backing
	}
	if version == 3 {
		m[72], m[88], m[100], m[104] = be64(incompatible), be64(autoclear), be32(104), extensions
	} else {
		m[72] = extensions
	}
	return m
}

func extension(kind uint32, text string) string {
	pad := (8 - len(text)%8) % 8
	return be32(kind) + be32(uint32(len(text))) + text + strings.Repeat("\x00", pad)
}

const (
	extFormat = 0xe2792aca
	extData   = 0x44415441
)

func qedImage(name string, features uint64) bytesAt {
	return bytesAt{0: "QED\x00", 16: le64(features), 56: le32(64), 60: le32(uint32(len(name))), 64: name}
}

// vhdImage is a differencing disk as libvhd lays it out: a footer at both ends,
// the dynamic header behind the first, and a locator behind that.
func vhdImage(size int64, name, code, locator string) bytesAt {
	footer := "conectix" + strings.Repeat("\x00", 8) + be64(512) + strings.Repeat("\x00", 36) + be32(4)
	m := bytesAt{0: footer, size - 512: footer, 512: "cxsparse", 512 + 40: rawUUID, 512 + 64: utf16be(name)}
	if code != "" {
		m[512+576] = code + be32(1) + be32(uint32(len(locator))) + be32(0) + be64(2048)
		m[2048] = locator
	}
	return m
}

// vhdxImage is a disk with a parent locator of these keys and values.
func vhdxImage(pairs ...string) bytesAt {
	const item = 64 << 10
	entries, data := "", ""
	at := uint32(20 + 12*len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		k, v := utf16le(pairs[i]), utf16le(pairs[i+1])
		entries += le32(at) + le32(at+uint32(len(k))) + le16(uint16(len(k))) + le16(uint16(len(v)))
		data += k + v
		at += uint32(len(k) + len(v))
	}
	locator := strings.Repeat("\x00", 18) + le16(uint16(len(pairs)/2)) + entries + data
	params := le32(32<<20) + le32(2)
	entry := func(id string, off, n int) string { return id + le32(uint32(off)) + le32(uint32(n)) + le64(0) }
	return bytesAt{
		0: "vhdxfile", 192 << 10: "regi", 192<<10 + 8: le32(1), 192<<10 + 16: vhdxMetadata + le64(1<<20) + le32(1<<20) + le32(1),
		1 << 20: "metadata" + le16(0) + le16(2), 1<<20 + 32: entry(vhdxFileParameters, item, 8) + entry(vhdxParentLocator, item+8, len(locator)),
		1<<20 + item: params + locator,
	}
}

func vmdkImage(capacity uint64, descriptor string) bytesAt {
	return bytesAt{0: "KDMV", 12: le64(capacity), 28: le64(1), 36: le64(20), 512: descriptor}
}

const vmdkText = `# Disk DescriptorFile
version=1
CID=87a306
parentCID=f93f57c4
createType="monolithicSparse"
parentFileNameHint="base.vmdk"
RW 8192 SPARSE "a.vmdk"
RW 16 ZERO
RW 6144 FLAT "a b-flat.vmdk" 0
`

// referring images, each with the size it is made at, and the references that it has.
var withReferences = []struct {
	name string
	img  bytesAt
	size int64
	want []Reference
}{
	{"qcow", qcow2Image(1, "base.img", "", 0, 0), 1024, []Reference{{"backing", "base.img", ""}}},
	{"qcow2 v2", qcow2Image(2, "/srv/base.img", extension(extFormat, "raw"), 0, 0), 1024, []Reference{{"backing", "/srv/base.img", "raw"}}},
	{"qcow2 v2 without extensions", qcow2Image(2, "base.img", "", 0, 0), 1024, []Reference{{"backing", "base.img", ""}}},
	{"qcow2 v3", qcow2Image(3, "b", extension(0x6803f857, "features")+extension(extFormat, "qcow2"), 0, 0), 1024, []Reference{{"backing", "b", "qcow2"}}},
	{"qcow2 with a data file", qcow2Image(3, "", extension(extData, "d.raw"), 4, 2), 1024, []Reference{{"data", "d.raw", "raw"}}},
	{"qcow2 with both", qcow2Image(3, "b", extension(extData, "d"), 4, 0), 1024, []Reference{{"backing", "b", ""}, {"data", "d", ""}}},
	{"qed", qedImage("base.img", 1), 1024, []Reference{{"backing", "base.img", ""}}},
	{"qed on raw", qedImage("base.img", 5), 1024, []Reference{{"backing", "base.img", "raw"}}},
	{"vhd by name", vhdImage(4096, "base.vhd", "", ""), 4096, []Reference{{"parent", "base.vhd", "vhd"}}},
	{"vhd, relative", vhdImage(4096, "base.vhd", "W2ru", utf16le(`.\sub\base.vhd`)), 4096,
		[]Reference{{"parent", "base.vhd", "vhd"}, {"parent", "./sub/base.vhd", "vhd"}}},
	{"vhd, absolute", vhdImage(4096, "", "W2ku", utf16le(`C:\dir\base.vhd`)), 4096, []Reference{{"parent", "/dir/base.vhd", "vhd"}}},
	{"vhd, URL", vhdImage(4096, "", "MacX", "file:///srv/b.vhd"), 4096, []Reference{{"parent", "/srv/b.vhd", "vhd"}}},
	{"vhdx", vhdxImage("parent_linkage", "{x}", "relative_path", `..\base.vhdx`, "absolute_win32_path", `D:\base.vhdx`), 2 << 20,
		[]Reference{{"parent", "../base.vhdx", "vhdx"}, {"parent", "/base.vhdx", "vhdx"}}},
	{"vmdk with data", vmdkImage(8192, vmdkText), 16 << 10, []Reference{{"parent", "base.vmdk", ""}}},
	{"vmdk without data", vmdkImage(0, vmdkText), 16 << 10,
		[]Reference{{"parent", "base.vmdk", ""}, {"extent", "a.vmdk", "vmdk"}, {"extent", "a b-flat.vmdk", "raw"}}},
	{"vmdk descriptor", bytesAt{0: vmdkText}, int64(len(vmdkText)),
		[]Reference{{"parent", "base.vmdk", ""}, {"extent", "a.vmdk", "vmdk"}, {"extent", "a b-flat.vmdk", "raw"}}},
	{"vmdk descriptor without its first line", bytesAt{0: "#\r\n\r\nversion=1\r\nRW 1 VMFS \"x\"\r\n"}, 34, []Reference{{"extent", "x", "raw"}}},
}

func references(img []byte) ([]Reference, error) {
	return References(bytes.NewReader(img), int64(len(img)))
}

func TestReferences(t *testing.T) {
	for _, tt := range withReferences {
		if got, err := references(tt.img.image(tt.size)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}

// What names no other file has no references, and is no error.
func TestNoReferences(t *testing.T) {
	fixed := bytesAt{4096 - 512: "conectix", 4096 - 512 + 60: be32(2)}
	for name, img := range map[string][]byte{
		"empty":                             nil,
		"one byte":                          {'Q'},
		"zeros":                             make([]byte, 4096),
		"a boot sector":                     bytesAt{510: "\x55\xaa"}.image(1 << 20),
		"qcow2 v2":                          qcow2Image(2, "", "", 0, 0).image(1024),
		"qcow2 v3":                          qcow2Image(3, "", "", 0, 0).image(1024),
		"qcow2 with the name of no backing": bytesAt{0: "QFI\xfb" + be32(2), 8: be64(512), 20: be32(16)}.image(1024),
		"qcow2 of some extensions":          qcow2Image(2, "", strings.Repeat(be32(1)+be32(0), 1023), 0, 0).image(64 << 10),
		"qcow2 whose data is inside":        qcow2Image(3, "", extension(extData, "d"), 0, 2).image(1024),
		"qed":                               qedImage("x", 4).image(1024),
		"fixed vhd":                         fixed.image(4096),
		"dynamic vhd":                       bytesAt{0: "conectix", 60: be32(3), 3584: "conectix", 3644: be32(3)}.image(4096),
		"extent of a split vmdk":            bytesAt{0: "KDMV", 12: le64(8192)}.image(4096),
		"settings":                          []byte("# mine\nversion=1.2\nRW 1 FLAT \"x\"\n"),
		"vmdk descriptor":                   []byte("# Disk DescriptorFile\nversion=1\nparentCID=FFFFFFFF\n"),
	} {
		if got, err := references(img); err != nil || len(got) != 0 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What claims to be an image and cannot be read is never taken for one without
// references.
func TestMalformedHeaders(t *testing.T) {
	noCode := vhdImage(4096, "", "Wi2r", "base")
	noHeader := vhdImage(4096, "b", "", "")
	noHeader[512] = "cxspars_"
	outside := vhdImage(4096, "b", "W2ru", "xx").image(4096)
	copy(outside[512+576+16:], be64(4095))
	noTable := vhdxImage("relative_path", "b")
	delete(noTable, 192<<10)
	otherKeys := vhdxImage("parent_linkage", "b")
	longHeader := qcow2Image(3, "", "", 0, 0)
	longHeader[100] = be32(4096)
	shortHeader := qcow2Image(3, "", "", 0, 0)
	shortHeader[100] = be32(103)
	for name, img := range map[string][]byte{
		"magic alone":                   []byte("QFI\xfb"),
		"qcow2 of the future":           qcow2Image(4, "b", "", 0, 0).image(1024),
		"qcow2 of version 0":            qcow2Image(0, "b", "", 0, 0).image(1024),
		"qcow2 with data elsewhere":     qcow2Image(3, "", "", 4, 0).image(1024),
		"qcow2 with a long extension":   qcow2Image(2, "b", be32(extFormat)+be32(0xffffffff), 0, 0).image(1024),
		"qcow2 with too long a header":  longHeader.image(1024),
		"qcow2 with too short a header": shortHeader.image(1024),
		"qcow2 with a name outside":     bytesAt{0: "QFI\xfb" + be32(2) + be64(1<<63) + be32(5) + be32(16)}.image(1024),
		"qcow2 of many extensions":      qcow2Image(2, "", strings.Repeat(be32(1)+be32(0), 1024), 0, 0).image(64 << 10),
		"qcow2 with a long format":      qcow2Image(2, "", extension(extFormat, strings.Repeat("f", maxName+1)), 0, 0).image(64 << 10),
		"qed with a name outside":       bytesAt{0: "QED\x00", 16: le64(1), 56: le32(1020), 60: le32(5)}.image(1024),
		"vhd that names nothing":        noCode.image(4096),
		"vhd without a dynamic header":  noHeader.image(4096),
		"vhd with a locator outside":    outside,
		"vhdx without a region table":   noTable.image(2 << 20),
		"vhdx that names nothing":       otherKeys.image(2 << 20),
		"vmdk with a descriptor behind": vmdkImage(1, vmdkText).image(4096),
		"vmdk that names nothing":       []byte("# Disk DescriptorFile\nparentCID=1\n"),
		"vmdk with an open quotation":   []byte("# Disk DescriptorFile\nRW 1 FLAT \"x\n"),
		"vmdk with an extent unnamed":   []byte("# Disk DescriptorFile\nRW 1 FLAT x\n"),
		"vmdk descriptor of some MiB":   []byte("# Disk DescriptorFile\n" + strings.Repeat("#", maxDescriptor)),
	} {
		if got, err := references(img); err == nil {
			t.Errorf("%s: %+v and no error", name, got)
		}
	}
	if _, err := References(bytes.NewReader(nil), -1); err == nil {
		t.Error("a negative size is no error")
	}
}

// A name is believed up to its format's limit, and one byte more is an error.
func TestNameLimits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit int
		image func(name string) []byte
	}{
		{"qcow2", 1023, func(n string) []byte { return qcow2Image(2, n, "", 0, 0).image(4096) }},
		{"qcow2 data", maxName, func(n string) []byte { return qcow2Image(3, "", extension(extData, n), 4, 0).image(64 << 10) }},
		{"qed", 1023, func(n string) []byte { return qedImage(n, 1).image(4096) }},
		{"vhd", maxName, func(n string) []byte { return vhdImage(16<<10, "", "W2ru", utf16le(n)).image(16 << 10) }},
		{"vhdx", maxName, func(n string) []byte { return vhdxImage("relative_path", n).image(2 << 20) }},
		{"vmdk parent", 1023, func(n string) []byte { return []byte("version=1\nparentFileNameHint=\"" + n + "\"\n") }},
		{"vmdk extent", maxName, func(n string) []byte { return []byte("version=1\nRW 1 FLAT \"" + n + "\"\n") }},
	} {
		for _, n := range []int{1, tt.limit - 1, tt.limit, tt.limit + 1} {
			name := strings.Repeat("n", n)
			got, err := references(tt.image(name))
			if n <= tt.limit && (err != nil || len(got) != 1 || got[0].Name != name) {
				t.Errorf("%s of %d bytes: %d references, %v", tt.name, n, len(got), err)
			}
			if n > tt.limit && err == nil {
				t.Errorf("%s of %d bytes is believed", tt.name, n)
			}
		}
	}
}

func TestManyExtents(t *testing.T) {
	for _, n := range []int{maxReferences - 1, maxReferences, maxReferences + 1, 2 * maxReferences} {
		var b strings.Builder
		b.WriteString("version=1\n")
		for i := range n {
			fmt.Fprintf(&b, "RW 1 FLAT \"%d\"\n", i)
		}
		got, err := references([]byte(b.String()))
		if want := min(n, maxReferences); len(got) != want || (err != nil) != (n > maxReferences) {
			t.Errorf("%d extents: %d references, %v", n, len(got), err)
		}
	}
}

// Wherever an image with references is cut off behind its magic number, or cannot
// be read, they are all there or there is an error. A descriptor that is nothing
// but text cannot tell where it ended.
func TestDamageIsNoAbsence(t *testing.T) {
	for _, tt := range withReferences {
		if strings.HasPrefix(tt.name, "vmdk") {
			continue
		}
		img := tt.img.image(tt.size)
		step := max(1, len(img)/4096)
		for n := 8; n < len(img); n += step {
			if got, err := references(img[:n]); err == nil && !slices.Equal(got, tt.want) {
				t.Errorf("%s, cut at %d: %+v and no error", tt.name, n, got)
			}
		}
		for off := int64(0); off < tt.size; off += headerBlock {
			bad := faulty{bytes.NewReader(img), off, off + 1, syscall.EIO}
			if got, err := References(bad, tt.size); err == nil && !slices.Equal(got, tt.want) {
				t.Errorf("%s, unreadable at %d: %+v and no error", tt.name, off, got)
			}
		}
	}
}

// Reads are whole blocks at multiples of a block, so that any descriptor can
// answer them.
func TestReferencesReadWholeBlocks(t *testing.T) {
	for _, tt := range withReferences {
		img := tt.img.image(tt.size)
		if _, err := References(wholeBlocks{t, bytes.NewReader(img)}, tt.size); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

type wholeBlocks struct {
	t *testing.T
	r *bytes.Reader
}

func (w wholeBlocks) ReadAt(p []byte, off int64) (int, error) {
	if len(p)%headerBlock != 0 || off%headerBlock != 0 || len(p) > maxDescriptor+2*headerBlock {
		w.t.Errorf("read of %d bytes at %d", len(p), off)
	}
	return w.r.ReadAt(p, off)
}

// Whatever the bytes are: it ends, the names are bounded, and the same bytes say
// the same again.
func FuzzReferences(f *testing.F) {
	for _, tt := range withReferences {
		f.Add(tt.img.image(tt.size)[:min(tt.size, 8192)])
	}
	f.Add([]byte("# Disk DescriptorFile\nRW 1 FLAT \"\x00"))
	f.Fuzz(func(t *testing.T, img []byte) {
		checkReferences(t, img)
	})
}

// The metadata of a VHDX lies too far from its start for a fuzzer to find.
func FuzzVHDXLocator(f *testing.F) {
	img := vhdxImage("relative_path", `..\base.vhdx`).image(2 << 20)
	f.Add(img[1<<20+64<<10+8 : 1<<20+64<<10+256])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, locator []byte) {
		h := &header{}
		err := h.vhdxLocator(locator)
		if err == nil && len(h.refs) == 0 {
			t.Errorf("%+v, %v", h.refs, err)
		}
	})
}

func FuzzVHDXTables(f *testing.F) {
	img := vhdxImage("relative_path", `..\base.vhdx`)
	whole := img.image(2 << 20)
	f.Add([]byte(img[192<<10+16]), []byte(img[1<<20+32]), uint32(1), uint16(2))
	f.Fuzz(func(t *testing.T, regions, items []byte, n uint32, m uint16) {
		img := bytes.Clone(whole)
		copy(img[192<<10+8:], le32(n))
		copy(img[192<<10+16:256<<10], regions)
		copy(img[1<<20+10:], le16(m))
		copy(img[1<<20+32:], items)
		checkReferences(t, img)
	})
}

func checkReferences(t *testing.T, img []byte) {
	t.Helper()
	got, err := references(img)
	if len(got) > maxReferences {
		t.Errorf("%d references", len(got))
	}
	for _, r := range got {
		if r.Name == "" || len(r.Name) > maxName || strings.ContainsRune(r.Name+r.Format, 0) {
			t.Errorf("reference %q, %q", r.Name, r.Format)
		}
		if !slices.Contains([]string{"backing", "parent", "data", "extent"}, r.Kind) {
			t.Errorf("kind %q", r.Kind)
		}
	}
	again, err2 := references(img)
	if !slices.Equal(got, again) || (err == nil) != (err2 == nil) {
		t.Errorf("%+v, %v, then %+v, %v", got, err, again, err2)
	}
}
