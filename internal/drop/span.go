package drop

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// block is a tree block that loses references in this span.
type block struct {
	ptr   Ptr
	pos   ondisk.Key // where its references sit
	from  []*block   // the references given up, all that the set holds: from dying nodes,
	roots []*Root    // and from roots themselves
	swept uint64     // and from nodes that are not read
	info  ref.Info
	deep  bool  // full, but held by the tree that wrote it: what it wrote below may be unconverted all the same
	dies  bool  // every reference to it is given up
	bare  bool  // a leaf that has no place for file extents
	node  *Node // of a dying node (not of leaves)
	path  *Root // the block is on the cut of this root: its slots before start are dead
	start int

	holders []*Root // roots that reach it where it crosses the end of the span
	heir    *Root   // the one that keeps it
}

// given is the number of references given up.
func (b *block) given() int { return len(b.from) + len(b.roots) + int(b.swept) }

// span is one step: the references at positions before end, of all roots.
type span struct {
	d       *Drop
	budget  Budget
	bounded bool
	end     ondisk.Key
	levels  [8]map[ondisk.Bytenr]*block
	lists   [8][]*block // the same, by position
	tops    []top       // survivors to be converted with what is below them
	changes []ref.Change
	account Surveyor // if sweeping can be thought of
	size    int      // blocks that a sweep reads
	sweep   *sweep   // nil: every block that dies is read
	kept    map[ondisk.Bytenr]*Node
	chains  map[ondisk.TreeID][]*block
	cuts    map[ondisk.TreeID]Cut
}

func newSpan(d *Drop, b Budget) *span {
	s := &span{d: d, budget: b, changes: d.spare, kept: map[ondisk.Bytenr]*Node{}, cuts: map[ondisk.TreeID]Cut{}, chains: map[ondisk.TreeID][]*block{}}
	d.spare = nil
	for l := range s.levels {
		s.levels[l] = map[ondisk.Bytenr]*block{}
	}
	return s
}

func (s *span) inside(k ondisk.Key) bool { return !s.bounded || k.Less(s.end) }

// bound shrinks the span.
func (s *span) bound(k ondisk.Key) {
	if s.inside(k) {
		s.bounded, s.end = true, k
	}
}

// explore goes down level by level, finds what dies and what survives, and shrinks the span to the budget. It gives nothing up but data references.
func (s *span) explore(ctx context.Context) error {
	top := uint8(0)
	for _, r := range s.d.order {
		b, err := s.meet(r.Block, ondisk.Key{})
		if err != nil {
			return err
		}
		b.roots = append(b.roots, r)
		if !r.Cut.IsZero() {
			b.path = r
		}
		top = max(top, r.Block.Level)
	}
	if err := s.trySweep(ctx, top); err != nil {
		return err
	}
	for l := int(top); l > 0; l-- {
		if err := s.judge(ctx, l); err != nil {
			return err
		}
		if l == 1 {
			s.planSweep()
			break
		}
		if err := s.openNodes(ctx, s.lists[l]); err != nil {
			return err
		}
	}
	if err := s.openTop(ctx); err != nil {
		return err
	}
	if err := s.survey(ctx); err != nil {
		return err
	}
	if err := s.judge(ctx, 0); err != nil {
		return err
	}
	s.planLeaves()
	if err := s.openLeaves(ctx); err != nil {
		return err
	}
	s.findTops()
	return nil
}

// meet finds or adds the block that a dying reference leads to.
func (s *span) meet(p Ptr, pos ondisk.Key) (*block, error) {
	if p.Level >= 8 {
		return nil, corrupt(p.At, "level out of range", p.Level, 7)
	}
	b := s.levels[p.Level][p.At]
	if b == nil {
		b = &block{ptr: p, pos: pos}
		s.levels[p.Level][p.At] = b
	}
	// All slots that point to a block carry its first key, so its references meet at one position.
	if b.pos != pos || b.ptr.Generation != p.Generation {
		return nil, corrupt(p.At, "pointers to one block disagree", p.Key, b.ptr.Key)
	}
	return b, nil
}

