package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgward/internal/testkit"
)

// qemuImg makes an image in dir and gives its references.
func qemuImg(t *testing.T, dir, image string, args ...string) []Reference {
	t.Helper()
	testkit.Need(t, "qemu-img")
	cmd := exec.Command("qemu-img", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	f, err := os.Open(filepath.Join(dir, image))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	refs, err := References(f, st.Size())
	if err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return refs
}

// The names that QEMU's own program was given are the ones that are read.
func TestRealReferences(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("n", 200) + ".raw"
	for _, base := range []string{"base.raw", "a b.raw", "ü.raw", long} {
		qemuImg(t, dir, base, "create", "-q", "-f", "raw", base, "4M")
	}
	qemuImg(t, dir, "base.qcow2", "create", "-q", "-f", "qcow2", "base.qcow2", "4M")
	qemuImg(t, dir, "base.vmdk", "create", "-q", "-f", "vmdk", "base.vmdk", "4M")
	for _, tt := range []struct {
		image string // the options of its making are in front of it
		want  []Reference
	}{
		{"-f qcow2 -b base.raw -F raw", []Reference{{"backing", "base.raw", "raw"}}},
		{"-f qcow2 -o compat=0.10 -b base.raw -F raw", []Reference{{"backing", "base.raw", "raw"}}},
		{"-f qcow2 -o cluster_size=512 -b base.qcow2 -F qcow2", []Reference{{"backing", "base.qcow2", "qcow2"}}},
		{"-f qcow2 -o extended_l2=on,compression_type=zstd -b base.qcow2 -F qcow2", []Reference{{"backing", "base.qcow2", "qcow2"}}},
		{"-f qcow2 -b a_b.raw -F raw", []Reference{{"backing", "a b.raw", "raw"}}},
		{"-f qcow2 -b ü.raw -F raw", []Reference{{"backing", "ü.raw", "raw"}}},
		{"-f qcow2 -F raw -b " + long, []Reference{{"backing", long, "raw"}}},
		{"-f qcow2 -F raw -b " + filepath.Join(dir, "base.raw"), []Reference{{"backing", filepath.Join(dir, "base.raw"), "raw"}}},
		{"-f qcow2 -u -F raw -b nbd://host/x -o size=4M", []Reference{{"backing", "nbd://host/x", "raw"}}},
		{"-f qcow2 -o data_file=d.raw,size=4M", []Reference{{"data", "d.raw", ""}}},
		{"-f qcow2 -o data_file=d2.raw,data_file_raw=on,size=4M", []Reference{{"data", "d2.raw", "raw"}}},
		{"-f qcow2 -o data_file=d3.raw -b base.raw -F raw", []Reference{{"backing", "base.raw", "raw"}, {"data", "d3.raw", ""}}},
		{"-f qed -b base.raw -F raw", []Reference{{"backing", "base.raw", "raw"}}},
		{"-f qed -b base.qcow2 -F qcow2", []Reference{{"backing", "base.qcow2", ""}}},
		{"-f vmdk -b base.vmdk -F vmdk", []Reference{{"parent", "base.vmdk", ""}}},
		{"-f vmdk -o subformat=twoGbMaxExtentSparse,size=3G", []Reference{{"extent", "image-s001.vmdk", "vmdk"}, {"extent", "image-s002.vmdk", "vmdk"}}},
		{"-f vmdk -o subformat=monolithicFlat,size=3M", []Reference{{"extent", "image-flat.vmdk", "raw"}}},
		{"-f vmdk -o subformat=streamOptimized,size=3M", nil},
		{"-f qcow2 -o size=4M", nil},
		{"-f qcow2 -o size=4M,compat=0.10", nil},
		{"-f qcow -b base.raw -F raw", []Reference{{"backing", "base.raw", ""}}},
		{"-f qed -o size=4M", nil},
		{"-f vpc -o size=4M", nil},
		{"-f vpc -o size=4M,subformat=fixed", nil},
		{"-f vhdx -o size=4M", nil},
		{"-f vdi -o size=4M", nil},
		{"-f raw -o size=4M", nil},
	} {
		t.Run(tt.image, func(t *testing.T) {
			args := []string{"create", "-q"}
			for _, a := range strings.Fields(tt.image) {
				args = append(args, strings.ReplaceAll(a, "a_b", "a b"))
			}
			if got := qemuImg(t, dir, "image.vmdk", append(args, "image.vmdk")...); !slices.Equal(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// A chain that was changed afterwards names what it was changed to.
func TestRealRebase(t *testing.T) {
	dir := t.TempDir()
	qemuImg(t, dir, "one.raw", "create", "-q", "-f", "raw", "one.raw", "4M")
	qemuImg(t, dir, "a-longer-name.raw", "create", "-q", "-f", "raw", "a-longer-name.raw", "4M")
	qemuImg(t, dir, "image", "create", "-q", "-f", "qcow2", "-b", "one.raw", "-F", "raw", "image")
	got := qemuImg(t, dir, "image", "rebase", "-q", "-u", "-b", "a-longer-name.raw", "-F", "raw", "image")
	if want := []Reference{{"backing", "a-longer-name.raw", "raw"}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := qemuImg(t, dir, "image", "rebase", "-q", "-u", "-b", "", "image"); len(got) != 0 {
		t.Errorf("%+v of an image without a backing file", got)
	}
}
