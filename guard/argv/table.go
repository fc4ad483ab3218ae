package argv

import (
	"strings"
)

// table is what is known of programs, in the order of the manual.
func table() []program {
	return []program{
		{names: "dd", plain: true, options: grammar{long: "help version"}, places: ddPlaces},
		{
			names: "cp", plain: true, places: cpPlaces, careful: intoAny,
			options: grammar{
				short: "abdfHilLnprst:uvxPRS:TZ",
				long: "archive attributes-only backup? copy-contents debug dereference force interactive keep-directory-symlink link " +
					"no-clobber no-dereference no-preserve= no-target-directory one-file-system parents preserve? recursive " +
					"reflink? remove-destination sparse= strip-trailing-slashes suffix= symbolic-link target-directory= update? " +
					"verbose context? help version",
			},
		},
		{
			names: "mv", plain: true, places: mvPlaces, careful: intoAny,
			options: grammar{
				short: "bfint:uvS:TZ",
				long: "backup? context debug exchange force interactive no-clobber no-copy no-target-directory strip-trailing-slashes " +
					"suffix= target-directory= update? verbose help version",
			},
		},
		{names: "qemu-img", options: grammar{short: "hVT:", long: "help version trace=", inOrder: true}, places: qemuPlaces},

		{names: "truncate", plain: true, places: operands, options: grammar{
			short: "cor:s:", long: "no-create io-blocks reference= size= help version",
		}},
		{names: "shred", places: operands, options: grammar{
			short: "fn:s:uvxz", long: "force iterations= random-source= size= remove? verbose exact zero help version",
		}},
		{names: "blkdiscard", places: operands, options: grammar{
			short: "fo:l:p:qsvzhV", long: "force offset= length= step= quiet secure verbose zeroout help version",
		}},
		{names: "wipefs", places: wipefsPlaces, options: grammar{
			short: "abfhiJno:O:pqt:V",
			long:  "all backup? force noheadings json no-act offset= output= parsable quiet types= lock? help version",
		}},
		{names: "lvremove", places: lvremovePlaces, options: grammar{
			short: "A:dfhqS:tvy",
			long: "autobackup= force select= nohistory noudevsync reportformat= debug help quiet verbose yes test commandprofile= config= " +
				"driverloaded= nolocking lockopt= longhelp profile= version devicesfile= devices= nohints journal=",
		}},

		{names: "mkswap", places: first, options: grammar{
			short: "cfe:o:s:Fqp:L:v:U:hV",
			long:  "check file force endianness= offset= size= quiet pagesize= label= swapversion= uuid= verbose lock? help version",
		}},
		{names: "mkfs.ext2 mkfs.ext3 mkfs.ext4 mke2fs", places: unless(extPlaces, "n"), options: grammar{
			short: "b:ce:g:i:jl:m:no:qr:s:t:d:vC:DE:FG:I:J:KL:M:N:O:R:ST:U:Vz:",
		}},
		{names: "mkfs.xfs", places: unless(xfsPlaces, "N"), options: grammar{short: "b:c:d:i:l:L:m:n:KNp:qr:s:CfV"}},
		{names: "mkfs.btrfs", places: operands, options: grammar{
			short: "A:b:d:fKl:L:m:Mn:O:qr:R:s:U:vV",
			long: "alloc-start= byte-count= csum= checksum= data= features= force label= leafsize= metadata= mixed nodesize= nodiscard " +
				"quiet rootdir= runtime-features= sectorsize= shrink uuid= verbose version help",
		}},
		{names: "mkfs.fat mkfs.vfat mkfs.msdos mkdosfs", places: first, options: grammar{
			short: "aAb:cCD:f:F:g:h:Ii:l:m:M:n:r:R:s:S:v", long: "codepage= help invariant mbr? offset= variant=",
		}},
		// Of these every word is taken for a target: the type's own options are not known.
		{
			names:   "mkfs mkfs.bfs mkfs.cramfs mkfs.erofs mkfs.exfat mkfs.f2fs mkfs.jfs mkfs.minix mkfs.nilfs2 mkfs.ntfs mkfs.reiserfs mkfs.udf mkntfs",
			options: grammar{long: "help version"}, places: words,
		},
	}
}

func (p program) all() []string { return strings.Fields(p.names) }

func ddPlaces(l *line) ([]Place, error) {
	var out []Place
	for _, o := range l.operands {
		if path, ok := strings.CutPrefix(o, "of="); ok {
			out = append(out, exact([]string{path})...)
		}
	}
	return out, nil
}

