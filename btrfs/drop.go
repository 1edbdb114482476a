package btrfs

import (
	"context"
	"errors"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// DropStats counts the work of a drop.
type DropStats = drop.Stats

// DropOptions tell how dead subvolumes are dropped.
type DropOptions struct {
	Budget   int              // tree blocks freed per commit; 0: chosen
	Rate     uint64           // bytes freed a second, at most; 0: as fast as it goes
	Workers  int              // readers; 0: chosen
	Progress func(DropReport) // called after each step
	// Watch is called now and then in the middle of a long step, while nobody else can
	// use the volume: it must not use it either.
	Watch func(DropReport)

	// Pause holds the drop up between two steps; what was done is committed then.
	Pause *Pause
	// LowPriority lets other changes of the volume go first: the drop takes small
	// steps and waits while others want to write.
	LowPriority bool
}

// Pause holds up work that was given it, until Resume. The zero value is not paused.
// All methods may be called at any time from any goroutine.
type Pause struct {
	mu   sync.Mutex
	over chan struct{} // closed by Resume; nil: not paused
}

// Pause asks the work to stop after the step that it is at.
func (p *Pause) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over == nil {
		p.over = make(chan struct{})
	}
}

// Resume lets the work go on.
func (p *Pause) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		close(p.over)
		p.over = nil
	}
}

// Paused tells whether the work is asked to stop.
func (p *Pause) Paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over != nil
}

// wait returns when the work may go on.
func (p *Pause) wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		over := p.over
		p.mu.Unlock()
		if over == nil {
			return ctx.Err()
		}
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// DropReport tells what a drop has done.
type DropReport struct {
	Roots         int    // dead subvolumes found
	RootsDone     int    // of them, gone
	BlocksFreed   uint64 // tree blocks
	MetadataFreed uint64 // bytes
	ExtentsFreed  uint64 // data extents
	DataFreed     uint64 // bytes
	Thinned       uint64 // data extents that went before their leaf did, for want of room
	Commits       int
	LockWaits     int     // times that the drop had to wait for other writers
	MergedReads   uint64  // reads that brought several neighbouring tree blocks at once
	Part          float64 // how far it got, roughly, from 0 to 1; it begins anew where more dead subvolumes appear
	Stats         DropStats
}

func reportOf(r cleaner.Report) DropReport {
	return DropReport{
		Roots: r.Roots, RootsDone: r.RootsDone, BlocksFreed: r.BlocksFreed, MetadataFreed: r.MetadataFreed,
		ExtentsFreed: r.ExtentsFreed, DataFreed: r.DataFreed, Thinned: r.Thinned, Commits: r.Commits,
		LockWaits: r.LockWaits, MergedReads: r.MergedReads, Part: r.Part, Stats: r.Stats,
	}
}

// DeleteSubvolumes unlinks subvolumes, all in one transaction. Their space comes
// back with Drop (the kernel would do it too, at its next mount). A subvolume
// that holds others, and the default one, are refused, and then nothing is
// changed.
func (v *Volume) DeleteSubvolumes(ctx context.Context, paths []string) error {
	return v.change(ctx, transaction.Need{Items: 16 * len(paths), Deleting: true, Dropping: true}, func(tx *transaction.Tx) error {
		ids, err := v.locateAll(ctx, tx.Tree, paths)
		if err != nil {
			return err
		}
		return subvol.Delete(ctx, tx, ids)
	})
}

func (v *Volume) locateAll(ctx context.Context, tree treeFunc, paths []string) ([]ondisk.TreeID, error) {
	var ids []ondisk.TreeID
	for _, p := range paths {
		n, err := v.locate(ctx, v.walker(tree), p)
		if err != nil {
			return nil, err
		}
		ids = append(ids, n.sub)
	}
	return ids, nil
}

// Drop drops all dead subvolumes as one set and returns when they are durably
// gone. When ctx ends it stops between two commits; what is left is carried on
// by the next Drop, or by the kernel.
func (v *Volume) Drop(ctx context.Context, opt DropOptions) (DropReport, error) {
	if v.mgr == nil {
		return DropReport{}, ErrReadOnly
	}
	v.dropping.Lock()
	defer v.dropping.Unlock()
	co := cleaner.Options{Budget: opt.Budget, Workers: opt.Workers, Rate: opt.Rate, Low: opt.LowPriority}
	if p := opt.Pause; p != nil {
		co.Gate = func(ctx context.Context) error {
			if !p.Paused() {
				return nil
			}
			if err := v.mgr.Commit(ctx); err != nil {
				return err
			}
			return p.wait(ctx)
		}
	}
	if opt.Progress != nil {
		co.Progress = func(r cleaner.Report) { opt.Progress(reportOf(r)) }
	}
	if opt.Watch != nil {
		co.Watch = func(r cleaner.Report) { opt.Watch(reportOf(r)) }
	}
	r, err := cleaner.Run(ctx, v.mgr, co)
	return reportOf(r), err
}

// Found tells how many dead subvolumes were waiting when the volume was opened
// for writing.
func (v *Volume) Found() int { return v.found }

// DropPlan tells what deleting subvolumes would give back.
type DropPlan struct {
	Roots         int    `json:"subvolumes"`
	TreeBlocks    uint64 `json:"tree_blocks"`
	MetadataBytes uint64 `json:"metadata_bytes"`
	DataExtents   uint64 `json:"data_extents"`
	DataBytes     uint64 `json:"data_bytes"`
	ChecksumBytes uint64 `json:"checksum_bytes"`  // items of the checksum tree, inside its blocks
	DiskBytes     uint64 `json:"disk_bytes"`      // data and metadata with all copies
	Reads         uint64 `json:"reads,omitempty"` // tree blocks read to find out
}

// DropPlan tells exactly what deleting the subvolumes at paths would give back;
// it changes nothing. The volume must be open read-only, or committed.
func (v *Volume) DropPlan(ctx context.Context, paths []string) (DropPlan, error) {
	var ids []ondisk.TreeID
	err := v.view(func(tree treeFunc) error {
		var err error
		if ids, err = v.locateAll(ctx, tree, paths); err != nil {
			return err
		}
		return subvol.Deletable(ctx, subvol.Trees(tree), ids)
	})
	if err != nil {
		return DropPlan{}, err
	}
	return v.planOf(ctx, ids)
}

// DropPlanDeleted tells what Drop would give back: of the subvolumes that are
// deleted already, or half dropped. It changes nothing.
func (v *Volume) DropPlanDeleted(ctx context.Context) (DropPlan, error) {
	list, err := v.Subvolumes(ctx)
	if err != nil {
		return DropPlan{}, err
	}
	var ids []ondisk.TreeID
	for _, s := range list {
		if s.Deleted {
			ids = append(ids, ondisk.TreeID(s.ID))
		}
	}
	return v.planOf(ctx, ids)
}

// planOf works out what dropping trees gives back.
func (v *Volume) planOf(ctx context.Context, ids []ondisk.TreeID) (DropPlan, error) {
	if err := v.Commit(ctx); err != nil {
		return DropPlan{}, err
	}
	p, err := cleaner.Plan(ctx, v.vol, ids)
	if err != nil {
		return DropPlan{}, errors.Join(err)
	}
	return DropPlan{
		Roots: len(ids), TreeBlocks: p.Blocks, MetadataBytes: p.MetadataBytes, DataExtents: p.Extents, DataBytes: p.DataBytes,
		ChecksumBytes: p.ChecksumBytes, DiskBytes: p.DiskBytes, Reads: p.Reads,
	}, nil
}
