package btrfs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestTailAfterKernel: the kernel leaves old bytes behind the end of a file that
// it makes shorter. They must not come back when the file grows again.
func TestTailAfterKernel(t *testing.T) {
	testenv.NeedKernel(t)
	image := filepath.Join(testenv.Scratch(t), "tail.img")
	testenv.MakeVolume(t, image, 256<<20)
	dir := testenv.Mount(t, []string{image})
	for _, name := range []string{"write", "truncate", "clone", "source"} {
		must(t, os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 16384), 0o644))
	}
	testenv.Run(t, "sync", "-f", dir)
	for _, name := range []string{"write", "truncate", "clone"} {
		must(t, os.Truncate(filepath.Join(dir, name), 9000))
	}
	testenv.Umount(t, dir)

	v := open(t, image, btrfs.Options{})
	grow := func(name string, fn func(f *btrfs.File) error) {
		t.Helper()
		f, err := v.Top().OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		must(t, fn(f))
		must(t, f.Close())
	}
	grow("write", func(f *btrfs.File) error { _, err := f.WriteAt([]byte("y"), 20000); return err })
	grow("truncate", func(f *btrfs.File) error { return f.Truncate(30000) })
	src, err := v.Top().OpenFile("source", os.O_RDONLY, 0)
	must(t, err)
	grow("clone", func(f *btrfs.File) error { return f.CloneRange(16384, src, 0, 4096) })
	must(t, src.Close())
	for _, name := range []string{"write", "truncate", "clone"} {
		b, err := v.Top().ReadFile(name)
		must(t, err)
		if got := bytes.Trim(b[9000:16384], "\x00"); len(got) > 0 {
			t.Errorf("%s: %d bytes came back behind the old end", name, len(got))
		}
		if !bytes.Equal(b[:9000], bytes.Repeat([]byte("x"), 9000)) {
			t.Errorf("%s: the old contents changed", name)
		}
	}
	must(t, v.Close())
	testenv.Check(t, image)
}