func cpPlaces(l *line) ([]Place, error) {
	return destination(l, Place{
		Tree: l.has("r", "R", "recursive", "a", "archive"), Follow: l.has("L", "dereference"), Parents: l.has("parents"),
		Keep: l.has("n", "no-clobber") && !l.has("i", "interactive"),
	}), nil
}

// mvPlaces has the sources, too. A rename destroys nothing and is undone by another;
// but from one file system to another a file is copied and then deleted, under
// whoever uses it.
func mvPlaces(l *line) ([]Place, error) {
	places := destination(l, Place{Keep: l.has("n", "no-clobber") && !l.has("i", "interactive", "f", "force")})
	var left []Place
	for _, p := range places {
		for _, from := range p.From {
			left = append(left, Place{How: Left, Path: from, To: p.Path})
		}
	}
	return append(places, left...), nil
}

// destination gives the places of a program with cp's operands, all in the manner of p.
func destination(l *line, p Place) []Place {
	if dirs := l.values("t", "target-directory"); len(dirs) > 0 {
		var out []Place
		for _, dir := range dirs {
			p.How, p.Path, p.From = Inside, dir, l.operands
			out = append(out, p)
		}
		return out
	}
	n := len(l.operands) - 1
	if n < 1 {
		return nil
	}
	p.How, p.Path, p.From = Auto, l.operands[n], l.operands[:n]
	if l.has("T", "no-target-directory") {
		p.How = Exact
	}
	return []Place{p}
}

// intoAny is for a line of cp's or mv's in which any word may be the destination,
// and any other a source.
func intoAny(words []string) []Place {
	var out []Place
	for i, w := range words {
		if w == "" {
			continue
		}
		from := append(append([]string{}, words[:i]...), words[i+1:]...)
		out = append(out, Place{How: Auto, Path: w, From: from, Tree: true, Follow: true}, Place{Path: w, From: from, Tree: true, Follow: true})
	}
	return out
}

// wipefsPlaces: without an option that says what to erase, it only lists.
func wipefsPlaces(l *line) ([]Place, error) {
	if l.has("n", "no-act") || !l.has("a", "all", "o", "offset") {
		return nil, nil
	}
	return exact(l.operands), nil
}

// extPlaces has the external journal, in which the file system is entered, and the
// file that keeps what was overwritten.
func extPlaces(l *line) ([]Place, error) {
	places, _ := first(l)
	places = append(places, exact(l.values("z"))...)
	for _, journal := range suboptions(l.values("J"), "device") {
		if strings.HasPrefix(journal, "UUID=") || strings.HasPrefix(journal, "LABEL=") {
			return nil, untold("which device the journal %q is cannot be told from the command line", journal)
		}
		places = append(places, exact([]string{journal})...)
	}
	return places, nil
}

func xfsPlaces(l *line) ([]Place, error) {
	paths := suboptions(l.values("d", "l", "r"), "name", "logdev", "rtdev")
	return exact(append(l.operands, paths...)), nil
}

// suboptions gives the values of keys in lists like "size=4096,name=/dev/x".
func suboptions(lists []string, keys ...string) []string {
	var out []string
	for _, list := range lists {
		for _, s := range strings.Split(list, ",") {
			for _, k := range keys {
				if value, ok := strings.CutPrefix(s, k+"="); ok {
					out = append(out, value)
				}
			}
		}
	}
	return out
}

// lvremovePlaces: an operand is GROUP, GROUP/NAME or a path of either below /dev.
func lvremovePlaces(l *line) ([]Place, error) {
	if l.has("t", "test", "h", "longhelp") {
		return nil, nil
	}
	if l.has("S", "select") {
		return nil, untold("which volumes --select means cannot be told from the command line")
	}
	var out []Place
	for _, o := range l.operands {
		if strings.HasPrefix(o, "@") {
			return nil, untold("which volumes have the tag %q cannot be told from the command line", o)
		}
		name := strings.TrimPrefix(strings.TrimRight(o, "/"), "/dev/")
		switch {
		case name == "" || strings.HasPrefix(name, "/"):
			out = append(out, exact([]string{o})...)
		case strings.Contains(name, "/"):
			out = append(out, Place{How: Volume, Path: "/dev/" + name})
		default:
			out = append(out, Place{How: Group, Path: "/dev/" + name})
		}
	}
	return out, nil
}
