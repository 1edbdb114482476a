package filedata

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Evict removes an inode without names, with its data, in as many transactions
// as it takes. An inode without an orphan item is left alone.
func Evict(ctx context.Context, m *transaction.Manager, sub ondisk.TreeID, ino uint64) error {
	for {
		done, err := evictSome(ctx, m, sub, ino)
		if err != nil || done {
			return err
		}
	}
}

func evictSome(ctx context.Context, m *transaction.Manager, sub ondisk.TreeID, ino uint64) (done bool, err error) {
	tx, err := m.Begin(ctx, needDrop())
	if err != nil {
		return false, err
	}
	err = fstree.Alive(ctx, tx, sub)
	if errors.Is(err, fstree.ErrDeleted) { // goes with its subvolume
		return true, tx.End(ctx)
	}
	var t *fstree.Tree
	if err == nil {
		t, err = fstree.Open(ctx, tx, sub)
	}
	if err == nil {
		done, err = t.RemoveOrphan(ctx, ino, itemsAtOnce)
	}
	return done, errors.Join(err, tx.End(ctx))
}

// CleanOrphans removes all inodes without names of a subvolume: those that a
// crash left, and those that were too large to go with their last name.
func CleanOrphans(ctx context.Context, m *transaction.Manager, sub ondisk.TreeID) error {
	list, err := orphans(ctx, m, sub)
	if err != nil {
		return err
	}
	for _, ino := range list {
		if err := Evict(ctx, m, sub, ino); err != nil {
			return err
		}
	}
	return nil
}

func orphans(ctx context.Context, m *transaction.Manager, sub ondisk.TreeID) ([]uint64, error) {
	m.RLock()
	defer m.RUnlock()
	t, err := m.Tree(ctx, sub)
	if err != nil {
		return nil, err
	}
	return fstree.Orphans(ctx, t)
}
