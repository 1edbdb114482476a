package check

import (
	"bytes"
	"context"
	"sort"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// memo is a block's summary while and after it is made. Who comes first makes it,
// the others wait: never for each other, because they wait only for lower levels.
type memo struct {
	done chan struct{}
	sum  *summary
}

// scratch is what the visit of one block needs.
type scratch struct {
	buf  []byte
	refs []ref.Ref
}

// grove is one tree being walked.
type grove struct {
	id       ondisk.TreeID // as in keys of references
	item     ondisk.RootItem
	files    bool // judge inodes
	relocate bool
}

// ownerCheck is a block whose references are implicit, to be found from its
// owner's tree (invariant O).
type ownerCheck struct {
	at    ondisk.Bytenr
	level uint8
	key   ondisk.Key
	owner ondisk.TreeID
}

// lost stands for the summary of what could not be read.
var lost = &summary{incomplete: true, tornLeft: true, tornRight: true}

// walk visits every block of every tree once. Living subvolumes come first and in
// order of age, so that blocks are mostly met from their owner, and are judged
// before a dying tree, whose inodes nobody judges, can claim them.
func (c *checker) walk(ctx context.Context) {
	c.walkTree(ctx, grove{id: ondisk.RootTree}, c.v.RootTree().Promise(), nil)
	c.walkTree(ctx, grove{id: ondisk.ChunkTree}, c.v.ChunkTree().Promise(), nil)
	var late []top
	for _, t := range c.tops {
		if t.dying() || t.id == ondisk.RelocTree {
			late = append(late, t)
			continue
		}
		c.walkTop(ctx, t)
	}
	for _, t := range late {
		c.walkTop(ctx, t)
	}
	if c.collect == nil {
		c.judgeOwners(ctx)
	}
}

func (c *checker) walkTop(ctx context.Context, t top) {
	if ctx.Err() != nil {
		return
	}
	g := grove{id: t.id, item: t.item, relocate: t.id == ondisk.RelocTree}
	g.files = c.collect == nil && !t.dying() && (t.id.IsSubvolume() || t.id == ondisk.DataRelocTree)
	p := treeblock.Promise{Bytenr: t.item.Bytenr, Generation: t.item.Generation, Level: t.item.Level, Tree: t.id}
	if !t.id.IsShareable() {
		p.Owner = t.id
	}
	var from *ondisk.DropCut
	if cut, ok := t.item.Dropped(); ok {
		from = &cut
	}
	sum := c.walkTree(ctx, g, p, from)
	if g.files && ctx.Err() == nil {
		c.judgeTree(ctx, g, sum)
	}
}

// walkTree adds the reference to the root and walks down.
func (c *checker) walkTree(ctx context.Context, g grove, p treeblock.Promise, from *ondisk.DropCut) *summary {
	r := ref.Ref{At: p.Bytenr, Len: c.node, Kind: ref.KindTreeBlock, Level: p.Level, Root: g.id}
	if g.relocate {
		r.Kind, r.Root, r.Parent = ref.KindSharedBlock, 0, p.Bytenr
	}
	c.meet(g.id, r)
	return c.down(ctx, &g, p, from)
}

// meet adds a reference to the extent that it arrives at.
func (c *checker) meet(t ondisk.TreeID, r ref.Ref) {
	e := c.ext.find(r.At)
	if x := c.collect; x != nil {
		x.met(r)
		return
	}
	if e == nil {
		if c.extentOK {
			c.rep.bad(Place{Tree: t, Bytenr: r.At, Slot: -1}, "its space will be given to others", "in use, but the extent tree does not know it")
		}
		return
	}
	if e.block() == r.Kind.IsData() || e.length != r.Len {
		c.rep.bad(Place{Tree: t, Bytenr: r.At, Slot: -1}, "", "%v of %d bytes, but the extent item tells of %d bytes", r.Kind, r.Len, e.length)
	}
	e.meet(r)
}

// down visits the promised block, unless another tree led there before, and all
// below it.
func (c *checker) down(ctx context.Context, g *grove, p treeblock.Promise, from *ondisk.DropCut) *summary {
	e := c.ext.find(p.Bytenr)
	if e == nil {
		if !c.first(p.Bytenr) {
			return lost
		}
		return c.visit(ctx, g, p, nil, from)
	}
	m := &memo{sum: lost}
	if e.refs > 1 {
		m.done = make(chan struct{})
	}
	if !e.memo.CompareAndSwap(nil, m) {
		m = e.memo.Load()
		if m.done == nil {
			return lost // stated to have one reference: the count will not fit
		}
		select {
		case <-m.done:
			return m.sum
		case <-ctx.Done():
			return lost
		}
	}
	sum := c.visit(ctx, g, p, e, from)
	if m.done != nil {
		m.sum = sum
		close(m.done)
	}
	return sum
}

// first tells whether a block without an extent item comes for the first time.
func (c *checker) first(at ondisk.Bytenr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stray[at] {
		return false
	}
	c.stray[at] = true
	return true
}

func (c *checker) visit(ctx context.Context, g *grove, p treeblock.Promise, e *extent, from *ondisk.DropCut) *summary {
	if ctx.Err() != nil || p.Level > ondisk.MaxLevel {
		return lost
	}
	s := c.scratch.Get().(*scratch)
	defer c.scratch.Put(s)
	b, err := c.store.ReadInto(ctx, p, s.buf)
	if err != nil {
		if ctx.Err() == nil && c.collect == nil {
			c.unreadable(g.id, p, err)
			c.mu.Lock()
			c.walkOK = false
			c.mu.Unlock()
		}
		return lost
	}
	c.step()
	full := b.IsReloc()
	if e != nil {
		full = e.full()
	}
	if c.collect == nil {
		c.judgeBlock(g, b, e, full)
		c.judgeCopies(ctx, g, b)
	}
	start, onWay := 0, false
	if from != nil {
		start, onWay = from.Slot(b)
	}
	if s.refs, err = ref.Of(b, full, s.refs[:0]); err != nil {
		c.rep.bad(Place{Tree: g.id, Bytenr: b.Bytenr(), Slot: -1}, "", "%v", err)
	}
	refs := s.refs
	if b.Level() > 0 {
		refs = refs[start:]
	}
	for _, r := range refs {
		c.meet(g.id, r)
	}
	c.link(b.Bytenr(), refs)
	if b.Level() > 0 {
		if !onWay {
			from = nil
		}
		return c.children(ctx, g, b, start, from)
	}
	if !g.files {
		return &summary{last: lastKey(b)}
	}
	return c.leaf(g, b)
}

func lastKey(b ondisk.Block) ondisk.Key {
	if n := b.NrItems(); n > 0 {
		return b.Key(n - 1)
	}
	return ondisk.Key{}
}

// step counts a visited block and tells of the progress now and then.
func (c *checker) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.walked++
	if c.opt.Progress != nil && c.collect == nil && c.walked%1024 == 0 {
		c.opt.Progress("trees", c.walked)
	}
}

