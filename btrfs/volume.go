package btrfs

import (
	"context"
	"errors"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Volume is an open Btrfs volume.
type Volume struct {
	vol    *volume.Volume
	mgr    *transaction.Manager // nil when read-only
	shadow *transaction.Manager // when read-only: the replay of a log, in memory; else nil
	logErr error                // why there is none though there is a log
	opt    Options
	target string
	found  int // dead subvolumes found when it was opened
	files  openFiles

	dropping sync.Mutex // held by Drop: a tree that is being dropped is not brought back

	mu     sync.Mutex // guards closed
	closed bool
}

// settled gives the trees of a volume that is opened read-only: they never change.
func (v *Volume) settled() treeFunc {
	if v.shadow != nil {
		return v.shadow.Tree
	}
	return v.vol.Tree
}

// view runs fn while no change is made, with a function that gives the trees
// as they stand now (changes of the running transaction included).
func (v *Volume) view(fn func(tree treeFunc) error) error {
	if v.mgr == nil {
		return fn(v.settled())
	}
	v.mgr.RLock()
	defer v.mgr.RUnlock()
	return fn(v.mgr.Tree)
}

// change runs fn in the running transaction; need says what it may use up. An
// error that fn returns after it began to change trees must have been given to
// tx.Fail.
func (v *Volume) change(ctx context.Context, need transaction.Need, fn func(tx *transaction.Tx) error) error {
	if v.mgr == nil {
		return ErrReadOnly
	}
	tx, err := v.mgr.Begin(ctx, need)
	if err != nil {
		return err
	}
	err = fn(tx)
	return errors.Join(err, tx.End(ctx))
}

// treeFunc gives a tree by its id.
type treeFunc func(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error)

// csums gives the checksum tree; nil when the volume has none left, which matters only for data that need it.
func (v *Volume) csums(ctx context.Context, tree treeFunc) (*btree.Tree, error) {
	t, err := tree(ctx, ondisk.CsumTree)
	if err != nil && ctx.Err() == nil && (errors.Is(err, btree.ErrNotFound) || v.opt.IgnoreDataChecksums) {
		return nil, nil
	}
	return t, err
}

// Writable tells whether the volume was opened for writing and no transaction
// was aborted since.
func (v *Volume) Writable() bool { return v.writeProblem() == nil }

// writeProblem tells why the volume takes no changes, or nil.
func (v *Volume) writeProblem() error {
	if v.mgr == nil {
		return ErrReadOnly
	}
	return v.mgr.Err()
}

// Commit makes all changes durable, what was written to open Files among them.
func (v *Volume) Commit(ctx context.Context) error {
	if v.mgr == nil {
		return nil
	}
	return errors.Join(v.files.flushAll(ctx), v.mgr.Commit(ctx))
}

// Close commits what is pending and closes the devices. The error tells when
// that failed: changes since the last successful Commit are then lost, all of
// them or none.
func (v *Volume) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	var err error
	if v.mgr != nil {
		ctx := context.Background()
		err = errors.Join(v.files.flushAll(ctx), v.mgr.Close(ctx))
	}
	return errors.Join(err, v.vol.Close())
}
