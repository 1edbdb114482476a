package drop

import (
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// settle gives up the references of the span and finds the cuts.
func (s *span) settle() error {
	for l := 7; l >= 0; l-- {
		for _, b := range s.lists[l] {
			if !s.inside(b.pos) {
				continue
			}
			if err := s.giveUp(b); err != nil {
				return err
			}
		}
	}
	s.settleSweep()
	for _, r := range s.d.order {
		s.cut(r)
	}
	return nil
}

// follow finds for each root the dying nodes that contain the end of the span.
func (s *span) follow() {
	if !s.bounded {
		return
	}
	for _, r := range s.d.order {
		b := s.levels[r.Block.Level][r.Block.At]
		for b != nil && b.dies && b.ptr.Level > 0 {
			b.holders = append(b.holders, r)
			s.chains[r.ID] = append(s.chains[r.ID], b)
			b = s.lastInside(b)
		}
	}
}

// lastInside is the child in the last slot before the end.
func (s *span) lastInside(b *block) *block {
	for i := len(b.node.Ptrs) - 1; i >= b.start; i-- {
		if s.inside(b.position(i)) {
			return s.levels[b.ptr.Level-1][b.node.Ptrs[i].At]
		}
	}
	return nil
}

// chooseHeirs decides, bottom up, who keeps each node that crosses the end. A heir below binds the nodes above it on its own way down. Otherwise the
// owner is the heir: the other holders are younger than the block, so nothing below it is theirs, and letting go needs no conversion. It returns blocks
// where that is not so (or where only a look can tell): they must be converted first, with what is below them.
func (s *span) chooseHeirs() (convert []top) {
	for l := 1; l < 8; l++ {
		for _, b := range s.lists[l] {
			if len(b.holders) == 0 || (b.heir == nil && !s.crosses(b)) {
				continue
			}
			if b.heir == nil {
				b.heir = b.holders[0]
				for _, r := range b.holders {
					if r.ID == b.node.Owner {
						b.heir = r
					}
				}
			}
			if chain := s.chains[b.heir.ID]; chain[0] != b {
				i := slices.Index(chain, b)
				chain[i-1].heir = b.heir
			}
			if s.mustConvert(b) {
				convert = append(convert, top{ptr: b.ptr, info: b.info, kept: b})
			}
		}
	}
	return convert
}

// mustConvert: the block stays with a root that is not its owner, or relocation mixed up who wrote what is below.
func (s *span) mustConvert(b *block) bool {
	if s.d.settled[b.ptr.At] {
		return false
	}
	if !isFull(b.info) {
		return b.node.Owner != b.heir.ID
	}
	return b.node.Reloc && len(b.holders) > 1
}

// giveUp queues the loss of references of one block: all, but the heir's where it has one.
func (s *span) giveUp(b *block) error {
	if s.bounded && b.heir == nil && b.dies && b.ptr.Level > 0 && s.crosses(b) {
		return corrupt(b.ptr.At, "keys of a node reach beyond its parent's next key", nil, nil)
	}
	kept := b.heir == nil // or: the heir's reference was found
	if !s.d.foresee {
		s.grow(b.given())
		for _, r := range b.roots {
			if r == b.heir {
				kept = true
				continue
			}
			s.changes = append(s.changes, ref.Change{Ref: s.d.blockRef(b.ptr, 0, r.ID, false), Delta: -1})
		}
		for _, p := range b.from {
			if !kept && p.heir == b.heir {
				kept = true
				continue
			}
			s.changes = append(s.changes, ref.Change{Ref: s.d.blockRef(b.ptr, p.ptr.At, p.node.Owner, isFull(p.info)), Delta: -1})
		}
	}
	if b.dies && b.heir == nil {
		s.d.died(b.ptr.At)
		if b.bare && !(s.sweep != nil && isFull(b.info)) {
			s.d.stats.Bare++
		}
		delete(s.kept, b.ptr.At)
	}
	return nil
}

// cut finds where a root goes on. A root without one is done.
func (s *span) cut(r *Root) {
	chain := s.chains[r.ID]
	if len(chain) == 0 || chain[0].heir != r {
		return
	}
	i := 0
	for i+1 < len(chain) && chain[i+1].heir == r {
		i++
	}
	b := chain[i]
	j := b.start
	for s.inside(b.position(j)) {
		j++
	}
	if b.onPath(j) {
		s.cuts[r.ID] = r.Cut
		return
	}
	s.cuts[r.ID] = Cut{Key: b.node.Ptrs[j].Key, Level: b.ptr.Level}
}
