// Package compat has the tests behind docs/COMPAT.md that belong to no one package: what every feature bit, every type
// of item, every profile with devices that are missing or lie, and every volume of the corpus comes to.
package compat

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openFiles opens image files as devices.
func openFiles(t testing.TB, paths []string, readOnly bool) []device.Device {
	t.Helper()
	var devs []device.Device
	for _, p := range paths {
		d, err := device.OpenFile(p, device.Options{ReadOnly: readOnly})
		must(t, err)
		devs = append(devs, d)
	}
	return devs
}

func closeAll(devs []device.Device) {
	for _, d := range devs {
		d.Close()
	}
}

// largest is the size of the largest file whose contents are compared.
const largest = 64 << 20

var errDiffers = errors.New("differs from what the kernel read")

func unbase(plain, b64 string) string {
	if b, err := base64.StdEncoding.DecodeString(b64); err == nil && b64 != "" {
		return string(b)
	}
	return plain
}

// entries gives every file and symbolic link of a manifest to fn, with what reading it came to: errDiffers when it is
// read as something else. It returns how many there were.
func entries(v *btrfs.Volume, m *testenv.Manifest, fn func(where string, err error)) (n int) {
	for _, e := range m.Entries {
		if e.Error != nil || e.ReadError != nil || e.Stub || e.Size > largest {
			continue
		}
		name := strings.TrimPrefix(unbase(e.Path, e.PathB64), "/")
		var err error
		switch {
		case e.Type == "file" && e.SHA256 != "":
			err = sameFile(v, e, name)
		case e.Type == "symlink" && e.Target != nil:
			err = sameLink(v, e, name)
		default:
			continue
		}
		n++
		fn(fmt.Sprintf("subvolume %d, %q", e.Subvol, name), err)
	}
	return n
}

func sameFile(v *btrfs.Volume, e testenv.ManifestEntry, name string) error {
	s, err := v.SubvolumeByID(ctx, e.Subvol)
	if err != nil {
		return err
	}
	b, err := s.ReadFile(name)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != e.SHA256 {
		return errDiffers
	}
	return nil
}

func sameLink(v *btrfs.Volume, e testenv.ManifestEntry, name string) error {
	s, err := v.SubvolumeByID(ctx, e.Subvol)
	if err != nil {
		return err
	}
	got, err := s.ReadLink(name)
	if err == nil && got != *e.Target {
		err = errDiffers
	}
	return err
}

// same fails the test unless everything is as the manifest says.
func same(t *testing.T, v *btrfs.Volume, m *testenv.Manifest) {
	t.Helper()
	bad := 0
	n := entries(v, m, func(where string, err error) {
		if err != nil && bad < 5 {
			bad++
			t.Errorf("%s: %v", where, err)
		}
	})
	if n == 0 && len(m.Entries) > 5 {
		t.Error("nothing was compared")
	}
}
