package btree

import (
	"context"
	"fmt"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// OpKind is what an Op does.
type OpKind uint8

const (
	OpInsert OpKind = iota + 1 // the key must not be there
	OpUpdate                   // the key must be there
	OpPut                      // insert or update
	OpDelete                   // the key must be there
)

// Op is one change of a batch.
type Op struct {
	Kind OpKind
	Key  ondisk.Key
	Data []byte // not kept
}

// allowed tells whether the operation may be done on a key that is there, or is not.
func (op *Op) allowed(found bool) error {
	switch {
	case op.Kind == OpInsert && found:
		return ErrExist
	case (op.Kind == OpUpdate || op.Kind == OpDelete) && !found:
		return ErrNotFound
	}
	return nil
}

// Apply does a batch of operations, sorted by strictly ascending key. It walks once from left to right over the
// leaves that the batch touches and rewrites each of them once; leaves that become small join a neighbour. After an
// error the tree is of no use to the running transaction, which must be aborted.
func (t *Tree) Apply(ctx context.Context, ops []Op) error {
	if t.space == nil {
		return ErrReadOnly
	}
	if len(ops) == 0 {
		return nil
	}
	if err := t.vet(ops); err != nil {
		return err
	}
	t.applied.Add(int64(len(ops)))
	if len(ops) <= few {
		for _, op := range ops {
			if err := t.change(ctx, op); err != nil {
				return err
			}
		}
		return nil
	}
	return t.apply(ctx, ops)
}

// few is how many operations are cheaper done one by one, in place, than by rewriting leaves and nodes.
const few = 4

// apply does a batch by rewriting the leaves that it touches, and the nodes above them.
func (t *Tree) apply(ctx context.Context, ops []Op) error {
	b, err := t.RootBlock(ctx)
	if err != nil {
		return err
	}
	if b, err = t.own(b); err != nil {
		return err
	}
	t.setRoot(b)
	a := t.scratch()
	a.root = b
	level := b.Level()
	out, _, err := a.apply(ctx, b, ops, nil)
	if err != nil {
		return err
	}
	return a.finish(ctx, level, out)
}

// scratch returns an applier with the memory of the last one.
func (t *Tree) scratch() *applier {
	if t.last == nil || cap(t.last.runs) > 1<<12 {
		t.last = &applier{t: t}
	}
	return t.last
}

// vet checks what Apply demands of a batch.
func (t *Tree) vet(ops []Op) error {
	limit := maxItem(t.size)
	for i := range ops {
		if len(ops[i].Data) > limit {
			return fmt.Errorf("%w: %v: %d bytes", ErrTooBig, ops[i].Key, len(ops[i].Data))
		}
		if i > 0 && !ops[i-1].Key.Less(ops[i].Key) {
			return fmt.Errorf("btree: batch is not sorted: %v after %v", ops[i].Key, ops[i-1].Key)
		}
	}
	return nil
}

// applier carries a batch through a tree. Pointers to blocks are handled as they lie in a node: 33 bytes each.
type applier struct {
	t       *Tree
	root    *treeblock.Block
	old     ondisk.Block            // the leaf that is being rewritten, as it was
	runs    []run                   // what it will hold
	ptrs    [MaxLevel + 1][]byte    // pointers of the node under work, per level
	touched [MaxLevel + 1][]portion // children of the node under work, per level
}

// portion is the part of a batch that belongs below one child.
type portion struct{ slot, from, to int }

// apply changes what lies below the private block b. It appends to out the pointers to the blocks that take b's
// place, b among them if it is still needed, and tells whether they are one block that lost so much that it should
// join a neighbour.
func (a *applier) apply(ctx context.Context, b *treeblock.Block, ops []Op, out []byte) ([]byte, bool, error) {
	if b.Level() == 0 {
		return a.leaf(b, ops, out)
	}
	level := int(b.Level())
	data := b.Data()
	before := data.NrItems()
	a.touched[level] = portions(data, ops, a.touched[level][:0])
	buf := a.ptrs[level][:0]
	next := 0 // first child not yet in buf
	small := false
	for i, p := range a.touched[level] {
		if level == 1 && i%window == 0 {
			a.prefetch(ctx, data, a.touched[level][i:])
		}
		var err error
		if buf, small, err = a.keep(ctx, buf, data, next, p.slot, small, level); err != nil {
			return nil, false, err
		}
		next = p.slot + 1
		n := len(buf)
		var lost bool
		if buf, lost, err = a.child(ctx, b, p.slot, ops[p.from:p.to], buf); err != nil {
			return nil, false, err
		}
		if len(buf) == n {
			continue // the child is gone
		}
		if small || lost {
			if buf, small, err = a.join(ctx, buf, n, lost, level-1); err != nil {
				return nil, false, err
			}
		}
	}
	buf, _, err := a.keep(ctx, buf, data, next, before, small, level)
	if err != nil {
		return nil, false, err
	}
	a.ptrs[level] = buf
	return a.node(b, buf, before, out)
}

// portions splits a batch by the children of a node.
func portions(b ondisk.Block, ops []Op, out []portion) []portion {
	n := b.NrItems()
	for from := 0; from < len(ops); {
		slot := childSlot(b, ops[from].Key)
		to := len(ops)
		if slot+1 < n {
			end := b.Key(slot + 1)
			to = from + gallop(ops[from:], end)
		}
		out = append(out, portion{slot, from, to})
		from = to
	}
	return out
}

// gallop returns how many ops at the front have keys before end. It looks near the front first.
func gallop(ops []Op, end ondisk.Key) int {
	hi := 1
	for hi < len(ops) && ops[hi].Key.Less(end) {
		hi *= 2
	}
	lo := hi / 2
	hi = min(hi, len(ops))
	return lo + sort.Search(hi-lo, func(i int) bool { return !ops[lo+i].Key.Less(end) })
}

// keep adds the untouched children from..to-1 to buf; if the last one in buf is small, it may take in the first of them.
func (a *applier) keep(ctx context.Context, buf []byte, b ondisk.Block, from, to int, small bool, level int) ([]byte, bool, error) {
	for small && from < to {
		n := len(buf)
		buf = append(buf, rawPtrs(b, from, from+1)...)
		from++
		var err error
		if buf, small, err = a.join(ctx, buf, n, false, level-1); err != nil {
			return nil, false, err
		}
	}
	if from == to {
		return buf, small, nil
	}
	return append(buf, rawPtrs(b, from, to)...), false, nil
}

// child applies a part of the batch to a child of the private node b.
func (a *applier) child(ctx context.Context, b *treeblock.Block, slot int, ops []Op, buf []byte) ([]byte, bool, error) {
	t := a.t
	c, err := t.child(ctx, b, slot)
	if err != nil {
		return nil, false, err
	}
	if c.Level() == 0 {
		t.read.Add(1)
		t.rewritten.Add(1)
		if !t.id.IsShareable() && deletesAll(c.Data(), ops) {
			return buf, false, t.space.Free(t.id, c)
		}
	}
	own, err := t.own(c)
	if err != nil {
		return nil, false, err
	}
	if own != c {
		b.Data().SetPtr(slot, b.Data().Key(slot), own.Bytenr(), own.Generation())
	}
	return a.apply(ctx, own, ops, buf)
}

// deletesAll tells whether the operations delete every item of a leaf, and nothing else. Such a leaf of a tree that
// shares nothing need not be copied before it is freed.
func deletesAll(b ondisk.Block, ops []Op) bool {
	if len(ops) != b.NrItems() {
		return false
	}
	for i := range ops {
		if ops[i].Kind != OpDelete || b.Key(i) != ops[i].Key {
			return false
		}
	}
	return true
}

func (a *applier) prefetch(ctx context.Context, b ondisk.Block, ps []portion) {
	var want [2 * window]treeblock.Promise
	n := min(len(ps), len(want))
	if n < 2 {
		return
	}
	for i := range n {
		want[i] = ChildPromise(a.t.id, b, ps[i].slot)
	}
	a.t.store.Prefetch(ctx, want[:n])
}

// finish makes a root of the blocks that took the place of the old root of the given level.
func (a *applier) finish(ctx context.Context, level uint8, out []byte) error {
	t := a.t
	if len(out) == 0 && level > 0 { // the root node went with its last child
		b, err := t.space.New(t.id, 0)
		if err != nil {
			return err
		}
		t.setRoot(b)
	}
	if len(out) == 0 {
		return nil
	}
	for len(out) > ptrSize {
		level++
		if level > MaxLevel {
			return fmt.Errorf("btree: tree %d would be higher than %d levels", int64(t.id), MaxLevel)
		}
		var err error
		if out, err = a.raise(level, out); err != nil {
			return err
		}
	}
	t.root = RootPtr{ptrBytenr(out), ptrGeneration(out), level}
	return a.lower(ctx)
}

// raise makes a row of new nodes over a row of blocks.
func (a *applier) raise(level uint8, ptrs []byte) ([]byte, error) {
	var up []byte
	n := len(ptrs) / ptrSize
	for _, count := range shares(n, maxPtrs(a.t.size)) {
		b, err := a.t.space.New(a.t.id, level)
		if err != nil {
			return nil, err
		}
		setPtrs(b.Data(), ptrs[:count*ptrSize])
		ptrs = ptrs[count*ptrSize:]
		up = appendPtr(up, b.Data())
	}
	return up, nil
}

// lower gives up roots that have a single child.
func (a *applier) lower(ctx context.Context) error {
	t := a.t
	for t.root.Level > 0 {
		b, err := t.RootBlock(ctx)
		if err != nil {
			return err
		}
		if b.Data().NrItems() > 1 {
			return nil
		}
		// The child becomes a root, which nobody else may refer to: it must be ours.
		c, err := t.child(ctx, b, 0)
		if err != nil {
			return err
		}
		if c, err = t.own(c); err != nil {
			return err
		}
		t.setRoot(c)
		if err := t.space.Free(t.id, b); err != nil {
			return err
		}
	}
	return nil
}
