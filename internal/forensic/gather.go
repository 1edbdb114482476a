package forensic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"slices"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// leaf is a leaf of a tree that is being put together.
type leaf struct {
	first, last ondisk.Key
	at          ondisk.Bytenr
	gen         ondisk.Generation
	hole        hole // not a leaf: at and gen are of the lost block
}

// item is an item of a tree.
type item struct {
	key  ondisk.Key
	body []byte
}

// source is an owner whose blocks a tree may share, and the newest generation of those.
type source struct {
	owner  ondisk.TreeID
	newest ondisk.Generation
}

// gathering is the leaves of one tree, in the order of their keys.
type gathering struct {
	leaves []leaf
	lost   int // blocks that their parents tell of and that are nowhere
	put    int // leaves put in the place of what is lost
	old    int // of these, older ones in the place of lost leaves
}

// String tells what is lost.
func (g *gathering) String() string {
	s := fmt.Sprintf("%d blocks are lost; %d leaves were found in their place", g.lost, g.put)
	if g.old > 0 {
		s += fmt.Sprintf(", %d of them older ones: some of it is as it was before", g.old)
	}
	return s
}

// gap is a range of keys below a lost block.
type gap struct {
	from, to ondisk.Key // to: zero means no end
	newest   ondisk.Generation
	level    uint8 // of the lost block
	at       ondisk.Bytenr
}

// walk goes through one tree.
type walk struct {
	s       *search
	id      ondisk.TreeID
	sources []source // others whose blocks may stand in
	g       gathering
}

// gather gives the leaves below a root, and others in place of what is lost.
func (s *search) gather(ctx context.Context, id ondisk.TreeID, root btree.RootPtr, sources []source) (*gathering, error) {
	w := &walk{s: s, id: id, sources: sources}
	p := btree.New(s.store, id, root, nil).Promise()
	if root.Level > btree.MaxLevel {
		p.Level = btree.MaxLevel // cannot be read, and so counts as lost
	}
	if err := w.below(ctx, p, ondisk.Key{}); err != nil {
		return nil, err
	}
	return &w.g, w.settle(ctx)
}

// gatherAll gives the newest leaves of a tree of which no root is known.
func (s *search) gatherAll(ctx context.Context, id ondisk.TreeID, sources []source) (*gathering, error) {
	w := &walk{s: s, id: id, sources: sources}
	w.g.lost = 1
	if err := w.fill(ctx, gap{newest: s.sb.Generation, level: btree.MaxLevel}); err != nil {
		return nil, err
	}
	return &w.g, w.settle(ctx)
}

// below gathers what is below a promised block, whose keys are less than to.
func (w *walk) below(ctx context.Context, p treeblock.Promise, to ondisk.Key) error {
	if p.Level == 0 {
		f, err := w.s.leafThere(ctx, p)
		if err != nil {
			return err
		}
		if f == nil {
			return w.lose(ctx, p, to)
		}
		if f.items > 0 {
			w.g.leaves = append(w.g.leaves, f.leaf())
		}
		return nil
	}
	b, err := w.s.store.Read(ctx, p)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return w.lose(ctx, p, to)
	}
	d := b.Data()
	for slot := range d.NrItems() {
		c, end := btree.ChildPromise(w.id, d, slot), to
		if c.HasEnd {
			end = c.End
		}
		if err := w.below(ctx, c, end); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) lose(ctx context.Context, p treeblock.Promise, to ondisk.Key) error {
	w.g.lost++
	return w.fill(ctx, gap{from: p.FirstKey, to: to, newest: p.Generation, level: p.Level, at: p.Bytenr})
}

// leafThere gives the leaf that a parent promises, nil if it is nowhere.
func (s *search) leafThere(ctx context.Context, p treeblock.Promise) (*found, error) {
	for _, f := range s.index.at[p.Bytenr] {
		if f.gen == p.Generation && f.level == 0 && (p.Owner == 0 || f.owner == p.Owner) &&
			(!p.HasKey || f.items > 0 && f.first == p.FirstKey) && (!p.HasEnd || f.items > 0 && f.last.Less(p.End)) {
			return f, nil
		}
	}
	// It may be one that only its parity knows, or that crosses stripes.
	b, err := s.store.Read(ctx, p)
	if err != nil {
		return nil, ctx.Err()
	}
	d := b.Data()
	f := &found{id: idOf(d), owner: d.Owner(), items: d.NrItems()}
	if f.items > 0 {
		f.first, f.last = d.Key(0), d.Key(f.items-1)
	}
	return f, nil
}

// fill puts leaves that were found into a gap: those in use, if that is known, else the newest that do not overlap newer ones.
//
// Every block in use that covers a key was there at all times since it was made, so no newer block can overlap it: taking the
// newest first finds all that are left. Only where a whole range of keys was deleted may older leaves come back.
func (w *walk) fill(ctx context.Context, in gap) error {
	list, err := w.candidates(ctx, in)
	if err != nil {
		return err
	}
	kind := maybe
	if in.level > 0 && w.s.live != nil {
		all, err := w.s.nothingMissing(ctx)
		if err != nil {
			return err
		}
		if all {
			kind = none
		}
	}
	if len(list) == 0 {
		kind = surely
	}
	w.g.mark(kind, in)
	for _, f := range newestApart(list) {
		w.g.leaves = append(w.g.leaves, f.leaf())
		w.g.put++
		if in.level == 0 {
			w.g.old++
		}
		w.g.mark(kind, in)
	}
	return nil
}

