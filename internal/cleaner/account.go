package cleaner

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/extent"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

var (
	_ drop.Sweeper   = (*txRefs)(nil)
	_ drop.Versioned = (*txRefs)(nil)
	_ drop.Surveyor  = (*planRefs)(nil)
)

// txRefs gives drop the account of references: as the running transaction has it, or without one, as it is for a reader at the moment. What is
// queued does not count then, which is noticed later.
type txRefs struct {
	m       *transaction.Manager
	running *extent.Extents
	tx      *transaction.Tx
	alone   bool // tx is
	changed bool
	waits   int         // for other writers
	seen    extent.Seen // told of leaves of the extent tree
}

func (r *txRefs) rlock() {
	if r.m.RLock() {
		r.waits++
	}
}

func (r *txRefs) Lookup(ctx context.Context, at []ondisk.Bytenr, out []ref.Info) error {
	if r.tx != nil {
		return r.tx.Lookup(ctx, at, out)
	}
	r.rlock()
	defer r.m.RUnlock()
	return r.running.Lookup(ctx, at, out)
}

func (r *txRefs) Add(ctx context.Context, cs []ref.Change) error {
	r.changed = true
	// Half of a sum is of no use: from here on it is all or nothing.
	return r.tx.ApplyBulk(context.WithoutCancel(ctx), cs)
}

func (r *txRefs) Size(ctx context.Context) (int, error) {
	if r.tx == nil {
		r.rlock()
		defer r.m.RUnlock()
	}
	rt, err := r.m.Tree(ctx, ondisk.RootTree)
	if err != nil {
		return 0, err
	}
	return accountSize(ctx, rt, r.m.Volume())
}

// accountSize is how many blocks the extent tree had at the last commit.
func accountSize(ctx context.Context, rt *btree.Tree, v *volume.Volume) (int, error) {
	_, item, err := roots.Find(ctx, rt, ondisk.ExtentTree)
	return int(min(item.BytesUsed/uint64(v.Nodesize()), 1<<40)), err
}

func (r *txRefs) Survey(ctx context.Context, parents *ref.Set, data bool, fn func(ref.Loss) error) error {
	if r.tx != nil {
		return r.tx.Survey(ctx, parents, data, r.seen, fn)
	}
	r.rlock()
	defer r.m.RUnlock()
	return r.running.Survey(ctx, parents, data, r.seen, fn)
}

func (r *txRefs) Sweep(ctx context.Context, cs []ref.Change, parents *ref.Set) (uint64, error) {
	r.changed = true
	if !r.alone {
		ctx = context.WithoutCancel(ctx) // what others changed is not to be lost
	}
	return r.tx.Sweep(ctx, cs, parents, r.seen)
}

// Version implements drop.Versioned. Changes that are queued are not seen without a transaction, so then no version is like another.
func (r *txRefs) Version() uint64 {
	if r.tx != nil {
		return r.m.Acts()
	}
	r.rlock()
	defer r.m.RUnlock()
	if r.m.Queued() > 0 {
		return ^uint64(0)
	}
	return r.m.Acts()
}

// planRefs is the account of a volume that nobody changes.
type planRefs struct {
	*extent.Extents
	v *volume.Volume
}

func (p *planRefs) Survey(ctx context.Context, parents *ref.Set, data bool, fn func(ref.Loss) error) error {
	return p.Extents.Survey(ctx, parents, data, nil, fn)
}

func (p *planRefs) Size(ctx context.Context) (int, error) {
	return accountSize(ctx, p.v.RootTree(), p.v)
}
