package argv

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// show writes places in a line: "web1.img", "d/?" (Auto), "d/" (Inside), with what
// goes there behind "<"; each place once.
func show(places []Place) string {
	var out []string
	for _, p := range places {
		s := p.Path + [...]string{"", "/?", "/", " left", " and its base", " base", " volume", " group"}[p.How]
		if p.To != "" {
			s += " for " + p.To
		}
		if p.Tree {
			s += " tree"
		}
		if p.Follow {
			s += " follow"
		}
		if p.Parents {
			s += " parents"
		}
		if p.Keep {
			s += " keep"
		}
		if len(p.From) > 0 {
			s += " < " + strings.Join(p.From, " ")
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, "; ")
}

// Each line is a command line and the places where it writes.
func TestPlaces(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"dd if=a of=b bs=1M", "b"},
		{"dd if=a", ""},
		{"dd of=", ""},
		{"dd --help", ""},
		{"dd of=a of=b", "a; b"},
		{"dd --zz of=b", "b; of=b"},

		{"cp a b", "b/? < a"},
		{"cp a", ""},
		{"cp", ""},
		{"cp --help", ""},
		{"cp a b --help", ""},
		{"cp a b --hel", ""},
		{"cp -- a --help", "--help/? < a"},
		{"cp a b c", "c/? < a b"},
		{"cp -t d a b", "d/ < a b"},
		{"cp a b -t d", "d/ < a b"},
		{"cp -td a b", "d/ < a b"},
		{"cp -vtd a", "d/ < a"},
		{"cp -vt d a", "d/ < a"},
		{"cp --target-directory=d a", "d/ < a"},
		{"cp --target-directory d a", "d/ < a"},
		{"cp --target d a", "d/ < a"},
		{"cp --t=d a", "d/ < a"},
		{"cp -T a b", "b < a"},
		{"cp --no-target-directory a b", "b < a"},
		{"cp -rT a b", "b tree < a"},
		{"cp -a a b", "b/? tree < a"},
		{"cp -rL a b", "b/? tree follow < a"},
		{"cp -r --dereference a b", "b/? tree follow < a"},
		{"cp --rec a b", "b/? tree < a"},
		{"cp -R a b", "b/? tree < a"},
		{"cp --parents a/b c", "c/? parents < a/b"},
		{"cp -n a b", "b/? keep < a"},
		{"cp -ni a b", "b/? < a"},
		{"cp -S .old a b", "b/? < a"},
		{"cp -bS.old a b", "b/? < a"},
		{"cp --suffix .old a b", "b/? < a"},
		{"cp --backup numbered b", "b/? < numbered"},
		{"cp --sparse always a b", "b/? < a"},
		{"cp --reflink always b", "b/? < always"},
		{"cp --reflink=always a b", "b/? < a"},
		{"cp --preserve=all a b", "b/? < a"},
		{"cp - b", "b/? < -"},
		{"cp -- -a b", "b/? < -a"},

		{"mv a b", "b/? < a; a left for b"},
		{"mv -t d a b", "d/ < a b; a left for d; b left for d"},
		{"mv -T a b", "b < a; a left for b"},
		{"mv -n a b", "b/? keep < a; a left for b"},
		{"mv -nf a b", "b/? < a; a left for b"},
		{"mv --exchange a b", "b/? < a; a left for b"},

		{"truncate -s 1G a b", "a; b"},
		{"truncate --size 1G a", "a"},
		{"truncate -s0 a", "a"},
		{"truncate -r ref a", "a"},
		{"truncate --reference=ref a", "a"},
		{"shred -n 1 -z a -", "a"},
		{"shred -uvz a", "a"},
		{"shred --random-source /dev/zero a", "a"},
		{"blkdiscard -f /dev/x", "/dev/x"},
		{"blkdiscard -o 0 -l 1M /dev/x", "/dev/x"},
		{"wipefs /dev/x", ""},
		{"wipefs -a /dev/x /dev/y", "/dev/x; /dev/y"},
		{"wipefs -fa /dev/x", "/dev/x"},
		{"wipefs -ba /dev/x", "/dev/x"},
		{"wipefs --all --no-act /dev/x", ""},
		{"wipefs -an /dev/x", ""},
		{"wipefs -o 0x438 /dev/x", "/dev/x"},
		{"wipefs --offset=0 /dev/x", "/dev/x"},
		{"wipefs --zap /dev/x", "/dev/x"},

		{"lvremove vg/web1", "/dev/vg/web1 volume"},
		{"lvremove -f vg/web1 vg/web2", "/dev/vg/web1 volume; /dev/vg/web2 volume"},
		{"lvremove /dev/vg/web1 -y", "/dev/vg/web1 volume"},
		{"lvremove /dev/mapper/vg-web1", "/dev/mapper/vg-web1 volume"},
		{"lvremove vg", "/dev/vg group"},
		{"lvremove /dev/vg/", "/dev/vg group"},
		{"lvremove /srv/x", "/srv/x"},
		{"lvremove -t vg/web1", ""},
		{"lvremove --config x vg/web1", "/dev/vg/web1 volume"},
		{"lvremove @tag", "untold"},
		{"lvremove -S lv_name=x", "untold"},
		{"lvremove --select lv_name=x vg", "untold"},
		{"lvremove", ""},

		{"mkfs -t ext4 -L x /dev/x", "ext4; x; /dev/x"},
		{"mkfs.ext4 /dev/x", "/dev/x"},
		{"mkfs.ext4 -L label -m 0 /dev/x 1000", "/dev/x"},
		{"mkfs.ext4 /dev/x -F", "/dev/x"},
		{"mkfs.ext4 -n /dev/x", ""},
		{"mkfs.ext4 -J device=/dev/j,size=4 /dev/x", "/dev/x; /dev/j"},
		{"mkfs.ext4 -J device=LABEL=j /dev/x", "untold"},
		{"mkfs -t xfs -l logdev=/dev/l,size=64m /dev/x", "xfs; logdev=/dev/l,size=64m; /dev/l,size=64m; /dev/x; /dev/l; 64m"},
		{"mkfs.ext4 -z undo /dev/x", "/dev/x; undo"},
		{"mke2fs -qF -t ext4 /dev/x", "/dev/x"},
		{"mkfs.xfs -f /dev/x", "/dev/x"},
		{"mkfs.xfs -l logdev=/dev/l,size=64m -r rtdev=/dev/r /dev/x", "/dev/x; /dev/l; /dev/r"},
		{"mkfs.xfs -d name=/dev/x,file", "/dev/x"},
		{"mkfs.xfs -N /dev/x", ""},
		{"mkfs.btrfs -d raid1 -m raid1 /dev/x /dev/y", "/dev/x; /dev/y"},
		{"mkfs.btrfs --data raid1 /dev/x /dev/y", "/dev/x; /dev/y"},
		{"mkfs.vfat -F 32 -n EFI /dev/x 1000", "/dev/x"},
		{"mkfs.ntfs -Q /dev/x", "/dev/x"},
		{"mkswap -L swap /dev/x 1000", "/dev/x"},

		{"qemu-img", ""},
		{"qemu-img --help", ""},
		{"qemu-img create -f qcow2 a 10G", "a"},
		{"qemu-img create -f qcow2 -b base -F raw a", "a"},
		{"qemu-img create a -o size=10G", "a"},
		{"qemu-img create --help", ""},
		{"qemu-img create -f qcow2 -o data_file=/dev/vg/x,,y,data_file_raw=on a 10G", "a; /dev/vg/x,y"},
		{"qemu-img convert -O qcow2 -o size=1G -o data_file=c a b", "b; c"},
		{"qemu-img create -f vmdk -o subformat=monolithicFlat a 1G", "untold"},
		{"qemu-img create -f vmdk -o subformat=streamOptimized a 1G", "a"},
		{"qemu-img -T x create a 1G", "a"},
		{"qemu-img convert -O raw a b", "b"},
		{"qemu-img convert a b c -O qcow2", "c"},
		{"qemu-img convert -p -n a /dev/vg/x", "/dev/vg/x"},
		{"qemu-img convert a file:b", "b"},
		{"qemu-img convert a host_device:/dev/x", "/dev/x"},
		{"qemu-img convert a rbd:pool/b", "untold"},
		{"qemu-img convert a nbd://host/b", "untold"},
		{"qemu-img convert a json:{}", "untold"},
		{"qemu-img convert a ./x:y", "./x:y"},
		{"qemu-img convert a /x:y", "/x:y"},
		{"qemu-img convert --image-opts driver=raw,file.filename=a b", "b"},
		{"qemu-img convert --target-image-opts a driver=qcow2,file.filename=b,,c", "b,c"},
		{"qemu-img convert --target-image-opts a driver=nbd", "untold"},
		{"qemu-img commit a", "a and its base"},
		{"qemu-img commit -b base a", "a; base base < a"},
		{"qemu-img rebase -b base a", "a"},
		{"qemu-img resize a -1G", "a"},
		{"qemu-img resize -f raw a +1G", "a"},
		{"qemu-img resize --shrink a 1G", "a"},
		{"qemu-img amend -o compat=1.1 a", "a"},
		{"qemu-img snapshot -l a", ""},
		{"qemu-img snapshot a", ""},
		{"qemu-img snapshot -c s a", "a"},
		{"qemu-img snapshot -d s a", "a"},
		{"qemu-img bitmap --add a b0", "a"},
		{"qemu-img bitmap --merge b1 -b src a b0", "a"},
		{"qemu-img check a", ""},
		{"qemu-img check -r all a", "a"},
		{"qemu-img bench a", ""},
		{"qemu-img bench -w a", "a"},
		{"qemu-img dd if=a of=b bs=1M", "b"},
		{"qemu-img info a", ""},
		{"qemu-img map --output=json a", ""},
		{"qemu-img compare a b", ""},
		{"qemu-img measure -O raw a", ""},
		{"qemu-img future a b", "a; b"},

		// What is not understood can be anywhere.
		{"cp --future a b", "b/? < a; a/? tree follow < b; a tree follow < b; b/? tree follow < a; b tree follow < a"},
		{"truncate --future=x -s 1 a", "a; x; 1"},
		{"truncate -yX a", "a; X"},
		{"truncate a -s", "a"},
		{"mkfs.ext4 -@ x /dev/x", "x; /dev/x"},
	} {
		words := strings.Fields(tt.line)
		places, err := Places(words[0], words[1:], false)
		got := show(places)
		var u *UntoldError
		if errors.As(err, &u) {
			got = "untold"
		} else if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
	for _, line := range []string{"mkfs.ext4", "lvremove", "qemu-img convert"} {
		words := strings.Fields(line)
		if places, err := Places(words[0], words[1:], false); len(places) > 0 || err != nil {
			t.Errorf("%s without operands: %v, %v", line, places, err)
		}
	}
	if _, err := Places("rsync", []string{"a", "b"}, false); err == nil {
		t.Error("a program that is not in the table has no targets")
	}
}

