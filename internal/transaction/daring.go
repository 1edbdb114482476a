package transaction

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/space"
)

// settle commits a daring change, or gives it up because of err, and with it the transaction, which holds nothing else. Where there was no room for it,
// the volume is taken up again as the last commit left it. The caller holds the write lock.
func (tx *Tx) settle(ctx context.Context, err error) error {
	if err == nil {
		err = tx.m.commit(ctx)
	} else {
		tx.m.abort(err)
	}
	if !errors.Is(err, ErrNoSpace) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	s, again := space.Open(ctx, tx.m.spaceConfig())
	if again = errors.Join(again, tx.m.openAccounts(ctx)); again != nil {
		return errors.Join(err, again)
	}
	tx.m.space, tx.m.err = s, nil
	tx.m.ext.Restart(s, tx.before)
	return ErrNoSpace
}
