package btrfs_test

import (
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestImpliedReadOnly: options that imply it make a volume read-only, however it is opened.
func TestImpliedReadOnly(t *testing.T) {
	for name, opt := range map[string]btrfs.Options{
		"backup": {Backup: 1}, "checksums": {IgnoreDataChecksums: true}, "forensic": {Forensic: &btrfs.ForensicOptions{}},
	} {
		t.Run(name, func(t *testing.T) {
			image := testenv.Image(t, "default")
			d, err := btrfs.OpenDevice(image, true)
			must(t, err)
			v, err := btrfs.OpenDevices(ctx, []btrfs.Device{d}, opt)
			must(t, err)
			if v.Writable() {
				t.Error("writable by its devices")
			}
			must(t, v.Close())
			v, err = btrfs.Open(ctx, image, opt)
			must(t, err)
			if v.Writable() {
				t.Error("writable by its name")
			}
			must(t, v.Close())
		})
	}
}
