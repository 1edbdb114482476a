package btree

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Insert adds an item. It returns ErrExist if the key is there.
func (t *Tree) Insert(ctx context.Context, key ondisk.Key, data []byte) error {
	return t.change(ctx, Op{OpInsert, key, data})
}

// Update replaces an item's body, of any size. It returns ErrNotFound if the key is not there.
func (t *Tree) Update(ctx context.Context, key ondisk.Key, data []byte) error {
	return t.change(ctx, Op{OpUpdate, key, data})
}

// Put adds an item or replaces it.
func (t *Tree) Put(ctx context.Context, key ondisk.Key, data []byte) error {
	return t.change(ctx, Op{OpPut, key, data})
}

// Delete takes an item away. It returns ErrNotFound if the key is not there.
func (t *Tree) Delete(ctx context.Context, key ondisk.Key) error {
	return t.change(ctx, Op{OpDelete, key, nil})
}

// Edit returns the body of an item, to be changed in place by the caller before the tree is used again.
func (t *Tree) Edit(ctx context.Context, key ondisk.Key) ([]byte, error) {
	if t.space == nil {
		return nil, ErrReadOnly
	}
	var p path
	found, err := p.find(ctx, t, key)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, ErrNotFound
	}
	if err := p.own(t); err != nil {
		return nil, err
	}
	return p.block[0].Data().Item(p.slot[0]), nil
}

// change does one operation: in place if the leaf keeps its neighbours, by apply if leaves must be split or joined.
func (t *Tree) change(ctx context.Context, op Op) error {
	if t.space == nil {
		return ErrReadOnly
	}
	if len(op.Data) > maxItem(t.size) {
		return ErrTooBig
	}
	var p path
	found, err := p.find(ctx, t, op.Key)
	if err != nil {
		return err
	}
	if err := op.allowed(found); err != nil {
		return err
	}
	if err := p.own(t); err != nil {
		return err
	}
	b, slot := p.block[0].Data(), p.slot[0]
	switch {
	case op.Kind == OpDelete:
		if b.NrItems() == 1 && p.top > 0 || p.shrinks(t, slot) {
			return t.apply(ctx, []Op{op})
		}
		leafDelete(b, slot)
	case found:
		if len(op.Data)-b.ItemLen(slot) > leafFree(b) {
			return t.apply(ctx, []Op{op})
		}
		leafResize(b, slot, len(op.Data))
		copy(b.Item(slot), op.Data)
	default:
		if len(op.Data)+ondisk.ItemSize > leafFree(b) {
			return t.apply(ctx, []Op{op})
		}
		leafInsert(b, slot, op.Key, op.Data)
	}
	if slot == 0 {
		p.rekey()
	}
	return nil
}

// shrinks tells whether deleting the item makes the leaf small enough that it should look for company. It says so
// only when a threshold is crossed: neighbours that could not take the leaf are not asked again for each item.
func (p *path) shrinks(t *Tree, slot int) bool {
	if p.top == 0 {
		return false
	}
	b := p.block[0].Data()
	before := leafUsed(b)
	after := before - b.ItemLen(slot) - ondisk.ItemSize
	limit := smallLeaf(t.size)
	return before >= limit && after < limit || before >= limit/4 && after < limit/4
}

// own makes each block of the path private, from the root down.
func (p *path) own(t *Tree) error {
	for level := p.top; level >= 0; level-- {
		b, err := t.own(p.block[level])
		if err != nil {
			return err
		}
		if b == p.block[level] {
			continue
		}
		p.block[level] = b
		if level == p.top {
			t.setRoot(b)
		} else {
			p.block[level+1].Data().SetPtr(p.slot[level+1], p.block[level+1].Data().Key(p.slot[level+1]), b.Bytenr(), b.Generation())
		}
	}
	return nil
}

// own returns b if the tree may change it, or a private copy.
func (t *Tree) own(b *treeblock.Block) (*treeblock.Block, error) {
	if t.space.Writable(t.id, b) {
		return b, nil
	}
	return t.space.Copy(t.id, b)
}

func (t *Tree) setRoot(b *treeblock.Block) {
	t.root = RootPtr{b.Bytenr(), b.Generation(), b.Level()}
}

// rekey tells the parents that the leaf begins with another key.
func (p *path) rekey() {
	if p.block[0].Data().NrItems() == 0 {
		return // an empty root
	}
	key := p.block[0].Data().Key(0)
	for level := 1; level <= p.top; level++ {
		b, slot := p.block[level].Data(), p.slot[level]
		at, gen := b.Ptr(slot)
		b.SetPtr(slot, key, at, gen)
		if slot > 0 {
			return
		}
	}
}
