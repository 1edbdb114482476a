package btree

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// path is the way from a root to a place in a leaf; block[i] is at level i.
type path struct {
	block [MaxLevel + 1]*treeblock.Block
	slot  [MaxLevel + 1]int
	top   int // level of the root
}

// find goes to the key, or to the slot of the leaf where it would be.
func (p *path) find(ctx context.Context, t *Tree, key ondisk.Key) (found bool, err error) {
	b, err := t.RootBlock(ctx)
	if err != nil {
		return false, err
	}
	p.top = int(t.root.Level)
	p.block[p.top] = b
	return p.descend(ctx, t, p.top, key)
}

// descend goes from the block at the level to the key.
func (p *path) descend(ctx context.Context, t *Tree, level int, key ondisk.Key) (found bool, err error) {
	for ; level > 0; level-- {
		p.slot[level] = childSlot(p.block[level].Data(), key)
		if p.block[level-1], err = t.child(ctx, p.block[level], p.slot[level]); err != nil {
			return false, err
		}
	}
	t.read.Add(1)
	p.slot[0], found = p.block[0].Data().Search(key)
	return found, nil
}

// childSlot returns the slot of the child under which the key belongs.
func childSlot(b ondisk.Block, key ondisk.Key) int {
	slot, exact := b.Search(key)
	if !exact && slot > 0 {
		slot--
	}
	return slot
}

// edge goes from the block at the level to the first (or last) item below it.
func (p *path) edge(ctx context.Context, t *Tree, level int, last bool) (err error) {
	for ; ; level-- {
		p.slot[level] = 0
		if n := p.block[level].Data().NrItems(); last && n > 0 {
			p.slot[level] = n - 1
		}
		if level == 0 {
			t.read.Add(1)
			return nil
		}
		if p.block[level-1], err = t.child(ctx, p.block[level], p.slot[level]); err != nil {
			return err
		}
	}
}

// step moves to the next (or previous) leaf. It returns false, and leaves the path alone, if there is none.
func (p *path) step(ctx context.Context, t *Tree, back bool) (bool, error) {
	for level := 1; level <= p.top; level++ {
		slot := p.slot[level] + 1
		if back {
			slot = p.slot[level] - 1
		}
		if slot < 0 || slot >= p.block[level].Data().NrItems() {
			continue
		}
		b, err := t.child(ctx, p.block[level], slot)
		if err != nil {
			return false, err
		}
		p.slot[level], p.block[level-1] = slot, b
		return true, p.edge(ctx, t, level-1, back)
	}
	return false, nil
}
