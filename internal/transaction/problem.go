package transaction

import (
	"context"
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Errors of Open for work that Linux began and must finish first.
var (
	ErrReplace = errors.New("a device replacement was interrupted: let Linux finish or cancel it before the volume is written")
	ErrBalance = errors.New("a balance was interrupted and left relocation trees: mount the volume once under Linux before it is written")
)

// Values of ondisk.DevReplace.State in which the target device is part of the volume.
const (
	replaceStarted   = 1
	replaceSuspended = 4
)

// problem tells why trees forbid writing.
func problem(ctx context.Context, v *volume.Volume) error {
	_, _, err := roots.Find(ctx, v.RootTree(), ondisk.RelocTree)
	switch {
	case err == nil:
		return ErrBalance
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	t, err := v.Tree(ctx, ondisk.DevTree)
	if err != nil {
		return err
	}
	b, err := t.Get(ctx, ondisk.Key{Type: ondisk.TypeDevReplace})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := ondisk.DecodeDevReplace(b)
	if err != nil {
		return err
	}
	if r.State == replaceStarted || r.State == replaceSuspended {
		return ErrReplace
	}
	return nil
}
