// Command store runs a xenstore for the demonstration: the real xenstored where
// it is installed, else one in this process. It loads the dump named by its
// second argument, prints what it is and where its socket lies, and ends with
// its standard input.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"imgward/xenstore/xenstoretest"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func run(dir, dump string) error {
	f, err := os.Open(dump)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := xenstoretest.StartXenstored(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return inProcess(filepath.Join(dir, "socket"), f)
	}
	if err != nil {
		return err
	}
	if err := d.Load(f); err != nil {
		return errors.Join(err, d.Stop())
	}
	return errors.Join(serve("the real xenstored", d.Socket()), d.Stop())
}

func inProcess(socket string, dump io.Reader) error {
	s := xenstoretest.NewServer()
	if err := errors.Join(s.Load(dump), s.Listen(socket)); err != nil {
		return err
	}
	return errors.Join(serve("a xenstore of our own (xenstored is not installed)", socket), s.Close())
}

func serve(what, socket string) error {
	fmt.Printf("%s\n%s\n", socket, what)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
