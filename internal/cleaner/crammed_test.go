package cleaner_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// crammed unpacks a volume that the kernel filled until a dozen or two of blocks were left for metadata (testdata/cram.py).
func crammed(t *testing.T, name string) string {
	t.Helper()
	image := filepath.Join(testenv.Scratch(t), name+".img")
	if err := testenv.Unpack(filepath.Join("testdata", name+".img.zst"), image, 112<<20); err != nil {
		t.Fatal(err)
	}
	return image
}

// TestCrammed: with 12 blocks left of 1,216, fewer than can be promised to anybody, dead snapshots are dropped, for each step
// needs less. The kernel then mounts the volume and writes to it.
func TestCrammed(t *testing.T) {
	image := crammed(t, "crammed")
	v, m := open(t, []string{image})
	if n, err := cleaner.Pending(context.Background(), m); n != 4 || err != nil {
		t.Fatalf("%d dead trees, %v", n, err)
	}
	if u := m.Usage(); u.Metadata.Free > 15*uint64(v.Nodesize()) || u.Unallocated > 1<<20 {
		t.Fatalf("there is room: %+v", u)
	}
	r, err := cleaner.Run(context.Background(), m, cleaner.Options{})
	if err != nil || r.RootsDone != 4 || r.BlocksFreed < 800 {
		t.Errorf("%+v, %v", r, err)
	}
	closeAll(t, v, m)
	testenv.Check(t, image)
	t.Run("kernel", func(t *testing.T) {
		mnt := testenv.Mount(t, []string{image})
		testenv.Run(t, "btrfs", "subvolume", "snapshot", filepath.Join(mnt, "s0"), filepath.Join(mnt, "new"))
		testenv.Run(t, "cp", "--reflink=always", filepath.Join(mnt, "d1"), filepath.Join(mnt, "new", "big"))
		testenv.Umount(t, mnt)
		testenv.Check(t, image)
	})
}

// TestStuck: where one leaf's extents lie in more blocks of the extent tree than there is room to copy, the kernel's cleaner
// aborts (-28). So does this one: it says why, and what was committed stays as it is.
func TestStuck(t *testing.T) {
	image := crammed(t, "stuck")
	v, m := open(t, []string{image})
	before := m.Super().Generation
	r, err := cleaner.Run(context.Background(), m, cleaner.Options{})
	if !errors.Is(err, transaction.ErrNoSpace) || r.RootsDone != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	v.Close()
	testenv.Check(t, image)
	v, m = open(t, []string{image})
	if n, err := cleaner.Pending(context.Background(), m); n != 1 || err != nil || m.Super().Generation > before+100 {
		t.Errorf("%d dead trees, generation %d after %d, %v", n, m.Super().Generation, before, err)
	}
	closeAll(t, v, m)
}
