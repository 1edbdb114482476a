package interop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fresh makes an empty volume in an image of size bytes.
func fresh(t testing.TB, size int64, opt btrfs.MakeOptions) string {
	t.Helper()
	image := filepath.Join(testenv.Scratch(t), "fresh.img")
	f, err := os.Create(image)
	must(t, err)
	must(t, errors.Join(f.Truncate(size), f.Close()))
	d, err := btrfs.OpenDevice(image, false)
	must(t, err)
	_, err = btrfs.Make(ctx, []btrfs.Device{d}, opt)
	must(t, errors.Join(err, d.Close()))
	return image
}

// with opens a volume, does something with it and closes it.
func with(t testing.TB, image string, opt btrfs.Options, fn func(v *btrfs.Volume)) {
	t.Helper()
	v, err := btrfs.Open(ctx, image, opt)
	must(t, err)
	defer func() { must(t, v.Close()) }()
	fn(v)
}

// judge asks our own check and, where it is there, btrfs check.
func judge(t *testing.T, image string) {
	t.Helper()
	with(t, image, btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) {
		r, err := v.Check(ctx, btrfs.CheckOptions{Data: true})
		must(t, err)
		if !r.OK() {
			t.Fatalf("gobtrfs check: %v", r.Findings)
		}
	})
	t.Run("btrfs check", func(t *testing.T) { testenv.Check(t, image) })
}
