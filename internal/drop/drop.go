package drop

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Ptr points to a tree block, as a node slot or a ROOT_ITEM does.
type Ptr struct {
	At         ondisk.Bytenr
	Generation ondisk.Generation
	Level      uint8
	Key        ondisk.Key // of the slot; zero for a root block
}

// Node is what the walk needs to know of a tree block.
type Node struct {
	Owner ondisk.TreeID
	Reloc bool      // written by relocation (header flag RELOC)
	Ptrs  []Ptr     // children, in slot order; none at level 0
	Data  []ref.Ref // level 0: references to data extents, in the implicit form
}

// Blocks reads tree blocks of dying trees. Node is called from several goroutines at once.
type Blocks interface {
	// Node reads a block. Data may be appended to buf; the caller owns what is returned.
	Node(ctx context.Context, p Ptr, buf []ref.Ref) (Node, error)
	// Prefetch announces blocks that will be read soon, sorted by address.
	Prefetch(ctx context.Context, ps []Ptr)
}

// Counts tells how many references extents have.
type Counts interface {
	// Lookup fills out[i] for at[i]; at is sorted and distinct. Changes added before count.
	Lookup(ctx context.Context, at []ondisk.Bytenr, out []ref.Info) error
}

// Refs is the account of references.
type Refs interface {
	Counts
	// Add queues changes, sorted and merged as by ref.Merge. It does not keep the slice.
	Add(ctx context.Context, changes []ref.Change) error
}

// Versioned is an account that tells by a number whether anything in it may have changed.
type Versioned interface{ Version() uint64 }

// Cut tells how far the drop of a tree came: the slot whose turn is next has this key and sits in a node of this level. The zero Cut: nothing given up.
type Cut struct {
	Key   ondisk.Key
	Level uint8
}

// IsZero reports whether nothing has been given up yet.
func (c Cut) IsZero() bool { return c == Cut{} }

// Root is a dead tree.
type Root struct {
	ID     ondisk.TreeID
	Origin ondisk.Generation // offset of its ROOT_ITEM's key: it owns no block older than that
	Block  Ptr
	Cut    Cut
}

// Budget bounds a step, softly: a step always makes progress, and takes at least all blocks of one position. Zero blocks or changes mean no bound.
type Budget struct {
	Blocks  int // blocks looked at on one level
	Changes int // changes of references
	Sweep   int // blocks of the account that a sweep (see Sweeper) may rewrite; zero: no sweeps
}

// Options of a Drop.
type Options struct {
	Nodesize uint32
	Workers  int // goroutines reading blocks; at least 1
	Extents  int // a dry run (Foresee) remembers so many data extents at once; 0: 4 Mi, which take 96 MiB
	// SweepFactor is how many leaves each dying node is guessed to take with it: more makes sweeps (see Sweeper) likelier. 0: 16; negative: no sweeps.
	SweepFactor int
}

// Result is what one step did.
type Result struct {
	Done []ondisk.TreeID // roots that have nothing left
	More bool            // unfinished roots remain
}

// Drop takes a set of dead trees apart, step by step.
type Drop struct {
	blocks  Blocks
	counts  Counts
	refs    Refs // the same; nil: a dry run
	opt     Options
	stats   Stats
	onDead  func(ondisk.Bytenr)     // told each tree block that dies
	foresee bool                    // a dry run: nothing is listed as changes
	dying   map[ondisk.TreeID]*Root // unfinished roots
	gone    map[ondisk.TreeID]bool  // finished ones
	oldest  ondisk.Generation       // the smallest origin of all
	settled map[ondisk.Bytenr]bool  // blocks on cuts below which everything is converted
	order   []*Root                 // unfinished, as given
	kept    map[ondisk.Bytenr]*Node // nodes read that still stand after the last step
	next    *pending                // worked out, not made yet
	spare   []ref.Change            // memory for the changes of the next step
	seen    []ref.Info              // all answers of look-ups since Prepare began
	version uint64                  // of the account, when Prepare began
}

// New starts the drop of a set of roots. Roots with a cut are resumed, whoever made it.
func New(blocks Blocks, refs Refs, roots []Root, o Options) (*Drop, error) {
	d, err := newDrop(blocks, refs, roots, o)
	if err != nil {
		return nil, err
	}
	d.refs = refs
	return d, nil
}

