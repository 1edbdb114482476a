package transaction

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/extent"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Need says what a change will take at most.
type Need struct {
	Items int    // items inserted, changed or deleted, in trees of any kind
	Data  uint64 // bytes of data that will be allocated
	// Deleting marks a change that gives space back, or will when no snapshot needs it any more: it may use a part of
	// what is kept in reserve.
	Deleting bool
	// Dropping marks, with Deleting, a step towards dropping whole subvolumes: it may use all of the reserve, because
	// it is what gives space back when nothing else does.
	Dropping bool
	// Alone gives the change a transaction of its own, which End commits at once. If it fails because there is no room,
	// or because a context has ended, nothing is lost but the attempt.
	Alone bool
	// Daring marks, with Dropping, the last resort: a change that is tried although its commit may find no room. It is
	// alone.
	Daring bool
}

// Tx is the right to change the volume, from Begin to End. Only one goroutine at a time may use it.
type Tx struct {
	m      *Manager
	now    ondisk.Timespec
	acts   uint64 // of the extents when this began
	dirt   bool   // something else than trees and references was changed
	done   bool
	waited bool
	alone  bool
	before extent.Stats // when this began
}

// Begin waits for the write lock and reserves space. It returns ErrNoSpace if there is not enough.
func (m *Manager) Begin(ctx context.Context, need Need) (*Tx, error) {
	m.asked.Add(1)
	waited := !m.mu.TryLock()
	if waited {
		m.waiting.Add(1)
		m.mu.Lock()
		m.waiting.Add(-1)
	}
	err := m.err
	if err == nil {
		err = m.reserve(ctx, need)
	}
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	t := m.opt.Now()
	return &Tx{
		m: m, waited: waited, alone: need.Alone || need.Daring, acts: m.ext.Acts(), before: m.ext.Stats(),
		now: ondisk.Timespec{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())},
	}, nil
}

// start begins a transaction if none is running.
func (m *Manager) start(ctx context.Context) {
	if m.running {
		return
	}
	m.running = true
	m.gen = m.v.Super().Generation + 1
	m.v.Store().SetGeneration(m.gen)
	m.ext.Begin(ctx, m.gen)
}

// End gives the write lock back. It commits if much has gathered. After Fail or Abort it does nothing.
func (tx *Tx) End(ctx context.Context) error {
	if tx.done {
		return tx.m.Err()
	}
	tx.done = true
	defer tx.m.mu.Unlock()
	switch {
	case tx.m.err != nil:
		return tx.m.err
	case tx.alone:
		return tx.settle(ctx, nil)
	case tx.m.due():
		return tx.m.commit(ctx)
	}
	return nil
}

// Commit makes all changes durable, and gives the write lock back.
func (tx *Tx) Commit(ctx context.Context) error {
	if tx.done {
		return tx.m.Err()
	}
	tx.done = true
	defer tx.m.mu.Unlock()
	switch {
	case tx.m.err != nil:
		return tx.m.err
	case tx.alone:
		return tx.settle(ctx, nil)
	}
	return tx.m.commit(ctx)
}

// maxQueue is how many extents may have changes waiting before End commits.
const maxQueue = 1 << 17

func (m *Manager) due() bool {
	return !m.opt.InMemory && (int64(m.v.Store().Dirty())*int64(m.sb.Nodesize) > m.opt.DirtyBytes || m.ext.Queued() > maxQueue)
}

// Abort gives up the whole running transaction because of err, and the write lock.
func (tx *Tx) Abort(err error) {
	if tx.done {
		return
	}
	tx.done = true
	tx.m.abort(err)
	tx.m.mu.Unlock()
}

// Fail ends a change that failed: it returns err. If the change had begun to change anything, the whole running
// transaction is given up, for it holds half a change now; otherwise this is End without a commit.
func (tx *Tx) Fail(err error) error {
	if !tx.done && tx.m.err == nil && !tx.dirt && tx.m.ext.Acts() == tx.acts {
		tx.done = true
		tx.m.mu.Unlock()
		return err
	}
	if tx.alone && !tx.done && tx.m.err == nil {
		tx.done = true
		defer tx.m.mu.Unlock()
		return tx.settle(context.Background(), err)
	}
	var a *AbortError
	if errors.As(err, &a) {
		tx.Abort(a.Cause)
		return err
	}
	tx.Abort(err)
	return err
}

