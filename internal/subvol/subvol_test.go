package subvol

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

var ctx = context.Background()

func open(t *testing.T, image string) *transaction.Manager {
	t.Helper()
	d, err := device.OpenFile(image, device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	m, err := transaction.Open(ctx, v, transaction.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return m
}

// do runs fn in a transaction of its own.
func do(t *testing.T, m *transaction.Manager, fn func(tx *transaction.Tx) error) error {
	t.Helper()
	tx, err := m.Begin(ctx, transaction.Need{Items: 64})
	if err != nil {
		t.Fatal(err)
	}
	err = fn(tx)
	if eerr := tx.End(ctx); eerr != nil && err == nil {
		t.Fatal(eerr)
	}
	return err
}

func list(t *testing.T, m *transaction.Manager) map[string]Info {
	t.Helper()
	m.RLock()
	defer m.RUnlock()
	all, err := List(ctx, func(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error) { return m.Tree(ctx, id) })
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Info{}
	for _, i := range all {
		key := i.Path
		if i.Deleted {
			key = fmt.Sprintf("deleted %d", i.ID)
		}
		out[key] = i
	}
	return out
}

// TestLife: subvolumes are made, nested, snapshotted, refused to be deleted and
// deleted, on volumes made by the kernel; btrfs check agrees after each commit.
func TestLife(t *testing.T) {
	for _, name := range []string{"default", "node-4k", "no-skinny", "fst-no-bgt"} {
		t.Run(name, func(t *testing.T) {
			image := testenv.Image(t, name)
			m := open(t, image)
			before := len(list(t, m))
			var a, b, s ondisk.TreeID
			err := do(t, m, func(tx *transaction.Tx) (err error) {
				if a, err = Create(ctx, tx, ondisk.FSTree, 256, []byte("sub-a")); err != nil {
					return err
				}
				if b, err = Create(ctx, tx, a, 256, []byte("sub-b")); err != nil {
					return err
				}
				s, err = Snapshot(ctx, tx, a, ondisk.FSTree, 256, []byte("snap-a"), true)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			commit(t, m, image)
			got := list(t, m)
			if len(got) != before+3 || got["sub-a/sub-b"].ID != b || got["sub-a"].ID != a || got["snap-a"].ID != s {
				t.Fatalf("listed: %v", got)
			}
			if i := got["snap-a"].Item; i.ParentUUID != got["sub-a"].Item.UUID || i.Flags&ondisk.RootFlagReadonly == 0 {
				t.Errorf("snapshot: %+v", i)
			}
			if err := do(t, m, func(tx *transaction.Tx) error { return Delete(ctx, tx, []ondisk.TreeID{s, a}) }); !errors.Is(err, ErrNested) {
				t.Errorf("deleting a subvolume that holds another: %v", err)
			}
			if err := do(t, m, func(tx *transaction.Tx) error { return SetDefault(ctx, tx, b) }); err != nil {
				t.Fatal(err)
			}
			if err := do(t, m, func(tx *transaction.Tx) error { return Delete(ctx, tx, []ondisk.TreeID{a, b}) }); !errors.Is(err, ErrDefault) {
				t.Errorf("deleting the default: %v", err)
			}
			if err := do(t, m, func(tx *transaction.Tx) error { return SetDefault(ctx, tx, ondisk.FSTree) }); err != nil {
				t.Fatal(err)
			}
			if got := list(t, m); len(got) != before+3 {
				t.Errorf("a refused deletion changed something: %v", got)
			}
			if err := do(t, m, func(tx *transaction.Tx) error { return Delete(ctx, tx, []ondisk.TreeID{a, b, s, a}) }); err != nil {
				t.Fatal(err)
			}
			commit(t, m, image)
			for _, id := range []ondisk.TreeID{a, b, s} {
				if i, ok := list(t, m)[fmt.Sprintf("deleted %d", id)]; !ok || i.Item.Flags&ondisk.RootFlagDead == 0 {
					t.Errorf("%d: %+v", id, i)
				}
			}
		})
	}
}

func commit(t *testing.T, m *transaction.Manager, image string) {
	t.Helper()
	if err := m.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	testenv.Check(t, image)
}
