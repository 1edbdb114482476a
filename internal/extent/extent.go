// Package extent keeps the reference counts of all extents, tree blocks and data alike, and supplies the private
// blocks that copy-on-write needs.
//
// Nobody edits the extent tree directly: changes are queued (Add) and applied in batches sorted by address (Drain).
// Survey and Sweep go over the whole tree instead, in parallel parts whose results are taken in order.
// Applying them copies blocks of the extent tree, which queues more changes, so a commit repeats until the queue is
// empty. What must hold:
//
//   - At every commit the count of each extent is the number of references from reachable blocks and roots (I4),
//     and the queue is empty (I6).
//   - A reference is in the form "by parent" exactly if the block it leaves has FULL_BACKREF in its own item.
//   - An extent without references is gone: item, keyed references, checksums, and its space is given back.
//   - A tree changes a block in place only if it made the block itself, in the running transaction, after the last
//     snapshot that was taken of the tree.
package extent

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/space"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Config is what an Extents is made from.
type Config struct {
	Store      *treeblock.Store
	Space      *space.Space
	Sectorsize uint32
	Skinny     bool // METADATA_ITEMs instead of EXTENT_ITEMs for tree blocks
	CsumSize   int
	// DirtyBytes is how many bytes of changed tree blocks may gather while many references change: beyond it, leaves are written
	// before the commit. 0: no bound.
	DirtyBytes    int64
	FSID          ondisk.UUID // for headers of tree blocks
	ChunkTreeUUID ondisk.UUID
	// Tree returns a tree as the running transaction has it.
	Tree func(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error)
	// LastSnapshot returns when a subvolume was last snapshot.
	LastSnapshot func(ctx context.Context, id ondisk.TreeID) (ondisk.Generation, error)
}

// Extents is the accounting of one volume. One writer at a time.
type Extents struct {
	cfg   Config
	size  uint32 // of a tree block
	ctx   context.Context
	gen   ondisk.Generation
	queue map[ondisk.Bytenr]*head
	seals map[ondisk.TreeID]uint64 // Born of the newest block that a snapshot shares
	grown map[ondisk.TreeID]int64  // blocks that trees won or lost in this transaction
	stats Stats
	refs  []ref.Ref // scratch
	acts  uint64    // see Acts

	windowLeaves, partLeaves int // see Sweep; smaller in tests
}

// Stats counts work.
type Stats struct {
	Changes   int64 // reference changes applied
	Extents   int64 // extent items visited
	Ops       int64 // operations on the extent tree
	Sweeps    int64 // passes over the extent tree
	Freed     int64 // extents gone
	FreedData uint64
	FreedMeta uint64
}

// add adds the counts of a pass.
func (s *Stats) add(o Stats) {
	s.Changes += o.Changes
	s.Extents += o.Extents
	s.Ops += o.Ops
}

// New returns an Extents without a running transaction.
func New(cfg Config) *Extents {
	return &Extents{cfg: cfg, size: cfg.Store.Nodesize(), queue: map[ondisk.Bytenr]*head{},
		seals: map[ondisk.TreeID]uint64{}, grown: map[ondisk.TreeID]int64{}, windowLeaves: windowLeaves, partLeaves: partLeaves}
}

// Begin starts a transaction of the given generation. ctx serves the calls that bring none of their own.
func (x *Extents) Begin(ctx context.Context, gen ondisk.Generation) {
	x.ctx, x.gen = context.WithoutCancel(ctx), gen
	clear(x.queue)
	clear(x.seals)
	clear(x.grown)
}

// Restart forgets the running transaction and goes on with another account of space, which knows nothing of it. What was done before is said to be
// this much.
func (x *Extents) Restart(s *space.Space, done Stats) {
	x.acts++
	x.cfg.Space, x.stats = s, done
	x.Begin(x.ctx, x.gen)
}

// Stats returns the work done since New.
func (x *Extents) Stats() Stats { return x.stats }

// Acts counts calls that come with a change: who sees the same number twice knows that nothing changed in between. A
// tree asks Writable before it changes a block.
func (x *Extents) Acts() uint64 { return x.acts }

// Queued returns how many extents have changes that wait.
func (x *Extents) Queued() int { return len(x.queue) }

// Grown returns by how many blocks a tree has grown in this transaction, and forgets it.
func (x *Extents) Grown(id ondisk.TreeID) int64 {
	n := x.grown[id]
	delete(x.grown, id)
	return n
}
