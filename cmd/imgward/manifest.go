package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"imgward/guard"
	"imgward/imageops"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 300 << 20

// freeName is an error if there is something at path already.
func freeName(path string) error {
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("create %s: %w", printable(path), fs.ErrExist)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writeManifest writes the manifest that was asked for, to a new file. The target is
// whole by then.
func (t *transfer) writeManifest(o *outcome) error {
	if t.manifest == "" {
		return nil
	}
	f, err := os.OpenFile(t.manifest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = o.report.Manifest.WriteTo(f)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return &guard.WrittenError{Path: o.target, Err: err}
	}
	t.result("manifest %s", printable(t.manifest))
	return nil
}

// verifyManifest compares the image with a manifest.
func (s *session) verifyManifest(ctx context.Context, image *input, name string, o imageops.Options) error {
	text, err := readBounded(name, maxManifest)
	if err != nil {
		return err
	}
	m, err := imageops.ParseManifest(text)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(name), err)
	}
	o.Log, o.Progress = s.host.Log, s.progress()
	r, err := imageops.Verify(ctx, image.from, m, o)
	if err == nil {
		err = image.Changed(ctx)
	}
	if err != nil {
		return err
	}
	s.result("%s is what %s says: %s", printable(image.path), printable(name), guard.Bytes(m.Size))
	s.object(outcomeJSON{Command: "verify", Source: image.path, Target: name, Size: m.Size, Read: r.Read, Verified: r.Verified, Seconds: fmt.Sprintf("%.3f", r.Elapsed.Seconds())})
	return nil
}
