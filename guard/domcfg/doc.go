// Package domcfg reads what describes a domain on disk, and says which images it
// names: configuration files of xl, libxl's own records, libvirt's XML, the heads
// of saved domains, and the command lines of xl.
//
// A [Domain] is what one description says: the name, and the disks. A [Disk] is
// one name of an image or of a shared directory, as it is written there; whose
// file system the name belongs to is said as well. Nothing is looked up on a
// host, and nothing is executed: every function is a total function of its text.
//
// What is not understood is a [SyntaxError], never "no disks". What was
// understood before it is given beside the error.
//
//	d, err := domcfg.ParseXL("name = 'web1'\ndisk = [ 'phy:vg/web1,xvda,w' ]\n")
//	d.Name          // web1
//	d.Disks[0].Path // vg/web1, which xl looks for under /dev
package domcfg