// judge sorts a level by position, cuts it to the budget and tells what dies.
func (s *span) judge(ctx context.Context, l int) error {
	list := make([]*block, 0, len(s.levels[l]))
	for _, b := range s.levels[l] {
		if s.inside(b.pos) {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b *block) int {
		return cmp.Or(a.pos.Compare(b.pos), cmp.Compare(a.ptr.At, b.ptr.At))
	})
	if s.sweep == nil || l > 0 {
		all := len(list)
		if list = s.fit(list, l); len(list) < all && s.sweep != nil {
			s.noSweep()
			list = s.fit(list, l)
		}
	}
	s.lists[l] = list
	byAt := slices.Clone(list)
	slices.SortFunc(byAt, func(a, b *block) int { return cmp.Compare(a.ptr.At, b.ptr.At) })
	at := make([]ondisk.Bytenr, len(byAt))
	for i, b := range byAt {
		at[i] = b.ptr.At
	}
	infos, err := s.d.lookup(ctx, at)
	if err != nil {
		return err
	}
	for i, b := range byAt {
		b.info = infos[i]
		n := uint64(b.given())
		if b.info.Refs < n {
			return corrupt(b.ptr.At, "more references found than counted", n, b.info.Refs)
		}
		b.dies = b.info.Refs == n
		b.deep = isFull(b.info) && s.heldByWriter(b)
		if b.path != nil && b.info.Refs != 1 {
			return corrupt(b.ptr.At, "a block on the cut of a half dropped tree is shared", b.info.Refs, 1)
		}
	}
	return nil
}

// fit cuts a level, sorted by position, to the budget, and the span with it. Root blocks are always there, and do not count; the blocks of the first
// position after them are always taken. Nodes that are read are kept in memory, and each leads to many blocks, so fewer of them are taken.
func (s *span) fit(list []*block, level int) []*block {
	most := s.budget.Blocks
	if most > 0 && level > 0 && s.sweep == nil {
		most = max(1, most/8)
	}
	first := 0
	for first < len(list) && list[first].pos == (ondisk.Key{}) {
		first++
	}
	refs, start := 0, first // start: of the position under way
	for i := first; i < len(list); i++ {
		if list[i].pos != list[start].pos {
			start = i
		}
		refs += list[i].given()
		over := (most > 0 && i-first >= most) || (s.budget.Changes > 0 && refs > s.budget.Changes)
		if over && list[i].pos != list[first].pos {
			s.bound(list[i].pos)
			return list[:start]
		}
	}
	return list
}

// openNodes reads the nodes that die and meets their children.
func (s *span) openNodes(ctx context.Context, list []*block) error {
	dying := make([]*block, 0, len(list))
	missing := make([]Ptr, 0, len(list))
	for _, b := range list {
		if !b.dies || !s.inside(b.pos) {
			continue
		}
		dying = append(dying, b)
		if b.node = s.d.kept[b.ptr.At]; b.node == nil {
			missing = append(missing, b.ptr)
		}
	}
	nodes, err := s.d.read(ctx, missing)
	if err != nil {
		return err
	}
	for _, b := range dying {
		if b.node == nil {
			b.node, nodes = &nodes[0], nodes[1:]
		}
		s.kept[b.ptr.At] = b.node
		if err := s.openNode(b); err != nil {
			return err
		}
	}
	return nil
}

// openNode meets the children of a dying node, from its cut on.
func (s *span) openNode(b *block) error {
	ptrs := b.node.Ptrs
	if len(ptrs) == 0 {
		return corrupt(b.ptr.At, "empty node", nil, nil)
	}
	if b.path != nil {
		b.start = startSlot(ptrs, b.path.Cut.Key)
	}
	for i := b.start; i < len(ptrs); i++ {
		if ptrs[i].Level+1 != b.ptr.Level {
			return corrupt(ptrs[i].At, "wrong level", ptrs[i].Level, b.ptr.Level-1)
		}
		pos := b.position(i)
		if !s.inside(pos) {
			break
		}
		c, err := s.meet(ptrs[i], pos)
		if err != nil {
			return err
		}
		c.from = append(c.from, b)
		c.bare = c.bare || c.ptr.Level == 0 && i+1 < len(ptrs) && IsBare(ptrs[i].Key, ptrs[i+1].Key)
		if b.onPath(i) {
			c.path = b.path
		}
	}
	return nil
}

// startSlot is the slot of a node where the key of a cut leads.
func startSlot(ptrs []Ptr, k ondisk.Key) int {
	i, exact := slices.BinarySearchFunc(ptrs, k, func(p Ptr, k ondisk.Key) int { return p.Key.Compare(k) })
	if !exact && i > 0 {
		i--
	}
	return i
}

// onPath reports whether slot i leads further down the cut that the block is on.
func (b *block) onPath(i int) bool {
	return b.path != nil && i == b.start && b.ptr.Level > b.path.Cut.Level
}

