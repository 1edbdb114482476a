package extent

import (
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// maxOps bounds the memory of one pass over the extent tree.
const maxOps = 1 << 17

// Drain applies what is queued, and what that queues, until nothing is left.
func (x *Extents) Drain(ctx context.Context) error {
	for len(x.queue) > 0 {
		b := x.take()
		if err := x.undo(ctx, b.undone); err != nil {
			return err
		}
		if err := x.apply(ctx, b.changes, b.blocks); err != nil {
			return err
		}
	}
	return nil
}

// ApplyBulk applies changes that are sorted and merged (ref.Merge) straight to the extent tree, after the queue.
func (x *Extents) ApplyBulk(ctx context.Context, cs []ref.Change) error {
	x.acts++
	if err := x.Drain(ctx); err != nil {
		return err
	}
	for len(cs) > 0 {
		n, err := x.pass(ctx, cs, nil)
		if err != nil {
			return err
		}
		cs = cs[n:]
		if err := x.writeEarly(ctx); err != nil {
			return err
		}
	}
	return nil
}

// undo gives back extents that were made and given up in this transaction, before they were in any tree. Those that
// are in the tree won and lost references since: nothing is to be done for them.
func (x *Extents) undo(ctx context.Context, refs []ref.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	at := make([]ondisk.Bytenr, len(refs))
	for i, r := range refs {
		at[i] = r.At
	}
	infos := make([]ref.Info, len(refs))
	if err := x.Lookup(ctx, at, infos); err != nil {
		return err
	}
	var gone freed
	for i, r := range refs {
		if !infos[i].Found {
			gone.add(r.At, r.Len, r.Kind.IsData())
		}
	}
	return x.free(ctx, &gone)
}

// freed lists extents that are gone, by address.
type freed struct {
	at   []ondisk.Bytenr
	len  []uint64
	data []bool
}

func (f *freed) add(at ondisk.Bytenr, n uint64, data bool) {
	f.at, f.len, f.data = append(f.at, at), append(f.len, n), append(f.data, data)
}

func (f *freed) append(o *freed) {
	f.at, f.len, f.data = append(f.at, o.at...), append(f.len, o.len...), append(f.data, o.data...)
}

func (f *freed) reset() { f.at, f.len, f.data = f.at[:0], f.len[:0], f.data[:0] }

// work is one pass over the extent tree, or a part of one.
type work struct {
	rec     record
	ops     []btree.Op
	buf     []byte // bodies of ops
	gone    freed
	stats   Stats
	changes []ref.Change // of a part of a sweep, that wait
	swept   uint64
}

// reset forgets the results and keeps their memory.
func (w *work) reset() {
	w.ops, w.buf, w.stats, w.changes, w.swept = w.ops[:0], w.buf[:0], Stats{}, nil, 0
	w.gone.reset()
}

// apply works through sorted, merged changes.
func (x *Extents) apply(ctx context.Context, cs []ref.Change, blocks map[ondisk.Bytenr]*treeblock.Block) error {
	for len(cs) > 0 {
		n, err := x.pass(ctx, cs, blocks)
		if err != nil {
			return err
		}
		cs = cs[n:]
	}
	return nil
}

// pass works through changes at the front until it has enough operations for one pass. It returns how many it did.
func (x *Extents) pass(ctx context.Context, cs []ref.Change, blocks map[ondisk.Bytenr]*treeblock.Block) (int, error) {
	t, err := x.cfg.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		return 0, err
	}
	x.stats.Sweeps++
	c, err := t.Seek(ctx, firstKey(cs[0].At))
	if err != nil {
		return 0, err
	}
	var w work
	i := 0
	for i < len(cs) && len(w.ops) < maxOps {
		j := i + 1
		for j < len(cs) && cs[j].At == cs[i].At {
			j++
		}
		if err := w.rec.read(ctx, c, cs[i].At); err != nil {
			return 0, err
		}
		if err := x.one(&w, cs[i].At, cs[i:j], blocks); err != nil {
			return 0, err
		}
		i = j
	}
	w.stats.Changes = int64(i)
	w.stats.Ops = int64(len(w.ops))
	x.stats.add(w.stats)
	if err := t.Apply(ctx, w.ops); err != nil {
		return 0, err
	}
	return i, x.free(ctx, &w.gone)
}

