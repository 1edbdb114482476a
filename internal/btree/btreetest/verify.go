package btreetest

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Shape is what Verify saw of a tree.
type Shape struct {
	Items, Leaves, Nodes int
	Bytes                int // of items, heads included
	Blocks               map[ondisk.Bytenr]bool
}

// Verify reads a whole tree and checks what must hold of its structure.
func Verify(ctx context.Context, t *btree.Tree) (*Shape, error) {
	v := verifier{t: t, shape: &Shape{Blocks: map[ondisk.Bytenr]bool{}}}
	root, err := t.RootBlock(ctx)
	if err != nil {
		return nil, err
	}
	if root.Level() > 0 && root.Data().NrItems() < 2 {
		return nil, fmt.Errorf("root %d at level %d has %d children", uint64(root.Bytenr()), root.Level(), root.Data().NrItems())
	}
	return v.shape, v.block(ctx, root, nil)
}

type verifier struct {
	t     *btree.Tree
	shape *Shape
	last  *ondisk.Key // of the item before
}

func (v *verifier) block(ctx context.Context, b *treeblock.Block, end *ondisk.Key) error {
	d := b.Data()
	if v.shape.Blocks[b.Bytenr()] {
		return fmt.Errorf("block %d is in the tree twice", uint64(b.Bytenr()))
	}
	v.shape.Blocks[b.Bytenr()] = true
	if d.NrItems() == 0 && b.Bytenr() != v.t.Root().Bytenr {
		return fmt.Errorf("block %d is empty", uint64(b.Bytenr()))
	}
	if b.Level() == 0 {
		return v.leaf(d, end)
	}
	v.shape.Nodes++
	if d.NrItems() > (len(d)-ondisk.HeaderSize)/ondisk.KeyPtrSize {
		return fmt.Errorf("node %d has %d pointers", uint64(b.Bytenr()), d.NrItems())
	}
	for i := range d.NrItems() {
		childEnd := end
		if i+1 < d.NrItems() {
			k := d.Key(i + 1)
			childEnd = &k
		}
		c, err := v.t.Store().Read(ctx, btree.ChildPromise(v.t.ID(), d, i))
		if err != nil {
			return err
		}
		if c.Generation() > b.Generation() {
			return fmt.Errorf("block %d is newer than its parent %d", uint64(c.Bytenr()), uint64(b.Bytenr()))
		}
		if err := v.block(ctx, c, childEnd); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) leaf(d ondisk.Block, end *ondisk.Key) error {
	v.shape.Leaves++
	at := len(d) - ondisk.HeaderSize
	for i := range d.NrItems() {
		k := d.Key(i)
		if v.last != nil && !v.last.Less(k) || end != nil && !k.Less(*end) {
			return fmt.Errorf("leaf %d slot %d: key %v out of order", uint64(d.Bytenr()), i, k)
		}
		v.last = &k
		at -= d.ItemLen(i)
		if d.ItemOffset(i) != at {
			return fmt.Errorf("leaf %d slot %d: body at %d, not %d", uint64(d.Bytenr()), i, d.ItemOffset(i), at)
		}
		v.shape.Items++
		v.shape.Bytes += ondisk.ItemSize + d.ItemLen(i)
	}
	if at < d.NrItems()*ondisk.ItemSize {
		return fmt.Errorf("leaf %d: heads and bodies meet", uint64(d.Bytenr()))
	}
	return nil
}
