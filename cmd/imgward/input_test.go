package main

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"imgward/guard"
	"imgward/imageops"
	"imgward/imageops/format"
	"imgward/internal/testkit"
)

func TestChooseFormat(t *testing.T) {
	for _, tt := range []struct {
		path, told string
		looks      format.Kind
		want       format.Kind
		ok         bool
	}{
		{"a.img", "", format.Raw, format.Raw, true},
		{"a.qcow2", "", format.QCOW2, format.QCOW2, true},
		{"a.img.gz", "", format.Gzip, format.Gzip, true},
		{"a.vmdk", "", format.Other, format.Raw, true},
		{"a.img", "", format.Other, format.Raw, true},
		{"a.vmdk", "", format.Raw, format.Raw, true},

		// One witness is none: the guest may be the other.
		{"a.img", "", format.QCOW2, 0, false},
		{"/dev/vg0/web1", "", format.QCOW2, 0, false},
		{"a.img", "", format.VHD, 0, false},
		{"a.img", "", format.Gzip, 0, false},
		{"a.qcow2", "", format.Raw, 0, false},
		{"a.qcow2", "", format.Gzip, 0, false},
		{"a.gz", "", format.QCOW2, 0, false},

		{"a.img", "qcow2", format.QCOW2, format.QCOW2, true},
		{"a.qcow2", "raw", format.QCOW2, format.Raw, true},
		{"a.img", "raw", format.Raw, format.Raw, true},
		{"a.qcow2", "qcow2", format.Raw, 0, false},
		{"a.qcow2", "gzip", format.QCOW2, 0, false},
	} {
		got, err := chooseFormat(tt.path, tt.told, tt.looks)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%q, told %q, looks %v: %v, %v", tt.path, tt.told, tt.looks, got, err)
		}
	}
}

func TestPlainWord(t *testing.T) {
	for s, want := range map[string]bool{"/srv/a-1.img": true, "": false, "-x": false, "a b": false, "a;b": false, "$x": false, "a\nb": false, "~x": false} {
		if plainWord(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// Nobody waits for the other end of a pipe once it was stopped.
func TestPipeIsStopped(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := &pipe{ctx: t.Context()}
	if err := p.examine(r); err != nil {
		t.Fatal(err)
	}
	s := &pipeStream{imageops.NewStream(p, "standard input"), p}
	if _, err := w.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	if n, err := s.ReadAt(b, 0); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	done := make(chan error)
	go func() {
		_, err := s.ReadAt(make([]byte, 3), 3)
		done <- err
	}()
	why := errors.New("a domain wants the disk")
	s.Stop(why)
	if err := <-done; !errors.Is(err, why) && !errors.Is(err, errStopped) {
		t.Errorf("%v, want %v", err, why)
	}
	if _, err := p.Read(b); !errors.Is(err, errStopped) {
		t.Errorf("afterwards: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { cancel(why) }()
	if _, err := (&pipe{ctx: ctx, file: r}).Read(b); !errors.Is(err, why) {
		t.Errorf("interrupted: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := (&pipe{ctx: t.Context(), file: r}).Read(b); n != 0 || err != io.EOF {
		t.Errorf("a pipe that is closed: %d, %v", n, err)
	}
}

func TestWorst(t *testing.T) {
	incomplete, confirm, plain := &guard.IncompleteError{Err: io.EOF}, &confirmError{}, errors.New("no")
	for _, tt := range []struct {
		errs []error
		want error
	}{
		{nil, nil},
		{[]error{nil, nil}, nil},
		{[]error{nil, plain}, plain},
		{[]error{plain, confirm}, confirm},
		{[]error{confirm, nil, incomplete, plain}, incomplete},
		{[]error{&targetError{errInterrupted, "x", nil}, nil}, errInterrupted},
	} {
		if got := worst(tt.errs); !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("of %v: %v, want %v", tt.errs, got, tt.want)
		}
	}
}

// What the page cache has of a device may be older than what is on it: it is the
// device that is read.
func TestDeviceIsReadFromItsStorage(t *testing.T) {
	testkit.Need(t, "root", "losetup")
	dir := lab(t)
	t.Chdir(dir)
	d := newDevice(t, dir, 1<<20)
	kept, err := os.Open(d.path) // the cache of a device lives as long as somebody has it open
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if _, err := io.Copy(io.Discard, kept); err != nil {
		t.Fatal(err)
	}
	want := write(t, "new.img", 1<<20, 3)
	command(t, "dd", "if="+want, "of=disk.img", "conv=notrunc,fsync", "status=none")
	imgward(t, nil, append([]string{"copy", d.path, "copy.img"}, d.words...)...).want(t, exitOK)
	if sum(t, "copy.img") != sum(t, want) {
		t.Error("old bytes were copied")
	}
}
