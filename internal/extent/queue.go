package extent

import (
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// head is what waits for one extent.
type head struct {
	changes []ref.Change
	delta   int64 // sum of the changes
	full    bool  // FULL_BACKREF is to be set
	isNew   bool  // made by this transaction, and not in the extent tree yet
	block   *treeblock.Block
}

// few is how many changes of one extent are compared one by one; more are merged when they are applied.
const few = 8

// Add queues a change.
func (x *Extents) Add(c ref.Change) {
	x.acts++
	h := x.queue[c.At]
	if h == nil {
		h = &head{}
		x.queue[c.At] = h
	}
	h.add(c)
}

func (h *head) add(c ref.Change) {
	h.delta += int64(c.Delta)
	h.full = h.full || c.SetFull
	if len(h.changes) < few {
		for i := range h.changes {
			if ref.Compare(h.changes[i].Ref, c.Ref) == 0 {
				h.changes[i].Delta += c.Delta
				h.changes[i].SetFull = h.changes[i].SetFull || c.SetFull
				return
			}
		}
	}
	h.changes = append(h.changes, c)
}

// addNew queues the first reference to a block that was just made.
func (x *Extents) addNew(c ref.Change, b *treeblock.Block) {
	x.Add(c)
	h := x.queue[c.At]
	h.isNew, h.block = true, b
}

// batch is a part of the queue, ready to be applied.
type batch struct {
	changes []ref.Change // sorted and merged
	undone  []ref.Ref    // extents that this transaction made and perhaps gave up again
	blocks  map[ondisk.Bytenr]*treeblock.Block
}

// take empties the queue into a batch.
func (x *Extents) take() batch {
	at := make([]ondisk.Bytenr, 0, len(x.queue))
	for a := range x.queue {
		at = append(at, a)
	}
	slices.Sort(at)
	b := batch{changes: make([]ref.Change, 0, len(at))}
	if !x.cfg.Skinny {
		b.blocks = map[ondisk.Bytenr]*treeblock.Block{}
	}
	for _, a := range at {
		h := x.queue[a]
		if h.block != nil && b.blocks != nil {
			b.blocks[a] = h.block
		}
		first := ref.Ref{}
		if len(h.changes) > 0 {
			first = h.changes[0].Ref
		}
		cs := ref.Merge(h.changes)
		if nothing(cs) && h.delta == 0 && x.cfg.Space.IsFresh(a) {
			b.undone = append(b.undone, first)
			if h.isNew {
				continue
			}
		}
		b.changes = append(b.changes, cs...)
	}
	clear(x.queue)
	return b
}

// nothing tells whether changes that add up to zero references leave none: only a flag.
func nothing(cs []ref.Change) bool {
	for i := range cs {
		if cs[i].Delta != 0 {
			return false
		}
	}
	return true
}
