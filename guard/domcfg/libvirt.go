package domcfg

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ParseLibvirt reads a domain's XML as libvirt keeps it (formatdomain.html of its
// documentation): the persistent one, the one of a running domain, which has the
// domain inside of its own root, and the one at the head of a saved domain.
// Wanted are the sources of disks, of all images below them (backingStore,
// dataStore) and beside them (mirror), and of file systems. A document type, and
// with it every entity of its own, is not understood.
func ParseLibvirt(text []byte) (Domain, error) {
	x := &xmlReader{dec: xml.NewDecoder(bytes.NewReader(text))}
	err := x.read()
	return x.domain, err
}

// ParsePool reads the XML of a libvirt storage pool (formatstorage.html): its name
// and the directory in which its volumes are, which is empty for a pool that has
// none on this host.
func ParsePool(text []byte) (name, dir string, err error) {
	x := &xmlReader{dec: xml.NewDecoder(bytes.NewReader(text)), pool: true}
	err = x.read()
	return x.domain.Name, x.path, err
}

type xmlReader struct {
	dec    *xml.Decoder
	pool   bool     // a pool is read, not a domain
	stack  []string // names of the open elements
	domain Domain
	found  bool   // the domain, or the pool
	path   string // of a pool
	since  int    // the first disk of the device that is being read
}

// maxDepth is how deep elements may lie; a chain of 200 images lies 400 deep.
const maxDepth = 1000

func (x *xmlReader) fail(reason string) error {
	line, _ := x.dec.InputPos()
	return &SyntaxError{line, reason}
}

func (x *xmlReader) read() error {
	for {
		token, err := x.dec.RawToken()
		if errors.Is(err, io.EOF) {
			switch {
			case len(x.stack) > 0:
				return x.fail("cut off in <" + x.stack[len(x.stack)-1] + ">")
			case !x.found:
				return x.fail("no domain in it")
			}
			return nil
		}
		if err != nil {
			var syntax *xml.SyntaxError
			if errors.As(err, &syntax) {
				return &SyntaxError{syntax.Line, syntax.Msg}
			}
			return x.fail(err.Error())
		}
		switch token := token.(type) {
		case xml.Directive:
			return x.fail("a document type is not understood")
		case xml.ProcInst:
			if token.Target != "xml" {
				return x.fail("the instruction " + token.Target + " is not understood")
			}
		case xml.StartElement:
			if len(x.stack) == maxDepth {
				return x.fail("too deep")
			}
			x.stack = append(x.stack, token.Name.Local)
			x.start(token)
		case xml.EndElement:
			if len(x.stack) == 0 || x.stack[len(x.stack)-1] != token.Name.Local {
				return x.fail("</" + token.Name.Local + "> closes nothing")
			}
			x.end(token.Name.Local)
			x.stack = x.stack[:len(x.stack)-1]
		case xml.CharData:
			x.text(string(token))
		}
	}
}

// above gives the name of the element that is n levels above the innermost one.
func (x *xmlReader) above(n int) string {
	if len(x.stack) <= n {
		return ""
	}
	return x.stack[len(x.stack)-1-n]
}

func (x *xmlReader) start(e xml.StartElement) {
	switch e.Name.Local {
	case "domain":
		x.found = x.found || !x.pool
	case "pool":
		x.found = x.found || x.pool
	case "disk", "filesystem":
		if x.above(1) == "devices" {
			x.since = len(x.domain.Disks)
		}
	case "mirror":
		x.source(e, "file") // as libvirt wrote it before 1.2.6
	case "source":
		x.source(e, "file", "dev", "dir", "name", "volume")
	case "target":
		if x.above(2) == "devices" {
			for i := x.since; i < len(x.domain.Disks); i++ {
				x.domain.Disks[i].Dev = attr(e, "dev")
			}
		}
	case "backenddomain":
		if name := attr(e, "name"); x.above(2) == "devices" && !controlDomain(name) {
			for i := x.since; i < len(x.domain.Disks); i++ {
				x.domain.Disks[i].Backend = name
			}
		}
	}
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// source takes what a source names.
func (x *xmlReader) source(e xml.StartElement, keys ...string) {
	kind := Image
	switch x.above(1) {
	case "disk", "mirror", "backingStore", "dataStore":
	case "filesystem":
		kind = Directory
	default:
		if e.Name.Local == "source" {
			return
		}
	}
	for _, key := range keys {
		v := attr(e, key)
		d := Disk{Kind: kind, Path: v, Words: fmt.Sprintf("%s %s=%q", e.Name.Local, key, v)}
		switch {
		case v == "":
			continue
		case key == "name" && !strings.HasPrefix(v, "/"):
			continue // of a file server's, or of a pool that a file system is in
		case key == "volume":
			if d.Pool = attr(e, "pool"); d.Pool == "" {
				continue
			}
			d.Words = fmt.Sprintf("source pool=%q volume=%q", d.Pool, v)
		case kind == Directory && key != "dir":
			d.Kind = Image // a file or device with a file system in it
		}
		x.domain.Disks = append(x.domain.Disks, d)
	}
}

// end forgets the device that was read.
func (x *xmlReader) end(name string) {
	if (name == "disk" || name == "filesystem") && x.above(1) == "devices" {
		x.since = len(x.domain.Disks)
	}
}

func (x *xmlReader) text(s string) {
	outer := "domain"
	if x.pool {
		outer = "pool"
	}
	switch {
	case x.above(0) == "name" && x.above(1) == outer:
		x.domain.Name += s
	case x.pool && x.above(0) == "path" && x.above(1) == "target" && x.above(2) == outer:
		x.path += s
	}
}