// candidates lists the leaves that may stand in a gap, in the order of their first keys.
func (w *walk) candidates(ctx context.Context, in gap) (list []*found, err error) {
	for _, src := range append([]source{{w.id, in.newest}}, w.sources...) {
		all := w.s.index.leaves[src.owner]
		for _, f := range all[sort.Search(len(all), func(i int) bool { return !all[i].first.Less(in.from) }):] {
			if in.to != (ondisk.Key{}) && !f.first.Less(in.to) {
				break
			}
			if f.gen > min(in.newest, src.newest) || in.to != (ondisk.Key{}) && !f.last.Less(in.to) {
				continue
			}
			// A leaf that is itself lost has no place in use any more: older ones must do.
			if w.s.live != nil && in.level > 0 {
				used, err := w.s.inUse(ctx, f)
				if err != nil {
					return nil, err
				}
				if !used {
					continue
				}
			}
			list = append(list, f)
		}
	}
	slices.SortStableFunc(list, func(a, b *found) int { return a.first.Compare(b.first) })
	return list, nil
}

// newestApart chooses of leaves in the order of their first keys the newest ones that do not overlap.
func newestApart(list []*found) (out []*found) {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(list[b].gen, list[a].gen) })
	taken := make(bitmap, (len(list)+63)/64)
	for _, i := range order {
		if j, ok := taken.before(i); ok && !list[j].last.Less(list[i].first) {
			continue
		}
		if j, ok := taken.after(i); ok && !list[i].last.Less(list[j].first) {
			continue
		}
		taken[i/64] |= 1 << (i % 64)
	}
	for i, f := range list {
		if taken[i/64]>>(i%64)&1 != 0 {
			out = append(out, f)
		}
	}
	return out
}

// bitmap is a set of small numbers.
type bitmap []uint64

// before gives the highest number of the set below i.
func (m bitmap) before(i int) (int, bool) {
	for w, word := i/64, m[i/64]&(1<<(i%64)-1); ; word = m[w] {
		if word != 0 {
			return w*64 + 63 - bits.LeadingZeros64(word), true
		}
		if w--; w < 0 {
			return 0, false
		}
	}
}

// after gives the lowest number of the set above i.
func (m bitmap) after(i int) (int, bool) {
	for w, word := i/64, m[i/64]&^(1<<(i%64+1)-1); ; word = m[w] {
		if word != 0 {
			return w*64 + bits.TrailingZeros64(word), true
		}
		if w++; w == len(m) {
			return 0, false
		}
	}
}

// inUse tells whether the extent tree knows a block.
func (s *search) inUse(ctx context.Context, f *found) (bool, error) {
	for _, k := range []ondisk.Key{
		{Objectid: uint64(f.at), Type: ondisk.TypeMetadataItem, Offset: uint64(f.level)},
		{Objectid: uint64(f.at), Type: ondisk.TypeExtentItem, Offset: uint64(s.sb.Nodesize)},
	} {
		b, err := s.live.Get(ctx, k)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, ctx.Err()
		}
		it, err := ondisk.DecodeExtentItem(b)
		return err == nil && it.Generation == f.gen, nil
	}
	return false, nil
}

// whole tells whether every block below a root was found.
func (s *search) whole(ctx context.Context, tree ondisk.TreeID, root btree.RootPtr) (bool, error) {
	if root.Level > btree.MaxLevel {
		return false, nil
	}
	return s.wholeBelow(ctx, tree, btree.New(s.store, tree, root, nil).Promise())
}

func (s *search) wholeBelow(ctx context.Context, tree ondisk.TreeID, p treeblock.Promise) (bool, error) {
	if p.Level == 0 {
		f, err := s.leafThere(ctx, p)
		return f != nil, err
	}
	b, err := s.store.Read(ctx, p)
	if err != nil {
		return false, ctx.Err()
	}
	d := b.Data()
	k := idOf(d)
	if ok, known := s.memo[k]; known {
		return ok, nil
	}
	all := true
	for slot := 0; slot < d.NrItems() && all; slot++ {
		if all, err = s.wholeBelow(ctx, tree, btree.ChildPromise(tree, d, slot)); err != nil {
			return false, err
		}
	}
	s.memo[k] = all
	return all, nil
}

// eachItem gives the items of leaves to fn. A leaf that cannot be read any more is passed by and told.
func (s *search) eachItem(ctx context.Context, tree ondisk.TreeID, leaves []leaf, fn func(it item) error) error {
	for _, l := range leaves {
		if l.hole != none {
			continue
		}
		b, err := s.store.Read(ctx, treeblock.Promise{Bytenr: l.at, Generation: l.gen, FirstKey: l.first, HasKey: true, Tree: tree})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.rep.lost("%v: %v", tree, err)
			continue
		}
		d := b.Data()
		for i := range d.NrItems() {
			if err := fn(item{d.Key(i), slices.Clone(d.Item(i))}); err != nil {
				return fmt.Errorf("%v: %w", tree, err)
			}
		}
	}
	return nil
}
