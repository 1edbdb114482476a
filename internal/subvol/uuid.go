package subvol

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// uuidKey is where the UUID tree tells of a UUID: its halves as numbers.
func uuidKey(typ ondisk.KeyType, u ondisk.UUID) ondisk.Key {
	return ondisk.Key{Objectid: binary.LittleEndian.Uint64(u[:8]), Type: typ, Offset: binary.LittleEndian.Uint64(u[8:])}
}

// uuidTree gives the UUID tree, or nil when the volume has none: the kernel makes
// it, and fills it, at its next mount.
func uuidTree(ctx context.Context, tx *transaction.Tx) (*btree.Tree, error) {
	t, err := tx.Tree(ctx, ondisk.UUIDTree)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return t, err
}

// addUUID notes that a UUID belongs to a subvolume.
func addUUID(ctx context.Context, tx *transaction.Tx, typ ondisk.KeyType, u ondisk.UUID, id ondisk.TreeID) error {
	t, err := uuidTree(ctx, tx)
	if err != nil || t == nil || u.IsZero() {
		return err
	}
	old, err := t.Get(ctx, uuidKey(typ, u))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	body := append([]byte{}, old...)
	for b := body; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) == uint64(id) {
			return nil
		}
	}
	return t.Put(ctx, uuidKey(typ, u), binary.LittleEndian.AppendUint64(body, uint64(id)))
}

// removeUUID takes a subvolume from the entry of a UUID; it need not be there.
func removeUUID(ctx context.Context, tx *transaction.Tx, typ ondisk.KeyType, u ondisk.UUID, id ondisk.TreeID) error {
	t, err := uuidTree(ctx, tx)
	if err != nil || t == nil || u.IsZero() {
		return err
	}
	old, err := t.Get(ctx, uuidKey(typ, u))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var body []byte
	for b := old; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b) != uint64(id) {
			body = append(body, b[:8]...)
		}
	}
	switch len(body) {
	case len(old):
		return nil
	case 0:
		return t.Delete(ctx, uuidKey(typ, u))
	}
	return t.Update(ctx, uuidKey(typ, u), body)
}