// writeEarly bounds the memory of a transaction that changes much of the trees of references and checksums. Who changes a leaf again has to copy it, so
// Drain must not write: each round would make the next one necessary.
func (x *Extents) writeEarly(ctx context.Context) error {
	if x.cfg.DirtyBytes == 0 || int64(x.cfg.Store.Dirty())*int64(x.size) <= x.cfg.DirtyBytes {
		return nil
	}
	if err := x.cfg.Store.WriteLeaves(ctx, ondisk.ExtentTree); err != nil {
		return err
	}
	return x.cfg.Store.WriteLeaves(ctx, ondisk.CsumTree)
}

// one works out what becomes of one extent.
func (x *Extents) one(w *work, at ondisk.Bytenr, cs []ref.Change, blocks map[ondisk.Bytenr]*treeblock.Block) error {
	r := &w.rec
	w.stats.Extents++
	if err := r.change(cs, x.gen); err != nil {
		return err
	}
	if !r.found {
		x.setKey(r, &cs[0], blocks[at])
	}
	if r.item.Refs == 0 {
		return w.remove(at, x.size)
	}
	had := r.keyed
	r.place(int(x.size-ondisk.HeaderSize)>>4 - ondisk.ItemSize)
	start := len(w.buf)
	w.buf = r.body(w.buf)
	kind := btree.OpUpdate
	if !r.found {
		kind = btree.OpInsert
	}
	w.ops = append(w.ops, btree.Op{Kind: kind, Key: r.key, Data: w.buf[start:len(w.buf):len(w.buf)]})
	w.own(had)
	return nil
}

// setKey gives a new extent its key.
func (x *Extents) setKey(r *record, c *ref.Change, b *treeblock.Block) {
	r.key = ondisk.Key{Objectid: uint64(c.At), Type: ondisk.TypeExtentItem, Offset: c.Len}
	if c.Kind.IsData() {
		return
	}
	r.key.Offset = uint64(x.size)
	if x.cfg.Skinny {
		r.key.Type, r.key.Offset = ondisk.TypeMetadataItem, uint64(r.level)
	} else if b != nil && b.Data().NrItems() > 0 {
		r.firstKey = b.Data().Key(0)
	}
}

// remove deletes an extent without references.
func (w *work) remove(at ondisk.Bytenr, nodesize uint32) error {
	r := &w.rec
	for i := range r.entries {
		if r.entries[i].count != 0 {
			return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "count is zero but references are left", Got: r.entries[i].Ref}
		}
	}
	if r.found {
		w.ops = append(w.ops, btree.Op{Kind: btree.OpDelete, Key: r.key})
		w.own(r.keyed)
	}
	n := uint64(nodesize)
	data := r.item.Flags&ondisk.ExtentFlagData != 0
	if data {
		n = r.key.Offset
	}
	w.gone.add(at, n, data)
	return nil
}

// own adds the operations on references that have items of their own. had is how many there were.
func (w *work) own(had int) {
	r := &w.rec
	if r.keyed == 0 && had == 0 {
		return
	}
	first := len(w.ops)
	for i := range r.entries {
		e := &r.entries[i]
		if !e.keyed() || e.count == e.had {
			continue
		}
		op := btree.Op{Kind: btree.OpUpdate, Key: e.key}
		switch {
		case e.count == 0:
			op.Kind = btree.OpDelete
		case e.had == 0:
			op.Kind = btree.OpInsert
		}
		if e.count > 0 {
			start := len(w.buf)
			w.buf = e.ownBody(w.buf)
			op.Data = w.buf[start:len(w.buf):len(w.buf)]
		}
		w.ops = append(w.ops, op)
	}
	byKey := func(a, b btree.Op) int { return a.Key.Compare(b.Key) }
	if !slices.IsSortedFunc(w.ops[first:], byKey) {
		slices.SortFunc(w.ops[first:], byKey)
	}
}

// free gives back the space of extents, and deletes their checksums.
func (x *Extents) free(ctx context.Context, f *freed) error {
	var sums []span
	for i, at := range f.at {
		if !f.data[i] {
			x.cfg.Store.Drop(at)
			x.stats.FreedMeta += f.len[i]
		} else {
			x.stats.FreedData += f.len[i]
			if k := len(sums); k > 0 && sums[k-1].to == at {
				sums[k-1].to += ondisk.Bytenr(f.len[i])
			} else {
				sums = append(sums, span{at, at + ondisk.Bytenr(f.len[i])})
			}
		}
		if err := x.cfg.Space.Free(ctx, at, f.len[i]); err != nil {
			return err
		}
	}
	x.stats.Freed += int64(len(f.at))
	return x.dropSums(ctx, sums)
}