// children visits the blocks below a node, in parallel as far as there are
// slots, and adds up their summaries in order. The first slot leads to the cut, if there is one.
func (c *checker) children(ctx context.Context, g *grove, b ondisk.Block, start int, from *ondisk.DropCut) *summary {
	n := b.NrItems()
	sums := make([]*summary, n)
	var wg sync.WaitGroup
	for i := start; i < n; i++ {
		p := btree.ChildPromise(g.id, b, i)
		if g.relocate {
			p.Owner = 0
		}
		below := from
		if i > start {
			below = nil
		}
		select {
		case c.spare <- struct{}{}:
			wg.Add(1)
			go func() {
				defer wg.Done()
				sums[i] = c.down(ctx, g, p, below)
				<-c.spare
			}()
		default:
			sums[i] = c.down(ctx, g, p, below)
		}
	}
	wg.Wait()
	out := &summary{}
	for i := start; i < n; i++ {
		if i+1 < n && !sums[i].incomplete && !sums[i].last.Less(b.Key(i+1)) {
			c.rep.bad(Place{Tree: g.id, Bytenr: b.Bytenr(), Slot: i, Key: b.Key(i)}, "searches will miss items",
				"the child holds keys up to %v, but the next one begins with %v", sums[i].last, b.Key(i+1))
		}
		c.join(g, out, sums[i])
	}
	return out
}

