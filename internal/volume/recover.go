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

// Resync brings device id, which volume v does without because it missed commits,
// up to date, and makes that durable.
type Resync func(ctx context.Context, v *Volume, id ondisk.DevID, dev device.Device) error

// RecoverSupers finds the copies of the superblock that are bad or behind, and
// with write set writes them anew from the newest good one. It refuses when a
// device has no good copy, and when the trees cannot be read by the newest. A
// device that missed commits is given to resync first: a new superblock alone
// would make its old contents count as current. The devices stay open.
func RecoverSupers(ctx context.Context, devs []device.Device, write bool, resync Resync) ([]BadSuper, error) {
	v, err := Open(ctx, devs, Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		return nil, err
	}
	defer v.store.Close()
	if v.seeds > 0 {
		return nil, errors.New("a seeding device is part of the volume: its superblocks are left alone")
	}
	for id, f := range v.behind {
		if item, ok := v.devItem(id); !ok || item.UUID != f.sb.Dev.UUID || v.devs[id] != nil {
			return nil, fmt.Errorf("a device that missed commits calls itself device %d, which is another one", id)
		}
	}
	var bad []BadSuper
	for _, item := range v.DevItems() {
		if d := v.given(item.DevID); d != nil {
			bad = append(bad, v.badSupers(d, item)...)
		}
	}
	if !write || len(bad) == 0 {
		return bad, nil
	}
	for id, f := range v.behind {
		if err := resync(ctx, v, id, f.dev); err != nil {
			return bad, err
		}
	}
	for _, b := range bad {
		item, _ := v.devItem(b.DevID)
		if err := writeSuper(v.given(b.DevID), v.sb, item, b.Copy-1); err != nil {
			return bad, fmt.Errorf("device %d: %w", b.DevID, err)
		}
	}
	var errs []error
	for _, d := range devs {
		errs = append(errs, d.Flush())
	}
	return bad, errors.Join(errs...)
}

// given is a device that was given, current or not; nil when it was not.
func (v *Volume) given(id ondisk.DevID) device.Device {
	if d, ok := v.devs[id]; ok {
		return d
	}
	return v.behind[id].dev
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
