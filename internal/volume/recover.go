package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// BadSuper is a copy of a superblock that is not as it should be.
type BadSuper struct {
	DevID ondisk.DevID
	Copy  int   // from 1
	Err   error // what is wrong with it
}

// ErrStale: a device missed commits. Its superblock alone would make its old
// contents count as current.
var ErrStale = errors.New("the device missed commits; give the other devices without it to read the volume")

// RecoverSupers finds the copies of the superblock that are bad or behind, and
// with write set writes them anew from the newest good one. It refuses when a
// device has no good copy, when the trees cannot be read by the newest, and when
// a device missed commits (ErrStale). Nothing else is written. The devices stay
// open.
func RecoverSupers(ctx context.Context, devs []device.Device, write bool) ([]BadSuper, error) {
	v, err := Open(ctx, devs, Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		return nil, err
	}
	defer v.store.Close()
	if v.seeds > 0 || v.stale > 0 {
		if v.stale > 0 {
			return nil, ErrStale
		}
		return nil, errors.New("a seeding device is part of the volume: its superblocks are left alone")
	}
	var bad []BadSuper
	for _, item := range v.DevItems() {
		if d, ok := v.devs[item.DevID]; ok {
			bad = append(bad, v.badSupers(d, item)...)
		}
	}
	if !write || len(bad) == 0 {
		return bad, nil
	}
	for _, b := range bad {
		item, _ := v.devItem(b.DevID)
		if err := writeSuper(v.devs[b.DevID], v.sb, item, b.Copy-1); err != nil {
			return bad, fmt.Errorf("device %d: %w", b.DevID, err)
		}
	}
	return bad, v.io.Flush()
}

// badSupers lists the copies of one device that are bad or behind.
func (v *Volume) badSupers(d device.Device, item ondisk.DevItem) (bad []BadSuper) {
	for i := range superCopies(min(item.TotalBytes, uint64(max(d.Size(), 0)))) {
		sb, err := readSuper(d, i)
		switch {
		case err != nil:
		case sb.FSID != v.sb.FSID:
			err = fmt.Errorf("superblock copy %d is of another volume, %v", i+1, sb.FSID)
		case sb.Dev.DevID != item.DevID:
			err = fmt.Errorf("superblock copy %d is of another device, %d", i+1, sb.Dev.DevID)
		case sb.Generation != v.sb.Generation:
			err = fmt.Errorf("superblock copy %d is of generation %d, the newest of %d", i+1, sb.Generation, v.sb.Generation)
		}
		if err != nil {
			bad = append(bad, BadSuper{DevID: item.DevID, Copy: i + 1, Err: err})
		}
	}
	return bad
}
