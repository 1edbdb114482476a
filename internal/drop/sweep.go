package drop

import (
	"context"
	"math"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Surveyor is an account of references that can also be read as a whole.
//
// What leaves a block that carries FULL_BACKREF can be found from the other side: each extent says "the block there points to me". So where many such
// blocks die they need not be read: one reading of the account tells what they pointed to.
type Surveyor interface {
	Counts
	// Size is how many blocks the account takes.
	Size(ctx context.Context) (int, error)
	// Survey tells, by address, each tree block (or each data extent) that has references by parent from blocks of the set.
	Survey(ctx context.Context, parents *ref.Set, data bool, fn func(ref.Loss) error) error
}

// Sweeper is an account out of which the references from many blocks can be taken at once.
type Sweeper interface {
	Refs
	Surveyor
	// Sweep does what Add does, and takes out all references by parent from blocks of the set. It returns how many those were.
	Sweep(ctx context.Context, changes []ref.Change, parents *ref.Set) (uint64, error)
}

// leavesPerNode is the default of Options.SweepFactor. A sweep reads the account twice; the two ways cost the same where each dying node takes some 30
// leaves along.
const leavesPerNode = 16

// sweep is the part of a span that is not read: nodes of level 1 that die and carry FULL_BACKREF, and leaves like that. The span must have no end: only
// reading tells at which keys the leaves lie.
type sweep struct {
	parents ref.Set // nodes, and leaves
	losses  []loss  // what was found below the nodes
}

// loss is a leaf that loses references of swept nodes. There are many: 16 bytes each.
type loss struct {
	at       ondisk.Bytenr
	n        uint32
	all      bool // it has no others
	full     bool
	explicit bool // it goes the usual way: a node that is read refers to it as well, or it has to be read
}

func lossOf(l ref.Loss) loss {
	return loss{at: l.At, n: uint32(l.N), all: l.N == l.Refs, full: isFull(l.Info)}
}

// trySweep begins to look whether the rest of the set can be swept.
func (s *span) trySweep(ctx context.Context, top uint8) error {
	account, ok := s.d.counts.(Surveyor)
	if _, sweeps := s.d.refs.(Sweeper); !sweeps && !s.d.foresee {
		return nil
	}
	if !ok || top == 0 || s.d.opt.SweepFactor < 0 || s.budget.Sweep == 0 {
		return nil
	}
	size, err := account.Size(ctx)
	if err != nil || size > s.budget.Sweep {
		return err
	}
	s.size, s.account, s.sweep = size, account, &sweep{}
	return nil
}

// planSweep decides, when the nodes of level 1 are judged, whether a sweep is worth it.
func (s *span) planSweep() {
	if s.sweep == nil {
		return
	}
	for _, b := range s.lists[1] {
		// All that leaves such a block does so by parent, and nothing below needs to be converted. On a cut, what is left of it is gone already.
		if b.dies && isFull(b.info) && !b.deep {
			s.sweep.parents.Add(b.ptr.At)
		}
	}
	if n := s.sweep.parents.Len(); n == 0 || n < s.size/s.d.opt.SweepFactor {
		s.noSweep()
	}
}

// noSweep gives up sweeping, before any node of level 1 is opened.
func (s *span) noSweep() {
	s.sweep = nil
	for l := 7; l > 0; l-- {
		s.lists[l] = s.fit(s.lists[l], l)
	}
}

// planLeaves decides, when nodes are read, whether a sweep is worth it for the leaves alone: the nodes may be roots, which nobody shares.
func (s *span) planLeaves() {
	if s.sweep != nil || s.account == nil || s.bounded {
		return
	}
	n := 0
	for _, b := range s.lists[0] {
		if b.dies && isFull(b.info) {
			n++
		}
	}
	if n > 0 && n >= s.size/s.d.opt.SweepFactor*leavesPerNode {
		s.sweep = &sweep{}
	}
}

// isSwept tells whether a node is left unread.
func (s *span) isSwept(b *block) bool { return s.sweep != nil && s.sweep.parents.Has(b.ptr.At) }

// openTop opens the nodes of level 1 that are not swept. If those lead to more leaves than the budget has, the others are opened too.
func (s *span) openTop(ctx context.Context) error {
	read := slices.DeleteFunc(slices.Clone(s.lists[1]), s.isSwept)
	if err := s.openNodes(ctx, read); err != nil || s.sweep == nil {
		return err
	}
	if most := s.budget.Blocks; most == 0 || len(s.levels[0]) <= most {
		return nil
	}
	var rest []*block
	for _, b := range s.lists[1] {
		if s.isSwept(b) {
			rest = append(rest, b)
		}
	}
	s.noSweep()
	return s.openNodes(ctx, rest)
}

// survey finds what swept nodes held. Leaves that die and carry FULL_BACKREF join the sweep; the few others go the usual way.
func (s *span) survey(ctx context.Context) error {
	w := s.sweep
	if w == nil {
		return nil
	}
	s.d.stats.Surveys++
	return s.account.Survey(ctx, &w.parents, false, func(l ref.Loss) error {
		if l.N > l.Refs || l.N > math.MaxUint32 || l.Level != 0 {
			return corrupt(l.At, "a node of level 1 is parent of what it cannot be", l.Level, 0)
		}
		x := lossOf(l)
		b := s.levels[0][l.At]
		if b == nil && x.all && !x.full {
			b = &block{ptr: Ptr{At: l.At, Generation: l.Generation}}
			s.levels[0][l.At] = b
		}
		if b != nil {
			b.swept = l.N
		}
		x.explicit = b != nil
		w.losses = append(w.losses, x)
		return nil
	})
}

// settleSweep lists the leaves that die unread.
func (s *span) settleSweep() {
	if s.sweep == nil {
		return
	}
	for _, l := range s.sweep.losses {
		if l.all && !l.explicit {
			s.sweep.parents.Add(l.at)
			s.d.died(l.at)
		}
	}
	for _, b := range s.lists[0] {
		if b.dies && isFull(b.info) {
			s.sweep.parents.Add(b.ptr.At)
		}
	}
}

// stillSo surveys once more and tells whether the answers are the same. (No leaf is the parent of a tree block, so leaves in the set do no harm.)
func (w *sweep) stillSo(ctx context.Context, account Surveyor) (bool, error) {
	if len(w.losses) == 0 {
		return true, nil
	}
	same, left := true, w.losses
	err := account.Survey(ctx, &w.parents, false, func(l ref.Loss) error {
		x := lossOf(l)
		if same = same && len(left) > 0; same {
			x.explicit = left[0].explicit
			same = left[0] == x && l.N <= math.MaxUint32
		}
		if same {
			left = left[1:]
		}
		return nil
	})
	return same && len(left) == 0, err
}
