package check

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// item is one item of a tree. Its data is valid until each goes on.
type item struct {
	key  ondisk.Key
	data []byte
	at   ondisk.Bytenr // the leaf
	slot int
}

// place is where the item is.
func (it item) place(t ondisk.TreeID) Place {
	return Place{Tree: t, Bytenr: it.at, Slot: it.slot, Key: it.key}
}

// each calls fn for every item of t in order. Blocks that can not be read are
// reported and left out; it tells whether there were none. It goes on only while
// keys ascend through the whole tree, so it ends on any bytes.
func (c *checker) each(ctx context.Context, t *btree.Tree, fn func(it item)) bool {
	r := reading{c: c, t: t, fn: fn}
	return r.down(ctx, t.Promise())
}

// reading is the state of one each.
type reading struct {
	c    *checker
	t    *btree.Tree
	fn   func(it item)
	bufs [ondisk.MaxLevel + 1][]byte // one per level: the blocks on the path
	last ondisk.Key
	any  bool // last is set
}

func (r *reading) down(ctx context.Context, p treeblock.Promise) bool {
	if p.Level > ondisk.MaxLevel {
		return false
	}
	if r.bufs[p.Level] == nil {
		r.bufs[p.Level] = make([]byte, r.c.node)
	}
	b, err := r.c.store.ReadInto(ctx, p, r.bufs[p.Level])
	if err != nil {
		if ctx.Err() == nil {
			r.c.unreadable(r.t.ID(), p, err)
		}
		return false
	}
	if b.Level() == 0 {
		return r.leaf(b)
	}
	ok := true
	for i := range b.NrItems() {
		if ctx.Err() != nil {
			return false
		}
		r.ahead(ctx, b, i)
		ok = r.down(ctx, btree.ChildPromise(r.t.ID(), b, i)) && ok
	}
	return ok
}

// ahead starts to read the next children of a node while this one is used.
func (r *reading) ahead(ctx context.Context, b ondisk.Block, i int) {
	const window = 16
	if b.Level() != 1 || i%window != 0 {
		return
	}
	ps := make([]treeblock.Promise, 0, window)
	for j := i + 1; j < min(b.NrItems(), i+1+window); j++ {
		ps = append(ps, btree.ChildPromise(r.t.ID(), b, j))
	}
	r.c.store.Prefetch(ctx, ps)
}

func (r *reading) leaf(b ondisk.Block) bool {
	for i := range b.NrItems() {
		k := b.Key(i)
		if r.any && !r.last.Less(k) {
			r.c.rep.bad(Place{Tree: r.t.ID(), Bytenr: b.Bytenr(), Slot: i, Key: k}, "searches will miss items", "key not larger than %v before it", r.last)
			return false
		}
		r.last, r.any = k, true
		r.fn(item{k, b.Item(i), b.Bytenr(), i})
	}
	return true
}

// unreadable reports a block of which no copy is good.
func (c *checker) unreadable(t ondisk.TreeID, p treeblock.Promise, err error) {
	c.rep.bad(Place{Tree: t, Bytenr: p.Bytenr, Slot: -1, Key: p.FirstKey}, "everything below is lost", "no good copy of a level %d block: %v", p.Level, err)
}
