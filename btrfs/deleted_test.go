package btrfs_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestDeletedSubvolumeTakesNoChanges: who drops a deleted subvolume reads its tree
// without a lock, so handles from before the deletion must not change it; neither
// may closing a file that has no name, nor a clone take extents out of it.
func TestDeletedSubvolumeTakesNoChanges(t *testing.T) {
	image := fresh(t, btrfs.MakeOptions{})
	v := open(t, image, btrfs.Options{})
	s, err := v.CreateSubvolume(ctx, "/sub")
	must(t, err)
	must(t, s.WriteFile("a", make([]byte, 100<<10), 0o644))
	must(t, s.WriteFile("b", make([]byte, 100<<10), 0o644))
	a, err := s.OpenFile("a", os.O_RDWR, 0)
	must(t, err)
	_, err = a.WriteAt([]byte("gathered"), 10)
	must(t, err)
	b, err := s.OpenFile("b", os.O_RDWR, 0)
	must(t, err)
	must(t, s.Remove("b"))
	into, err := v.Top().Create("into")
	must(t, err)
	must(t, v.DeleteSubvolumes(ctx, []string{"/sub"}))
	must(t, v.Commit(ctx))
	before := v.Info().Generation

	changes := map[string]func() error{
		"create":   func() error { return s.WriteFile("new", nil, 0o644) },
		"mkdir":    func() error { return s.Mkdir("dir", 0o755) },
		"remove":   func() error { return s.Remove("a") },
		"rename":   func() error { return s.Rename("a", "c") },
		"chmod":    func() error { return s.Chmod("a", 0o600) },
		"write":    func() error { _, err := a.WriteAt([]byte("x"), 0); return err },
		"truncate": func() error { return a.Truncate(5) },
		"clone":    func() error { return into.CloneRange(0, a, 0, 4096) },
	}
	for op, change := range changes {
		if err := change(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", op, err)
		}
	}
	must(t, a.Close())
	must(t, b.Close())
	must(t, into.Close())
	must(t, v.Commit(ctx))
	if after := v.Info().Generation; after != before {
		t.Errorf("something was changed: generation %d, was %d", after, before)
	}
	_, err = v.Drop(ctx, btrfs.DropOptions{})
	must(t, err)
	must(t, v.Close())
	testenv.Check(t, image)
}

// TestReadOnlySubvolumeKeepsItsBytes: a file that was opened before its subvolume
// was made read-only cannot be written any more.
func TestReadOnlySubvolumeKeepsItsBytes(t *testing.T) {
	v := open(t, fresh(t, btrfs.MakeOptions{}), btrfs.Options{})
	s, err := v.CreateSubvolume(ctx, "/sub")
	must(t, err)
	f, err := s.Create("a")
	must(t, err)
	_, err = f.Write([]byte("before"))
	must(t, err)
	must(t, v.SetReadOnly(ctx, "/sub", true))
	if _, err := f.WriteAt([]byte("AFTER"), 0); !errors.Is(err, btrfs.ErrReadOnly) {
		t.Errorf("write: %v", err)
	}
	if err := f.Truncate(2); !errors.Is(err, btrfs.ErrReadOnly) {
		t.Errorf("truncate: %v", err)
	}
	must(t, f.Close())
	b, err := s.ReadFile("a")
	must(t, err)
	if string(b) != "before" {
		t.Errorf("the file holds %q", b)
	}
}
