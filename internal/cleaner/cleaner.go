// Package cleaner winds package drop: it finds dead trees, opens transactions, and saves how far each tree got.
//
// What must hold:
//
//   - The changes of a step, the new cuts of its roots, and the removal of the roots that are done belong to one transaction. So after a crash the
//     volume says exactly how far it got, to this program and to the kernel.
//   - Dead trees are committed before they are taken apart: nobody changes them any more, and their blocks can be read at any time.
//   - A step fits the room that there is for metadata: what it copies of the trees of references, checksums and free space is given back only at
//     the commit. Where room is short, steps become small, and each is a transaction of its own that may fail and be tried with less.
package cleaner

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/extent"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// ErrBalance: a relocation is under way, and its trees share blocks with the dead ones.
var ErrBalance = errors.New("a balance is under way on the volume; it must end before subvolumes are dropped")

// DefaultBudget is how many blocks of one level a step takes: enough to make use of the sharing between snapshots, and little enough that its changes
// take little memory (docs/DROP.md has the table that it was chosen by).
const DefaultBudget = 1 << 15

// sweepLimit is how many blocks of the extent tree one sweep may rewrite, and budget: the volume is held for as long.
const sweepLimit = 1 << 16

// changesPerBlock is how many changes of references a step may make for each block of its budget.
const changesPerBlock = 4

// Options of Run.
type Options struct {
	Budget   int          // blocks of one level in one step; 0: DefaultBudget
	Workers  int          // goroutines that read blocks; 0: 4
	Rate     uint64       // bytes freed per second at most; 0: no limit
	Steps    int          // stop after so many steps; 0: when nothing is left
	Commit   bool         // commit after every step, not only when much has gathered
	Progress func(Report) // called after each step
	// Watch is called now and then in the middle of a long step, while the volume is held: it must not use it.
	Watch func(Report)

	// Gate is called before each step, while nobody is kept from working: it may wait as long as it likes. An error ends Run.
	Gate func(context.Context) error
	// Low: others go first. Steps are small, and between them it waits for who wants to change the volume.
	Low bool

	SweepFactor int // see drop.Options
}

// Report is what Run did so far.
type Report struct {
	Roots, RootsDone int // dead trees found, and finished
	BlocksFreed      uint64
	MetadataFreed    uint64 // bytes of tree blocks
	ExtentsFreed     uint64 // data extents
	DataFreed        uint64 // bytes of them on disk
	Thinned          uint64 // of them, those that had to go before their leaf (see thinLeaf)
	Commits          int
	LockWaits        int     // times that the drop had to wait for somebody else's transaction
	MergedReads      uint64  // reads that brought several neighbouring blocks at once
	Part             float64 // how far it got, roughly: 0 to 1; it begins anew where more dead trees appear
	Stats            drop.Stats
}

// Pending counts the dead trees that wait to be dropped.
func Pending(ctx context.Context, m *transaction.Manager) (int, error) {
	m.RLock()
	defer m.RUnlock()
	rt, err := m.Tree(ctx, ondisk.RootTree)
	if err != nil {
		return 0, err
	}
	dead, _, err := collect(ctx, rt)
	return len(dead), err
}

// Run drops all dead trees, those too that a crash or the kernel left half dropped. When ctx ends, what is done so far is kept, and a later Run goes
// on from there.
func Run(ctx context.Context, m *transaction.Manager, opt Options) (Report, error) {
	if opt.Budget <= 0 {
		opt.Budget = DefaultBudget
	}
	if opt.Workers <= 0 {
		opt.Workers = 4
	}
	if opt.Rate > 0 {
		// Sweeps and big steps hold the volume for longer than who asks for a rate would like.
		opt.SweepFactor = -1
		opt.Budget = min(opt.Budget, max(1, int(min(opt.Rate/uint64(m.Volume().Nodesize())/4, DefaultBudget))))
	}
	if opt.Low {
		opt.SweepFactor = -1
		opt.Budget = min(opt.Budget, lowBudget)
	}
	c := &cleaner{m: m, opt: opt, before: m.Stats(), commits: m.Commits(), began: time.Now()}
	err := c.run(ctx)
	if m.Err() == nil {
		// Steps that are complete are kept, however Run ends.
		err = errors.Join(err, m.Commit(context.WithoutCancel(ctx)))
	}
	c.count()
	return c.report, err
}

