package cleaner_test

import (
	"context"
	"errors"
	"os"
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
// aborts (-28). Here leaves are thinned out first. That may be left at any point: the volume is sound then, and the next run
// goes on. Everything comes back.
func TestStuck(t *testing.T) {
	image := crammed(t, "stuck")
	extents, commits := uint64(0), 0
	for _, steps := range []int{4, 9, 30, 0} {
		v, m := open(t, []string{image})
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		n := 0
		r, err := cleaner.Run(ctx, m, cleaner.Options{Gate: func(ctx context.Context) error {
			if n++; n == steps {
				stop()
			}
			return ctx.Err()
		}})
		if steps > 0 && (!errors.Is(err, context.Canceled) || r.RootsDone > 0) || steps == 0 && (err != nil || r.RootsDone != 1) {
			t.Fatalf("%d steps: %+v, %v", steps, r, err)
		}
		if steps == 30 && r.Thinned < 100 {
			t.Errorf("only %d extents were thinned out", r.Thinned)
		}
		if steps > 0 && r.ExtentsFreed > 0 {
			wantCut(t, m)
		}
		extents, commits = extents+r.ExtentsFreed, commits+r.Commits
		closeAll(t, v, m)
		testenv.Check(t, image)
	}
	if extents != 10000 || commits > 500 {
		t.Errorf("%d extents freed in %d commits", extents, commits)
	}
	t.Run("kernel", func(t *testing.T) {
		mnt := testenv.Mount(t, []string{image})
		if err := os.Remove(filepath.Join(mnt, "d50")); err != nil { // the snapshots fill it still
			t.Error(err)
		}
		testenv.Umount(t, mnt)
		testenv.Check(t, image)
	})
}

// wantCut wants every dead tree to say that it is not whole any more.
func wantCut(t *testing.T, m *transaction.Manager) {
	t.Helper()
	for _, s := range listed(t, m) {
		if s.Deleted && s.Item.DropProgress.IsZero() {
			t.Errorf("tree %d was begun and has no cut", s.ID)
		}
	}
}
