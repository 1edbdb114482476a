package transaction

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/space"
)

// settle commits a change that is alone, or gives it up because of err, and with it the transaction, which holds nothing else. Where there was no room for
// it, or it was cancelled, the volume is taken up again as the last commit left it. The caller holds the write lock.
func (tx *Tx) settle(ctx context.Context, err error) error {
	if err == nil {
		err = tx.m.commit(ctx)
	} else {
		tx.m.abort(err)
	}
	why := harmless(err)
	if why == nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	s, again := space.Open(ctx, tx.m.spaceConfig())
	if again = errors.Join(again, tx.m.openAccounts(ctx)); again != nil {
		return errors.Join(err, again)
	}
	tx.m.space, tx.m.err = s, nil
	tx.m.ext.Restart(s, tx.before)
	return why
}

// harmless returns the reason for which a change can be given up as if it had never begun, nil if err is none.
func harmless(err error) error {
	for _, why := range []error{ErrNoSpace, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, why) {
			return why
		}
	}
	return nil
}
