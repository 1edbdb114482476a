package btree

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// window is how many leaves a cursor asks for ahead of itself once it moves from leaf to leaf.
const window = 12

// near is how many leaves on a move may go so that the leaves between are worth reading.
const near = 3

// Cursor walks over the items of a tree in key order. It holds until the tree changes.
type Cursor struct {
	t     *Tree
	p     path
	valid bool
	moves int              // leaves passed in one direction since the last search
	ahead int              // slots of the node above the leaf that were asked for
	node  *treeblock.Block // the node that ahead is about
}

// Seek returns a cursor at the first item whose key is not less than key. It is not Valid if there is none.
func (t *Tree) Seek(ctx context.Context, key ondisk.Key) (*Cursor, error) {
	c := &Cursor{t: t}
	if _, err := c.p.find(ctx, t, key); err != nil {
		return nil, err
	}
	return c, c.settle(ctx)
}

// SeekLast returns a cursor at the last item whose key is not greater than key. It is not Valid if there is none.
func (t *Tree) SeekLast(ctx context.Context, key ondisk.Key) (*Cursor, error) {
	c := &Cursor{t: t}
	found, err := c.p.find(ctx, t, key)
	if err != nil || found {
		c.valid = found
		return c, err
	}
	// A search ends in the leaf that holds the last smaller key, unless the tree has none.
	c.p.slot[0]--
	c.valid = c.p.slot[0] >= 0
	return c, nil
}

// settle makes a cursor that may stand behind its leaf's last item stand on an item.
func (c *Cursor) settle(ctx context.Context) error {
	c.valid = true
	if c.p.slot[0] < c.p.block[0].Data().NrItems() {
		return nil
	}
	return c.NextLeaf(ctx)
}

// Valid tells whether the cursor stands on an item.
func (c *Cursor) Valid() bool { return c.valid }

// Key returns the item's key.
func (c *Cursor) Key() ondisk.Key { return c.p.block[0].Data().Key(c.p.slot[0]) }

// Data returns the item's body.
func (c *Cursor) Data() []byte { return c.p.block[0].Data().Item(c.p.slot[0]) }

// Leaf returns the leaf that holds the item.
func (c *Cursor) Leaf() *treeblock.Block { return c.p.block[0] }

// Slot returns the item's place in its leaf.
func (c *Cursor) Slot() int { return c.p.slot[0] }

// Next moves to the next item. After the last one the cursor is not Valid.
func (c *Cursor) Next(ctx context.Context) error {
	if !c.valid {
		return nil
	}
	c.p.slot[0]++
	if c.p.slot[0] < c.p.block[0].Data().NrItems() {
		return nil
	}
	return c.NextLeaf(ctx)
}

// NextLeaf moves to the first item of the next leaf.
func (c *Cursor) NextLeaf(ctx context.Context) error {
	if !c.valid {
		return nil
	}
	if c.moves++; c.moves > 1 {
		c.prefetch(ctx)
	}
	ok, err := c.p.step(ctx, c.t, false)
	c.valid = ok && err == nil && c.p.block[0].Data().NrItems() > 0
	return err
}

// Prev moves to the item before. Before the first one the cursor is not Valid.
func (c *Cursor) Prev(ctx context.Context) error {
	if !c.valid {
		return nil
	}
	if c.p.slot[0] > 0 {
		c.p.slot[0]--
		return nil
	}
	ok, err := c.p.step(ctx, c.t, true)
	c.valid = ok && err == nil
	return err
}

// Advance moves forward to the first item whose key is not less than key; it stays if it is there or behind already.
// A sweep over sorted keys costs one search within the leaf for keys that are near.
func (c *Cursor) Advance(ctx context.Context, key ondisk.Key) error {
	if !c.valid || !c.Key().Less(key) {
		return nil
	}
	level := 0
	for level < c.p.top && !c.covers(level, key) {
		level++
	}
	old := c.p.slot[1]
	if _, err := c.p.descend(ctx, c.t, level, key); err != nil {
		c.valid = false
		return err
	}
	switch {
	case level > 1 || c.p.slot[1]-old > near:
		c.moves = 0
	case level == 1:
		if c.moves++; c.moves > 1 {
			c.prefetch(ctx)
		}
	}
	return c.settle(ctx)
}