func (c *cleaner) run(ctx context.Context) error {
	for {
		if err := c.m.Commit(ctx); err != nil {
			return err
		}
		set, err := c.find(ctx)
		if err != nil || len(set) == 0 {
			return err
		}
		c.report.Roots = c.report.RootsDone + len(set)
		stopped, err := c.dropSet(ctx, set)
		if c.noRoom(err) {
			err = c.squeeze(ctx, set)
		}
		if err != nil || stopped {
			return err
		}
	}
}

// cleaner is one Run.
type cleaner struct {
	m       *transaction.Manager
	opt     Options
	report  Report
	past    drop.Stats // of sets that are done
	before  extent.Stats
	commits int
	steps   int
	began   time.Time
	small   bool // room is short
	tight   int  // how often steps were halved because one found no room
	least   bool // they cannot be halved any more
	thin    int  // extents that thinning takes at once
	account int  // blocks of the extent tree
	leaves  int  // of them, read by a sweep
}

// find lists the dead trees, and removes marks of trees that are gone.
func (c *cleaner) find(ctx context.Context) ([]drop.Root, error) {
	c.m.RLock()
	rt, err := c.m.Tree(ctx, ondisk.RootTree)
	var dead []drop.Root
	var stray []ondisk.TreeID
	if err == nil {
		dead, stray, err = collect(ctx, rt)
	}
	c.m.RUnlock()
	if err != nil || len(stray) == 0 {
		return dead, err
	}
	tx, err := c.m.Begin(ctx, transaction.Need{Items: len(stray), Deleting: true, Dropping: true})
	if err != nil {
		return nil, err
	}
	for _, id := range stray {
		if err := roots.RemoveOrphan(ctx, tx.RootTree(), id); err != nil {
			return nil, tx.Fail(err)
		}
	}
	return dead, tx.End(ctx)
}

