package cleaner

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// noRoom tells whether a step was tried and found no room, which cost nothing but the attempt.
func (c *cleaner) noRoom(err error) bool {
	return errors.Is(err, transaction.ErrNoSpace) && c.small && c.m.Err() == nil
}

// squeeze makes the next step smaller, after one found no room. The smallest step of a set takes one position of all its trees; then it is one leaf of
// one tree; and where even that is too much, some extents of one leaf.
func (c *cleaner) squeeze(ctx context.Context, set []drop.Root) error {
	if !c.least {
		c.tight++
		return nil
	}
	for _, r := range set {
		steps := c.steps
		_, err := c.dropSet(ctx, []drop.Root{r})
		if !c.noRoom(err) || c.steps > steps {
			if c.noRoom(err) {
				err = nil
			}
			return err
		}
		if done, err := c.thinLeaf(ctx, r); done || err != nil {
			return err
		}
	}
	return transaction.ErrNoSpace
}

// thinAtOnce is with how many extents of a leaf thinning begins.
const thinAtOnce = 64

// thinLeaf makes holes of the extents in the next leaf of a dead tree, a few with each commit, so that the leaf itself can go at last. Half a leaf cannot
// be given up otherwise: no cut lies within one. It reports whether anything was gained.
//
// That works where the tree owns the leaf and everything above it alone and no FULL_BACKREF is set: then copying them changes no other reference. The
// tree gets a cut, if it has none yet, so that nobody takes it for whole and brings it back (subvol.Undelete); a tree of one leaf cannot have one.
func (c *cleaner) thinLeaf(ctx context.Context, r drop.Root) (gained bool, err error) {
	if c.thin == 0 {
		c.thin = thinAtOnce
	}
	for {
		if err := c.gate(ctx); err != nil {
			return gained, err
		}
		n, err := c.thinSome(ctx, r, c.thin)
		switch {
		case c.noRoom(err) && c.thin > 1:
			c.thin /= 2
		case c.noRoom(err):
			return gained, nil
		case err != nil || n == 0:
			return gained, err
		default:
			gained = true
			c.thin *= 2
			c.report.Thinned += uint64(n)
			c.count()
			if c.opt.Progress != nil {
				c.opt.Progress(c.report)
			}
		}
	}
}

// thinSome makes holes of up to n extents of the leaf, neighbours on disk, in a transaction of its own. It returns how many there were.
func (c *cleaner) thinSome(ctx context.Context, r drop.Root, n int) (int, error) {
	tx, err := c.m.Begin(ctx, transaction.Need{Items: n, Deleting: true, Dropping: true, Daring: true})
	if err != nil {
		return 0, err
	}
	end := context.WithoutCancel(ctx)
	t, err := tx.Tree(end, r.ID)
	if err != nil {
		return 0, tx.Fail(err)
	}
	leaf, cut, err := ownLeaf(end, tx, t, r)
	if leaf == nil || err != nil {
		return 0, tx.Fail(err)
	}
	list, err := extentsOf(leaf.Data())
	if err != nil {
		return 0, tx.Fail(err)
	}
	if list = list[:min(n, len(list))]; len(list) == 0 {
		return 0, tx.Fail(nil)
	}
	if err := saveCut(end, tx, r.ID, cut); err != nil {
		return 0, tx.Fail(err)
	}
	for _, e := range list {
		if err := e.punch(end, tx, t); err != nil {
			return 0, tx.Fail(err)
		}
	}
	return len(list), tx.Commit(end)
}

// ownLeaf is the next leaf of a dead tree, and the cut that leads to it, or nil if others have a part in it or in what is above it.
func ownLeaf(ctx context.Context, tx *transaction.Tx, t *btree.Tree, r drop.Root) (*treeblock.Block, drop.Cut, error) {
	b, err := t.RootBlock(ctx)
	if err != nil || b.Level() == 0 {
		return nil, drop.Cut{}, err
	}
	cut := r.Cut
	at := []ondisk.Bytenr{b.Bytenr()}
	for b.Level() > 0 {
		d := b.Data()
		slot := max(0, sort.Search(d.NrItems(), func(i int) bool { return r.Cut.Key.Less(d.Key(i)) })-1)
		p := treeblock.Promise{Level: d.Level() - 1, FirstKey: d.Key(slot), HasKey: true}
		p.Bytenr, p.Generation = d.Ptr(slot)
		if r.Cut.IsZero() {
			cut = drop.Cut{Key: p.FirstKey, Level: b.Level()}
		}
		if b, err = t.Store().Read(ctx, p); err != nil {
			return nil, cut, err
		}
		at = append(at, p.Bytenr)
	}
	slices.Sort(at)
	infos := make([]ref.Info, len(at))
	if err := tx.Lookup(ctx, at, infos); err != nil {
		return nil, cut, err
	}
	for _, i := range infos {
		if i.Refs != 1 || i.Flags&ondisk.ExtentFlagFullBackref != 0 {
			return nil, cut, nil
		}
	}
	return b, cut, nil
}

// fileExtent is an item that refers to data.
type fileExtent struct {
	key  ondisk.Key
	item ondisk.FileExtent
	ref  ref.Ref
}

// extentsOf lists what a leaf refers to, by address.
func extentsOf(leaf ondisk.Block) (list []fileExtent, err error) {
	refs, err := ref.Of(leaf, false, nil)
	if err != nil {
		return nil, err
	}
	for i := range leaf.NrItems() {
		if leaf.Key(i).Type != ondisk.TypeExtentData {
			continue
		}
		e, err := ondisk.DecodeFileExtent(leaf.Item(i))
		if err != nil {
			return nil, err
		}
		if e.Type != ondisk.ExtentInline && e.DiskBytenr != 0 {
			list = append(list, fileExtent{leaf.Key(i), e, refs[len(list)]})
		}
	}
	slices.SortFunc(list, func(a, b fileExtent) int { return cmp.Or(cmp.Compare(a.ref.At, b.ref.At), a.key.Compare(b.key)) })
	return list, nil
}

// punch makes a hole of it. The inode is not told: nobody can open it any more.
func (e *fileExtent) punch(ctx context.Context, tx *transaction.Tx, t *btree.Tree) error {
	hole := ondisk.FileExtent{Generation: e.item.Generation, RAMBytes: e.item.NumBytes, Type: ondisk.ExtentReg, NumBytes: e.item.NumBytes}
	if err := t.Update(ctx, e.key, hole.Append(nil)); err != nil {
		return err
	}
	return tx.AddRef(ref.Change{Ref: e.ref, Delta: -1})
}