// Waited tells whether Begin had to wait for somebody else.
func (tx *Tx) Waited() bool { return tx.waited }

// Manager returns where the transaction belongs.
func (tx *Tx) Manager() *Manager { return tx.m }

// Generation returns the generation that this transaction's blocks carry.
func (tx *Tx) Generation() ondisk.Generation { return tx.m.gen }

// Now returns the time of Begin, the same for the whole change.
func (tx *Tx) Now() ondisk.Timespec { return tx.now }

// Super returns the superblock as it would be written.
func (tx *Tx) Super() ondisk.Superblock { return tx.m.sb }

// RootTree returns the tree of trees.
func (tx *Tx) RootTree() *btree.Tree { return tx.m.trees[ondisk.RootTree].t }

// Tree returns a writable tree.
func (tx *Tx) Tree(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error) {
	t, err := tx.m.open(ctx, id)
	if err != nil {
		return nil, err
	}
	t.written = true
	return t.t, nil
}

// RootItem returns a tree's root item, to be changed in place and then announced by Touch, and its key. Place, level
// and generation of the root are kept by the transaction.
func (tx *Tx) RootItem(ctx context.Context, id ondisk.TreeID) (*ondisk.RootItem, ondisk.Key, error) {
	t, err := tx.m.open(ctx, id)
	if err != nil {
		return nil, ondisk.Key{}, err
	}
	return &t.item, t.key, nil
}

// Touch says that the tree's root item was changed.
func (tx *Tx) Touch(id ondisk.TreeID) {
	tx.dirt = true
	if t := tx.m.trees[id]; t != nil {
		t.touched = true
	}
}

// NewTree makes an empty tree. Its root item is there at once.
func (tx *Tx) NewTree(ctx context.Context, id ondisk.TreeID, key ondisk.Key, item ondisk.RootItem) (*btree.Tree, error) {
	b, err := tx.m.ext.New(id, 0)
	if err != nil {
		return nil, err
	}
	t := btree.New(tx.m.v.Store(), id, btree.RootPtr{Bytenr: b.Bytenr(), Generation: b.Generation()}, tx.m.ext)
	return t, tx.add(ctx, id, key, item, t)
}

// add takes in a new tree and inserts its root item.
func (tx *Tx) add(ctx context.Context, id ondisk.TreeID, key ondisk.Key, item ondisk.RootItem, t *btree.Tree) error {
	r := t.Root()
	item.Bytenr, item.Generation, item.GenerationV2, item.Level = r.Bytenr, r.Generation, r.Generation, r.Level
	if err := tx.RootTree().Insert(ctx, key, item.Append(nil)); err != nil {
		return err
	}
	tx.m.treeMu.Lock()
	tx.m.trees[id] = &tree{t: t, key: key, item: item, original: r.Bytenr}
	tx.m.treeMu.Unlock()
	return nil
}

// RemoveTree forgets a tree. The caller deletes its root item.
func (tx *Tx) RemoveTree(_ context.Context, id ondisk.TreeID) {
	tx.dirt = true
	tx.m.treeMu.Lock()
	delete(tx.m.trees, id)
	tx.m.treeMu.Unlock()
}

// SnapshotTree makes dst a snapshot of src. item is the new root item; what depends on the root, and the times of the
// last change, are set here. Both trees then carry this transaction as their last snapshot.
func (tx *Tx) SnapshotTree(ctx context.Context, src, dst ondisk.TreeID, key ondisk.Key, item ondisk.RootItem) error {
	s, err := tx.m.open(ctx, src)
	if err != nil {
		return err
	}
	if _, err := tx.m.open(ctx, dst); err == nil {
		return fmt.Errorf("tree %d: %w", dst, btree.ErrExist)
	}
	tx.m.stamp(s)
	b, err := tx.m.ext.Snapshot(s.t, dst)
	if err != nil {
		return err
	}
	tx.m.syncRoot(s)
	s.item.LastSnapshot, s.touched = tx.m.gen, true
	item.LastSnapshot, item.BytesUsed = tx.m.gen, s.item.BytesUsed
	item.Ctransid, item.Ctime = s.item.Ctransid, s.item.Ctime
	t := btree.New(tx.m.v.Store(), dst, btree.RootPtr{Bytenr: b.Bytenr(), Generation: b.Generation(), Level: b.Level()}, tx.m.ext)
	return tx.add(ctx, dst, key, item, t)
}

