package btrfs_test

import (
	"errors"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestNoUndeleteBesideDrop: once Drop has listed what is dead, nothing of it comes back, also not what it did not
// touch yet.
func TestNoUndeleteBesideDrop(t *testing.T) {
	image := testenv.Image(t, "dead-roots-many")
	v := open(t, image, btrfs.Options{})
	list, err := v.Subvolumes(ctx)
	must(t, err)
	tried := 0
	_, err = v.Drop(ctx, btrfs.DropOptions{Budget: 50, Progress: func(r btrfs.DropReport) {
		for _, s := range list {
			if !s.Deleted || tried > 100 {
				continue
			}
			tried++
			if _, err := v.UndeleteSubvolume(ctx, s.ID, "/back"); !errors.Is(err, btrfs.ErrDropping) {
				t.Errorf("undelete %d: %v", s.ID, err)
			}
		}
	}})
	must(t, err)
	if tried == 0 {
		t.Error("never tried")
	}
	must(t, v.Close())
	testenv.Check(t, image)
}