// With POSIXLY_CORRECT the first operand ends the options.
func TestPosix(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"cp -r a b", "b/? tree < a"},
		{"cp a -t b", "b/? < a -t"},
		{"cp a --help", "--help/? < a"},
		{"truncate -s 1 a -s 2", "a; -s; 2"},
	} {
		words := strings.Fields(tt.line)
		if places, err := Places(words[0], words[1:], true); err != nil || show(places) != tt.want {
			t.Errorf("%s\n got %s, %v\nwant %s", tt.line, show(places), err, tt.want)
		}
	}
}

func TestSudo(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"dd of=x", "dd [of=x] []"},
		{"-u root dd of=x", "dd [of=x] []"},
		{"-uroot -- /bin/dd of=x", "dd [of=x] []"},
		{"-n A=b LANG=C cp -a x y", "cp [-a x y] [-n]"},
		{"--askpass cp x y", "cp [x y] [-A]"},
		{"-E -H cp x y", "cp [x y] []"},
		{"--preserve-env=A cp x y", "cp [x y] []"},
		{"ls dd", ""},
		{"-l dd", ""},
		{"-e dd", ""},
		{"-v", ""},
		{"", ""},
		{"--future 5 dd of=x", "dd [of=x] []"},
		{"-D /srv dd of=x", "untold"},
		{"-i dd of=x", "untold"},
		{"--login dd of=x", "untold"},
		{"--chroot=/srv dd of=x", "untold"},
		{"-S dd of=x", "untold"},
	} {
		s, err := ParseSudo(strings.Fields(tt.line))
		got := ""
		if err != nil {
			got = "untold"
		} else if s != nil {
			got = fmt.Sprint(s.Name, " ", s.Args, " ", s.Ask)
		}
		if got != tt.want {
			t.Errorf("sudo %s\n got %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

// Every name is that of one row, and every grammar is well formed.
func TestTable(t *testing.T) {
	names := Programs()
	slices.Sort(names)
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("a name is in two rows: %v", names)
	}
	check := func(name string, g grammar) {
		letters := strings.ReplaceAll(g.short, ":", "")
		for i, r := range letters {
			if r == ' ' || strings.IndexRune(letters, r) != i {
				t.Errorf("%s: option %q twice, or none", name, r)
			}
		}
		words := strings.Fields(g.long)
		slices.Sort(words)
		for i, w := range words[min(1, len(words)):] {
			if strings.TrimRight(w, "=?") == strings.TrimRight(words[i], "=?") {
				t.Errorf("%s: option %q twice", name, w)
			}
		}
	}
	for _, p := range table() {
		check(p.names, p.options)
	}
	for name, p := range qemuCommands {
		check("qemu-img "+name, p.options)
	}
	check("sudo", sudoOptions)
}

// covers reports whether q is at least what p is.
func covers(q, p Place) bool {
	for _, from := range p.From {
		if !slices.Contains(q.From, from) {
			return false
		}
	}
	return q.How == p.How && q.Path == p.Path && q.To == p.To && (q.Tree || !p.Tree) && (p.Keep || !q.Keep) && p.Parents == q.Parents
}

// Whatever the line is, nothing panics, and a line with an unknown option has all
// the places that it has without.
func FuzzPlaces(f *testing.F) {
	for _, line := range []string{
		"cp\x00-rt\x00d\x00a", "mv\x00--\x00-x\x00b", "dd\x00if=a\x00of=b", "qemu-img\x00convert\x00--image-opts\x00a\x00driver=raw,filename=b",
		"mkfs.xfs\x00-l\x00logdev=x,size=1", "lvremove\x00-S\x00x", "wipefs\x00-oa\x00x", "truncate\x00--size", "qemu-img\x00resize\x00x\x00-1",
		"sudo\x00-u\x00root\x00dd\x00of=x",
	} {
		f.Add(line, false)
	}
	f.Fuzz(func(t *testing.T, text string, posix bool) {
		words := strings.Split(text, "\x00")
		name, args := words[0], words[1:]
		if name == "sudo" {
			if s, err := ParseSudo(args); s != nil && err == nil && !Knows(s.Name) {
				t.Errorf("sudo runs %q, which is not in the table", s.Name)
			}
			return
		}
		places, err := Places(name, args, posix)
		if err != nil {
			return
		}
		for _, unknown := range []string{"--zz-unknown", "--zz-unknown=x", "-@"} {
			at := 0
			if name == "qemu-img" {
				if at = slices.IndexFunc(args, func(a string) bool { return qemuCommands[a].places != nil }) + 1; at == 0 {
					return
				}
			}
			more, err := Places(name, slices.Insert(slices.Clone(args), at, unknown), posix)
			if err != nil {
				continue // refused
			}
			for _, p := range places {
				if !slices.ContainsFunc(more, func(q Place) bool { return covers(q, p) }) {
					t.Errorf("%q %q with %s lacks %+v: %+v", name, args, unknown, p, more)
				}
			}
		}
	})
}