// AllocData hands out up to want bytes in a row for one data extent; less if there is no such run. Before End the
// caller queues a reference to it, or gives it back by FreeData.
func (tx *Tx) AllocData(ctx context.Context, want uint64) (ondisk.Bytenr, uint64, error) {
	tx.dirt = true
	return tx.m.space.AllocData(ctx, want)
}

// FreeData gives back what AllocData handed out, or a part of it, and no reference was queued for.
func (tx *Tx) FreeData(ctx context.Context, at ondisk.Bytenr, n uint64) error {
	tx.dirt = true
	return tx.m.space.Free(ctx, at, n)
}

// TakeData marks a range that a log names as used, as if AllocData had handed it out.
func (tx *Tx) TakeData(ctx context.Context, at ondisk.Bytenr, n uint64) error {
	tx.dirt = true
	return tx.m.space.Take(ctx, at, n)
}

// Hold keeps a range that no tree knows, such as a block of a log, from being handed out until the next commit.
func (tx *Tx) Hold(ctx context.Context, at ondisk.Bytenr, n uint64) error {
	tx.dirt = true
	return tx.m.space.Hold(ctx, at, n)
}

// WriteData writes to space that AllocData handed out.
func (tx *Tx) WriteData(ctx context.Context, at ondisk.Bytenr, p []byte) error {
	if tx.m.opt.InMemory {
		return errInMemory
	}
	return tx.m.v.IO().Write(ctx, at, p)
}

// AddRef queues a change of references. An extent that loses its last one is freed.
func (tx *Tx) AddRef(c ref.Change) error {
	tx.m.ext.Add(c)
	return nil
}

// ApplyBulk applies many changes, sorted and merged (ref.Merge), in one sweep over the extent tree.
func (tx *Tx) ApplyBulk(ctx context.Context, cs []ref.Change) error {
	return tx.m.ext.ApplyBulk(ctx, cs)
}

// Sweep does what ApplyBulk does, and takes out every reference by parent from blocks of the set, in one sweep over the whole extent tree. It returns how
// many those were. ctx may end it only where the transaction is given up then (Need.Alone).
func (tx *Tx) Sweep(ctx context.Context, cs []ref.Change, parents *ref.Set, seen extent.Seen) (uint64, error) {
	return tx.m.ext.Sweep(ctx, cs, parents, seen)
}

// Survey tells, by address, which extents (tree blocks, or data) have references by parent from blocks of the set. Queued changes are applied first.
func (tx *Tx) Survey(ctx context.Context, parents *ref.Set, data bool, seen extent.Seen, fn func(ref.Loss) error) error {
	if err := tx.m.ext.Drain(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return tx.m.ext.Survey(ctx, parents, data, seen, fn)
}

// Lookup answers for sorted addresses what references and flags the extents there have, queued changes included.
func (tx *Tx) Lookup(ctx context.Context, at []ondisk.Bytenr, out []ref.Info) error {
	return tx.m.ext.Lookup(ctx, at, out)
}

// SetLabel changes the volume's label.
func (tx *Tx) SetLabel(label string) {
	tx.dirt = true
	tx.m.sb.Label, tx.m.forced = label, true
}

// AddIncompat announces a feature that something written now needs.
func (tx *Tx) AddIncompat(bits uint64) {
	if tx.m.sb.Incompat&bits != bits {
		tx.dirt = true
		tx.m.sb.Incompat, tx.m.forced = tx.m.sb.Incompat|bits, true
	}
}
