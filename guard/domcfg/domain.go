package domcfg

import "fmt"

// A Domain is what one description says of a domain.
type Domain struct {
	Name  string // as it is written; empty when it is not said
	Disks []Disk
}

// Kind is what a name in a description is used for.
type Kind uint8

const (
	Image     Kind = iota // a disk
	Directory             // a directory of the host that the domain shares
	Boot                  // a kernel or the first file system that goes with it
)

// A Disk is one name of something that a domain uses. A disk with several images
// is several of them.
type Disk struct {
	Kind    Kind
	Path    string // as it is written, never empty
	Dev     string // what it is called inside the domain, if that is said
	Words   string // the words of the description that say so
	Backend string // the domain that serves it, in whose file system Path is; empty for the control domain
	Script  string // the hotplug script that alone knows what Path means; empty for the usual ones
	Pool    string // a libvirt storage pool of which Path is a volume; else empty
}

// A SyntaxError says where a description stops being understood.
type SyntaxError struct {
	Line   int // counted from 1; 0 where there are no lines
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

// controlDomain tells the names that xl and libvirt have for domain 0.
func controlDomain(name string) bool { return name == "" || name == "0" || name == "Domain-0" }
