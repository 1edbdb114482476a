package subvol

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Errors that undeleting is refused with.
var (
	ErrNotDeleted = errors.New("it is not deleted")
	ErrDropping   = errors.New("its drop has begun; what is left of it is not a whole subvolume")
)

// Undelete takes back the deletion of a subvolume of which nothing has been dropped
// yet, and calls it name in directory dir of parent: its old place is not known any
// more. Nobody may drop it meanwhile.
func Undelete(ctx context.Context, tx *transaction.Tx, id, parent ondisk.TreeID, dir uint64, name []byte) error {
	if !id.IsSubvolume() || id == ondisk.FSTree {
		return fmt.Errorf("subvolume %d: %w", id, ErrNotDeleted)
	}
	item, key, err := tx.RootItem(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case item.Refs != 0:
		return fmt.Errorf("subvolume %d: %w", id, ErrNotDeleted)
	case !item.DropProgress.IsZero() || item.DropLevel != 0:
		return fmt.Errorf("subvolume %d: %w", id, ErrDropping)
	}
	pt, err := fstree.Open(ctx, tx, parent)
	if err != nil {
		return err
	}
	if err := pt.Vacant(ctx, dir, name); err != nil {
		return err
	}
	if err := relink(ctx, tx, pt, id, parent, dir, name, key, item); err != nil {
		return tx.Fail(fmt.Errorf("undelete subvolume %d: %w", id, err))
	}
	return nil
}

// relink is unlink backwards.
func relink(ctx context.Context, tx *transaction.Tx, pt *fstree.Tree, id, parent ondisk.TreeID, dir uint64, name []byte, key ondisk.Key, item *ondisk.RootItem) error {
	item.Refs = 1
	item.Flags &^= ondisk.RootFlagDead
	tx.Touch(id)
	if err := roots.RemoveOrphan(ctx, tx.RootTree(), id); err != nil {
		return err
	}
	// Entries of snapshots do not tell the offset of the root item's key.
	location := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem}
	if key.Offset != 0 {
		location.Offset = ^uint64(0)
	}
	if err := link(ctx, tx, pt, id, parent, dir, name, location, item.UUID); err != nil {
		return err
	}
	return addUUID(ctx, tx, ondisk.TypeUUIDReceivedSubvol, item.ReceivedUUID, id)
}
