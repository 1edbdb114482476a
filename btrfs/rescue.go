package btrfs

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/resync"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// BadSuper is a copy of a superblock that is not as it should be.
type BadSuper = volume.BadSuper

// RecoverSupers finds the copies of the superblock on target that are bad or
// behind the newest good one and, with write set, writes them anew. It refuses
// when a device has no good copy, and when the newest leads to no readable trees.
// A device that missed commits is brought up to date from the others first.
func RecoverSupers(ctx context.Context, target string, write bool) ([]BadSuper, error) {
	devs, err := openTarget(target, Options{ReadOnly: !write})
	if err != nil {
		return nil, err
	}
	defer closeAll(devs)
	bad, err := volume.RecoverSupers(ctx, devs, write, resync.Device)
	if err != nil {
		return bad, fmt.Errorf("%s: %w", target, err)
	}
	return bad, nil
}