// judgeBlock compares a block with its extent item and its chunk.
func (c *checker) judgeBlock(g *grove, b ondisk.Block, e *extent, full bool) {
	at := Place{Tree: g.id, Bytenr: b.Bytenr(), Slot: -1}
	if e != nil && e.block() && e.level != b.Level() {
		c.rep.bad(at, "", "extent item says level %d, the block %d", e.level, b.Level())
	}
	if e != nil && b.IsReloc() && !full {
		c.rep.bad(at, "dropping a snapshot could free what is in use", "block of a relocation without full back references")
	}
	own := g.id == b.Owner() && !g.relocate
	if full && own && g.files && !b.IsReloc() && b.Generation() > g.item.LastSnapshot && g.item.Generation != 0 {
		c.rep.bad(at, "dropping a snapshot could free what is in use", "full back references in a block made after the last snapshot")
	}
	if b.Level() == 0 && b.Owner().IsShareable() {
		c.judgeAge(g, b)
	}
	if !full && !own && b.Owner().IsShareable() && !g.relocate {
		c.mu.Lock()
		c.owners = append(c.owners, ownerCheck{b.Bytenr(), b.Level(), firstKey(b), b.Owner()})
		c.mu.Unlock()
	}
	if ch, ok := c.v.Chunks().Find(b.Bytenr()); ok {
		const stripe = ondisk.StripeLen
		off := uint64(b.Bytenr() - ch.Logical)
		if c.node <= stripe && off/stripe != (off+c.node-1)/stripe {
			c.rep.bad(at, "Linux refuses to scrub it", "tree block crosses a stripe boundary")
		}
	}
}

// judgeAge looks for file extents from the future.
func (c *checker) judgeAge(g *grove, b ondisk.Block) {
	for i := range b.NrItems() {
		if b.Key(i).Type != ondisk.TypeExtentData {
			continue
		}
		if gen := ondisk.Generation(le.Uint64(b.Item(i))); gen == 0 || gen > c.sb.Generation+1 {
			c.rep.bad(Place{Tree: g.id, Bytenr: b.Bytenr(), Slot: i, Key: b.Key(i)}, "", "generation %d, the volume is at %d", gen, c.sb.Generation)
		}
	}
}

// judgeCopies compares, when all data is read, every copy of a block with the one
// that was used.
func (c *checker) judgeCopies(ctx context.Context, g *grove, b ondisk.Block) {
	ch, ok := c.v.Chunks().Find(b.Bytenr())
	if !c.opt.Data || !ok || ch.Copies() < 2 || len(c.v.Missing()) > 0 {
		return
	}
	s := c.scratch.Get().(*scratch)
	defer c.scratch.Put(s)
	for m := range ch.Copies() {
		err := c.v.IO().ReadBlock(ctx, b.Bytenr(), m, s.buf)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.rep.warn(Place{Tree: g.id, Bytenr: b.Bytenr(), Slot: -1}, "another copy is good, scrubbing would mend it", "copy %d of the block can not be read: %v", m+1, err)
		case !bytes.Equal(s.buf, b):
			c.rep.warn(Place{Tree: g.id, Bytenr: b.Bytenr(), Slot: -1}, "another copy is good, scrubbing would mend it", "copy %d of the block differs", m+1)
		}
	}
}

// judgeOwners proves invariant O for blocks that were met from another tree
// than their owner's.
func (c *checker) judgeOwners(ctx context.Context) {
	sort.Slice(c.owners, func(i, j int) bool { return c.owners[i].at < c.owners[j].at })
	for _, o := range c.owners {
		if ctx.Err() != nil {
			return
		}
		if !c.reaches(ctx, o) && c.walkOK {
			c.rep.bad(Place{Tree: o.owner, Bytenr: o.at, Slot: -1, Key: o.key}, "dropping a snapshot could free what is in use",
				"block has implicit back references, but its owner does not lead to it")
		}
	}
}

// reaches tells whether a search in the owner's tree comes to the block.
func (c *checker) reaches(ctx context.Context, o ownerCheck) bool {
	for _, t := range c.tops {
		if t.id != o.owner {
			continue
		}
		if t.dying() && o.key.Less(t.item.DropProgress) && o.level < t.item.DropLevel {
			continue
		}
		p := treeblock.Promise{Bytenr: t.item.Bytenr, Generation: t.item.Generation, Level: t.item.Level, Tree: t.id}
		for p.Level > o.level {
			b, err := c.store.Read(ctx, p)
			if err != nil {
				return false
			}
			slot, exact := b.Data().Search(o.key)
			if !exact {
				slot--
			}
			if slot < 0 {
				return false
			}
			p = btree.ChildPromise(t.id, b.Data(), slot)
		}
		if p.Bytenr == o.at {
			return true
		}
	}
	return false
}

func firstKey(b ondisk.Block) ondisk.Key {
	if b.NrItems() > 0 {
		return b.Key(0)
	}
	return ondisk.Key{}
}