// covers tells whether the block at the level of the path is the one under which the key belongs.
func (c *Cursor) covers(level int, key ondisk.Key) bool {
	for l := level + 1; l <= c.p.top; l++ {
		b, next := c.p.block[l].Data(), c.p.slot[l]+1
		if next < b.NrItems() {
			return key.Less(b.Key(next))
		}
	}
	return true
}

// prefetch asks for the leaves that come next below the same node, and at its end for the next node.
func (c *Cursor) prefetch(ctx context.Context) {
	if c.p.top == 0 {
		return
	}
	b := c.p.block[1]
	d := b.Data()
	if c.node != b {
		c.node, c.ahead = b, c.p.slot[1]+1
	}
	from := max(c.ahead, c.p.slot[1]+1)
	end := min(c.p.slot[1]+1+window, d.NrItems())
	if end-from < window/2 && end < d.NrItems() || from >= end {
		return // ask for several at a time
	}
	var ps [window + 1]treeblock.Promise
	n := 0
	for slot := from; slot < end; slot++ {
		ps[n] = ChildPromise(c.t.id, d, slot)
		n++
	}
	c.ahead = end
	if up := c.p.slot[2] + 1; end == d.NrItems() && c.p.top > 1 && up < c.p.block[2].Data().NrItems() {
		ps[n] = ChildPromise(c.t.id, c.p.block[2].Data(), up)
		n++
	}
	c.t.store.Prefetch(ctx, ps[:n])
}

// Leaves returns what the tree's nodes say of its leaves, in key order: at most n, beginning with the one under which from belongs. more is the first
// key of the leaf behind them; it is zero where the tree ends. Who reads the leaves by these promises may do so from several goroutines.
func (t *Tree) Leaves(ctx context.Context, from ondisk.Key, n int) (leaves []treeblock.Promise, more ondisk.Key, err error) {
	if t.root.Level == 0 {
		return []treeblock.Promise{t.Promise()}, ondisk.Key{}, nil
	}
	var p path
	if p.block[t.root.Level], err = t.RootBlock(ctx); err != nil {
		return nil, ondisk.Key{}, err
	}
	p.top = int(t.root.Level)
	for level := p.top; ; level-- {
		p.slot[level] = childSlot(p.block[level].Data(), from)
		if level == 1 {
			break
		}
		if p.block[level-1], err = t.child(ctx, p.block[level], p.slot[level]); err != nil {
			return nil, ondisk.Key{}, err
		}
	}
	for {
		b := p.block[1].Data()
		for ; p.slot[1] < b.NrItems(); p.slot[1]++ {
			if len(leaves) == n {
				return leaves, b.Key(p.slot[1]), nil
			}
			leaves = append(leaves, ChildPromise(t.id, b, p.slot[1]))
		}
		if ok, err := p.nextNode(ctx, t); !ok || err != nil {
			return leaves, ondisk.Key{}, err
		}
	}
}

// nextNode moves to the first slot of the next node above leaves, if there is one.
func (p *path) nextNode(ctx context.Context, t *Tree) (ok bool, err error) {
	level := 2
	for ; level <= p.top && p.slot[level]+1 >= p.block[level].Data().NrItems(); level++ {
	}
	if level > p.top {
		return false, nil
	}
	for p.slot[level]++; level > 1; level-- {
		if p.block[level-1], err = t.child(ctx, p.block[level], p.slot[level]); err != nil {
			return false, err
		}
		p.slot[level-1] = 0
	}
	return true, nil
}