func newDrop(blocks Blocks, counts Counts, roots []Root, o Options) (*Drop, error) {
	if o.Nodesize == 0 {
		return nil, errors.New("drop: no node size")
	}
	o.Workers = max(o.Workers, 1)
	if o.SweepFactor == 0 {
		o.SweepFactor = leavesPerNode
	}
	d := &Drop{blocks: blocks, counts: counts, opt: o, dying: map[ondisk.TreeID]*Root{}, gone: map[ondisk.TreeID]bool{},
		settled: map[ondisk.Bytenr]bool{}, kept: map[ondisk.Bytenr]*Node{}, oldest: ^ondisk.Generation(0)}
	for _, r := range roots {
		if d.dying[r.ID] != nil {
			return nil, fmt.Errorf("drop: tree %d given twice", r.ID)
		}
		if !r.Cut.IsZero() {
			if r.Cut.Level == 0 || r.Cut.Level > r.Block.Level {
				return nil, corrupt(r.Block.At, "impossible drop_level", r.Cut.Level, r.Block.Level)
			}
		}
		d.dying[r.ID] = &r
		d.oldest = min(d.oldest, r.Origin)
		d.order = append(d.order, &r)
	}
	return d, nil
}

// Roots returns the unfinished roots with their cuts.
func (d *Drop) Roots() []Root {
	out := make([]Root, len(d.order))
	for i, r := range d.order {
		out[i] = *r
	}
	return out
}

// Stats returns the work done so far.
func (d *Drop) Stats() Stats { return d.stats }

// add merges changes and hands them over, with what is to be swept.
func (d *Drop) add(ctx context.Context, cs []ref.Change, w *sweep) error {
	d.stats.Changes += uint64(len(cs))
	merged := ref.Merge(cs)
	d.stats.Merged += uint64(len(merged))
	if w != nil {
		n, err := d.refs.(Sweeper).Sweep(ctx, merged, &w.parents)
		d.stats.Swept += n
		return err
	}
	if len(merged) == 0 {
		return nil
	}
	return d.refs.Add(ctx, merged)
}

// died counts a tree block that loses its last reference.
func (d *Drop) died(at ondisk.Bytenr) {
	d.stats.Freed++
	if d.onDead != nil {
		d.onDead(at)
	}
}

// dead reports whether id is a tree of the set.
func (d *Drop) dead(id ondisk.TreeID) bool { return d.dying[id] != nil || d.gone[id] }

// lookup asks for the counts of sorted distinct addresses.
func (d *Drop) lookup(ctx context.Context, at []ondisk.Bytenr) ([]ref.Info, error) {
	out := make([]ref.Info, len(at))
	if len(at) == 0 {
		return out, nil
	}
	d.stats.Sweeps++
	d.stats.Lookups += uint64(len(at))
	if err := d.counts.Lookup(ctx, at, out); err != nil {
		return nil, err
	}
	d.seen = append(d.seen, out...)
	for i := range out {
		if !out[i].Found || out[i].Refs == 0 {
			return nil, corrupt(at[i], "a dead tree refers to an extent that has no item", nil, nil)
		}
	}
	return out, nil
}

func corrupt(at ondisk.Bytenr, reason string, got, want any) error {
	return &ondisk.CorruptError{What: "dead tree", Bytenr: at, Slot: -1, Reason: reason, Got: got, Want: want}
}

// blockRef is the reference to a block from its parent: by owner, or by parent where the parent carries FULL_BACKREF.
func (d *Drop) blockRef(p Ptr, parent ondisk.Bytenr, owner ondisk.TreeID, full bool) ref.Ref {
	r := ref.Ref{At: p.At, Len: uint64(d.opt.Nodesize), Level: p.Level, Kind: ref.KindTreeBlock, Root: owner}
	if full {
		r.Kind, r.Root, r.Parent = ref.KindSharedBlock, 0, parent
	}
	return r
}

// fullForm turns an implicit data reference into the full one of its leaf.
func fullForm(r ref.Ref, leaf ondisk.Bytenr) ref.Ref {
	r.Kind, r.Parent = ref.KindSharedData, leaf
	r.Root, r.Ino, r.Offset = 0, 0, 0
	return r
}

func isFull(i ref.Info) bool { return i.Flags&ondisk.ExtentFlagFullBackref != 0 }