// collect reads the dead trees from the root tree: subvolumes without references. It also lists orphan items without a root item.
func collect(ctx context.Context, rt *btree.Tree) (dead []drop.Root, stray []ondisk.TreeID, err error) {
	found := map[ondisk.TreeID]bool{}
	relocating := false
	err = roots.All(ctx, rt, func(k ondisk.Key, item ondisk.RootItem) error {
		id := ondisk.TreeID(k.Objectid)
		found[id] = true
		relocating = relocating || id == ondisk.RelocTree
		if item.Refs == 0 && id.IsSubvolume() && id != ondisk.FSTree {
			dead = append(dead, deadRoot(k, item))
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if relocating && len(dead) > 0 {
		return nil, nil, ErrBalance
	}
	orphans, err := roots.Orphans(ctx, rt)
	for _, id := range orphans {
		if !found[id] {
			stray = append(stray, id)
		}
	}
	return dead, stray, err
}

func deadRoot(k ondisk.Key, item ondisk.RootItem) drop.Root {
	return drop.Root{
		ID: ondisk.TreeID(k.Objectid), Origin: ondisk.Generation(k.Offset),
		Block: drop.Ptr{At: item.Bytenr, Generation: item.Generation, Level: item.Level},
		Cut:   drop.Cut{Key: item.DropProgress, Level: item.DropLevel},
	}
}

// dropSet drops a set of trees, step by step.
func (c *cleaner) dropSet(ctx context.Context, set []drop.Root) (stopped bool, err error) {
	store := c.m.Volume().Store()
	refs := &txRefs{m: c.m, running: extent.New(extent.Config{Store: store, Tree: c.m.Tree}), seen: c.seen}
	blocks, merged := newBlocks(c.m.Volume()), c.report.MergedReads
	defer blocks.stop()
	d, err := drop.New(blocks, refs, set, drop.Options{Nodesize: store.Nodesize(), Workers: c.opt.Workers, SweepFactor: c.opt.SweepFactor})
	if err != nil {
		return false, err
	}
	defer func() { c.past = c.report.Stats }()
	ruler := c.newRuler(ctx, blocks, set)
	for more := true; more; {
		if err := c.gate(ctx); err != nil {
			return false, err
		}
		if c.opt.Steps > 0 && c.steps >= c.opt.Steps {
			return true, nil
		}
		began := time.Now()
		if more, err = c.step(ctx, d, refs); err != nil {
			return false, err
		}
		c.steps++
		c.tight = max(0, c.tight-1)
		c.report.MergedReads = merged + blocks.merged.Load()
		c.report.Stats = c.past.Plus(d.Stats())
		c.count()
		c.report.Part = ruler.part(d.Roots(), len(set))
		if c.opt.Progress != nil {
			c.opt.Progress(c.report)
		}
		if err := errors.Join(c.pace(ctx), c.yield(ctx, time.Since(began))); err != nil {
			return false, err
		}
	}
	return false, nil
}

// step does one step in a transaction of its own. Reading and looking up happen before it begins, so others work meanwhile; where they changed
// something that the step goes by, it is done once more with the volume held.
func (c *cleaner) step(ctx context.Context, d *drop.Drop, refs *txRefs) (more bool, err error) {
	c.leaves = 0
	budget, need, err := c.size(ctx)
	if err != nil {
		return false, err
	}
	ready := d.Prepare(ctx, budget) == nil
	if err := ctx.Err(); err != nil {
		return false, err
	}
	// What a small step copies is mostly less than what would have to be promised; and nothing else makes room here. A sweep takes long enough to be
	// cancelled.
	need.Daring, need.Alone = c.small, d.Sweeping()
	tx, err := c.m.Begin(ctx, need)
	if err != nil {
		return false, err
	}
	if tx.Waited() {
		refs.waits++
	}
	c.report.LockWaits, refs.waits = c.report.LockWaits+refs.waits, 0
	refs.tx, refs.alone, refs.changed = tx, need.Alone, false
	defer func() { refs.tx = nil }()
	var res drop.Result
	if ready {
		res, ready, err = d.Apply(ctx)
	}
	if !ready && err == nil {
		res, err = d.Step(ctx, budget)
	}
	end := context.WithoutCancel(ctx)
	if err != nil && !refs.changed {
		return false, errors.Join(err, tx.End(end)) // it only looked
	}
	if err == nil {
		err = c.save(end, tx, d, res)
	}
	if err != nil {
		return false, tx.Fail(err)
	}
	c.report.RootsDone += len(res.Done)
	if c.opt.Commit || c.small {
		return res.More, tx.Commit(end)
	}
	return res.More, tx.End(end)
}

// save writes the cuts of a step and removes the roots that are done.
func (c *cleaner) save(ctx context.Context, tx *transaction.Tx, d *drop.Drop, res drop.Result) error {
	for _, r := range d.Roots() {
		if err := saveCut(ctx, tx, r.ID, r.Cut); err != nil {
			return err
		}
	}
	for _, id := range res.Done {
		if err := remove(ctx, tx, id); err != nil {
			return err
		}
	}
	return nil
}

// saveCut writes how far a tree got.
func saveCut(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID, cut drop.Cut) error {
	item, _, err := tx.RootItem(ctx, id)
	if err == nil && (item.DropProgress != cut.Key || item.DropLevel != cut.Level) {
		item.DropProgress, item.DropLevel = cut.Key, cut.Level
		tx.Touch(id)
	}
	return err
}

// remove deletes the root item of a tree that is gone, and its orphan item.
func remove(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) error {
	_, key, err := tx.RootItem(ctx, id)
	if err != nil {
		return err
	}
	tx.RemoveTree(ctx, id)
	if err := tx.RootTree().Delete(ctx, key); err != nil {
		return err
	}
	if _, _, err := roots.Find(ctx, tx.RootTree(), id); !errors.Is(err, fs.ErrNotExist) {
		return err // another tree with this id is left, or an error
	}
	if err := roots.RemoveOrphan(ctx, tx.RootTree(), id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// size chooses the budget of the next step by the room for metadata.
func (c *cleaner) size(ctx context.Context) (drop.Budget, transaction.Need, error) {
	copied, err := c.copied(ctx)
	if err != nil {
		return drop.Budget{}, transaction.Need{}, err
	}
	u := c.m.Usage()
	node := uint64(c.m.Volume().Nodesize())
	// Each block copied is a change of references itself, so allow for twice as many; and never take the last.
	room := (u.Metadata.Free + growth(u)) / node / 3
	b := drop.Budget{Blocks: c.opt.Budget, Changes: c.opt.Budget * changesPerBlock, Sweep: min(sweepLimit, c.opt.Budget)}
	c.small = room < copied
	if c.small {
		// A change may touch a leaf of its own in each of three trees.
		b.Changes = int(max(1, min(uint64(b.Changes), room/4)>>c.tight))
		b.Blocks, b.Sweep = max(1, min(b.Blocks, b.Changes/4)), 0
		c.least = b.Changes == 1
	}
	return b, transaction.Need{Items: int(min(copied, room, uint64(b.Changes))) / 2, Deleting: true, Dropping: true}, nil
}

// growth is the room for metadata that new chunks can make.
func growth(u transaction.SpaceInfo) uint64 { return u.Unallocated / 4 }

// copied is how many blocks a step may copy at most: the trees that count references, checksums and free space.
func (c *cleaner) copied(ctx context.Context) (uint64, error) {
	if c.m.RLock() {
		c.report.LockWaits++
	}
	defer c.m.RUnlock()
	rt, err := c.m.Tree(ctx, ondisk.RootTree)
	if err != nil {
		return 0, err
	}
	n := uint64(0)
	for _, id := range []ondisk.TreeID{ondisk.ExtentTree, ondisk.CsumTree, ondisk.FreeSpaceTree, ondisk.BlockGroupTree} {
		_, item, err := roots.Find(ctx, rt, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		blocks := item.BytesUsed / uint64(c.m.Volume().Nodesize())
		if n += blocks; id == ondisk.ExtentTree {
			c.account = int(min(blocks, 1<<40))
		}
	}
	return n + 64, nil
}

// seen hears of leaves of the extent tree that were read by a survey or a sweep. The two read each leaf once.
func (c *cleaner) seen(leaves int) {
	c.leaves += leaves
	if c.opt.Watch == nil || c.account == 0 {
		return
	}
	r := c.report
	r.Part += (1 - r.Part) * min(1, float64(c.leaves)/float64(2*c.account))
	c.opt.Watch(r)
}

// count brings the report up to date.
func (c *cleaner) count() {
	node := uint64(c.m.Volume().Nodesize())
	s := c.m.Stats()
	c.report.BlocksFreed = c.report.Stats.Freed
	c.report.MetadataFreed = c.report.Stats.Freed * node
	c.report.ExtentsFreed = uint64(s.Freed-c.before.Freed) - (s.FreedMeta-c.before.FreedMeta)/node
	c.report.DataFreed = s.FreedData - c.before.FreedData
	c.report.Commits = c.m.Commits() - c.commits
}

// pace waits where bytes are freed faster than is wanted.
func (c *cleaner) pace(ctx context.Context) error {
	if c.opt.Rate == 0 {
		return nil
	}
	due := time.Duration(min(float64(c.report.MetadataFreed+c.report.DataFreed)/float64(c.opt.Rate)*float64(time.Second), math.MaxInt64/2))
	wait := due - time.Since(c.began)
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