// position of a slot: its key, or where the cut stands inside the child.
func (b *block) position(i int) ondisk.Key {
	k := b.node.Ptrs[i].Key
	if b.onPath(i) && k.Less(b.path.Cut.Key) {
		return b.path.Cut.Key
	}
	return k
}

// crosses reports whether a dying node has slots behind the end of the span.
func (s *span) crosses(b *block) bool {
	return !s.inside(b.position(len(b.node.Ptrs) - 1))
}

// leafBatch is how many leaves are read at once.
const leafBatch = 2048

// openLeaves reads the leaves that die and gives up their data references, until the budget of changes is used up.
func (s *span) openLeaves(ctx context.Context) error {
	if s.d.foresee {
		return nil // they are read when their extents are counted
	}
	list := s.lists[0]
	s.grow(s.expected())
	for i := 0; i < len(list); {
		n := min(len(list)-i, leafBatch)
		bounded := s.budget.Changes > 0 && s.sweep == nil
		if bounded {
			n = min(n, 64)
		}
		if err := s.leafChanges(ctx, list[i:i+n]); err != nil {
			return err
		}
		i += n
		if bounded && len(s.changes) >= s.budget.Changes {
			for last := list[i-1].pos; i < len(list); i++ {
				if list[i].pos != last {
					s.bound(list[i].pos)
					return nil
				}
				if err := s.leafChanges(ctx, list[i:i+1]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *span) leafChanges(ctx context.Context, list []*block) error {
	dying, nodes, err := s.readDying(ctx, list)
	if err != nil {
		return err
	}
	n := 0
	for i := range nodes {
		n += len(nodes[i].Data)
	}
	s.grow(n)
	for i, b := range dying {
		full := isFull(b.info)
		for _, r := range nodes[i].Data {
			if full {
				r = fullForm(r, b.ptr.At)
			}
			s.changes = append(s.changes, ref.Change{Ref: r, Delta: -1})
		}
	}
	return nil
}

// isRead tells whether a leaf dies and has to be read for that.
func (s *span) isRead(b *block) bool { return b.dies && !b.bare && !(s.sweep != nil && isFull(b.info)) }

// readDying reads the leaves that die, but those that are swept and those that refer to nothing.
func (s *span) readDying(ctx context.Context, list []*block) (dying []*block, nodes []Node, err error) {
	dying = make([]*block, 0, len(list))
	ptrs := make([]Ptr, 0, len(list))
	for _, b := range list {
		if s.isRead(b) {
			dying = append(dying, b)
			ptrs = append(ptrs, b.ptr)
		}
	}
	nodes, err = s.d.read(ctx, ptrs)
	return dying, nodes, err
}

// expected guesses how many changes the step will make: growing later means copying.
func (s *span) expected() int {
	const perLeaf = 24
	n := 0
	for l, list := range s.lists {
		for _, b := range list {
			n += b.given()
			if l == 0 && s.isRead(b) {
				n += perLeaf
			}
		}
	}
	if most := s.budget.Changes; most > 0 && s.sweep == nil {
		n = min(n, most+most/8)
	}
	return n
}

// grow makes room for n more changes; doubling, since they are many and copying them costs.
func (s *span) grow(n int) {
	if need := len(s.changes) + n; need > cap(s.changes) {
		s.changes = slices.Grow(s.changes, max(n, cap(s.changes)))
	}
}

// findTops collects the survivors of the span that may be owned by a tree of the set.
func (s *span) findTops() {
	for l := 7; l >= 0; l-- {
		for _, b := range s.lists[l] {
			if b.dies || !s.inside(b.pos) {
				continue
			}
			if (l > 0 || !isFull(b.info)) && s.heldByWriter(b) {
				s.tops = append(s.tops, top{ptr: b.ptr, info: b.info})
			}
		}
	}
}

// heldByWriter reports whether a dying tree that wrote the block loses its reference here: it reaches the block by blocks of its own, and the block is
// younger than the tree. Nothing else can be owned by that tree, so this saves reading the others.
//
// A tree does not hold a full block that it wrote, unless by relocation or in the middle of a conversion: full references are made when the writer
// moves away or is dropped.
func (s *span) heldByWriter(b *block) bool {
	for _, r := range b.roots {
		if b.ptr.Generation > r.Origin {
			return true
		}
	}
	for _, p := range b.from {
		if isFull(p.info) && !p.deep {
			continue
		}
		if r := s.d.dying[p.node.Owner]; r == nil || b.ptr.Generation > r.Origin {
			return true
		}
	}
	return false
}
