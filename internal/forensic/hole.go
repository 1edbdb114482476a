package forensic

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// hole tells whether items are missing between two leaves.
//
// A file whose extents are missing would read as zeros, and nobody would know. So where they may be missing a pointer to the lost
// block stays in the tree: reading there fails, as it did before. Names behind what is lost in a directory are to be reached, so no such
// pointer stays among those.
type hole uint8

const (
	none   hole = iota
	maybe       // leaves were found in place of a lost block, perhaps not all
	surely      // none was
)

// mark notes a hole behind the leaves so far.
func (g *gathering) mark(kind hole, in gap) {
	if kind != none {
		g.leaves = append(g.leaves, leaf{at: in.at, gen: in.newest, hole: kind})
	}
}

// settle drops leaves that overlap those before, to which only a bad parent can have led, and gives each hole that must stay its first
// key.
func (w *walk) settle(ctx context.Context) error {
	all := w.g.leaves
	w.g.leaves = make([]leaf, 0, len(all))
	var open leaf  // hole behind the last leaf
	var last *leaf // the last that is none
	for _, l := range all {
		if l.hole != none {
			if l.hole > open.hole {
				open = l
			}
			continue
		}
		if last != nil && !last.last.Less(l.first) {
			w.g.lost++
			continue
		}
		if err := w.keepHole(ctx, open, last, &l); err != nil {
			return err
		}
		w.g.leaves = append(w.g.leaves, l)
		last, open = &l, leaf{}
	}
	return w.keepHole(ctx, open, last, nil)
}

// keepHole adds a hole between two leaves, if file extents may be missing there. b is nil behind the last leaf.
func (w *walk) keepHole(ctx context.Context, h leaf, a, b *leaf) error {
	if h.hole == none || a == nil || h.at == 0 || !w.id.IsSubvolume() {
		return nil
	}
	h.first = ondisk.Key{Objectid: a.last.Objectid, Type: ondisk.TypeExtentData}
	if !a.last.Less(h.first) {
		h.first = a.last.Next()
	}
	h.last = h.first
	if b == nil {
		if h.hole == surely {
			w.g.leaves = append(w.g.leaves, h)
		}
		return nil
	}
	same := a.last.Objectid == b.first.Objectid
	switch {
	case !h.first.Less(b.first):
		return nil
	case h.hole == maybe && b.first.Type == ondisk.TypeInodeItem:
		return nil // as leaves of sound trees often meet
	case h.hole == maybe && same && a.last.Type == ondisk.TypeExtentData:
		end, err := w.s.extentEnd(ctx, a)
		if err != nil || end == b.first.Offset {
			return err
		}
	}
	w.g.leaves = append(w.g.leaves, h)
	return nil
}

// extentEnd gives the end in its file of the extent that a leaf ends with; 0 when it cannot be read.
func (s *search) extentEnd(ctx context.Context, a *leaf) (uint64, error) {
	b, err := s.store.Read(ctx, treeblock.Promise{Bytenr: a.at, Generation: a.gen, FirstKey: a.first, HasKey: true})
	if err != nil {
		return 0, ctx.Err()
	}
	d := b.Data()
	e, err := ondisk.DecodeFileExtent(d.Item(d.NrItems() - 1))
	if err != nil || e.Type == ondisk.ExtentInline {
		return 0, nil
	}
	return a.last.Offset + e.NumBytes, nil
}

// nothingMissing tells whether every leaf of a subvolume that is in use was found, as the extent tree knows them.
func (s *search) nothingMissing(ctx context.Context) (bool, error) {
	if s.complete != unknown {
		return s.complete == yes, nil
	}
	s.complete = yes
	c, err := s.live.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		if !s.leafKnown(c) {
			s.complete = no
			break
		}
	}
	s.store.Close() // ends what the cursor reads ahead: blocks are made next
	if err != nil {
		s.complete = no
	}
	return s.complete == yes, ctx.Err()
}

// leafKnown tells whether an item of the extent tree is of something else than a leaf of a subvolume, or of one that was found.
func (s *search) leafKnown(c *btree.Cursor) bool {
	k := c.Key()
	if k.Type != ondisk.TypeMetadataItem && k.Type != ondisk.TypeExtentItem {
		return true
	}
	it, err := ondisk.DecodeExtentItem(c.Data())
	if err != nil || it.Flags&ondisk.ExtentFlagTreeBlock == 0 {
		return err == nil
	}
	level, refs := k.Offset, c.Data()[ondisk.ExtentItemSize:]
	if k.Type == ondisk.TypeExtentItem { // without skinny metadata the level is the last byte of what follows the item
		if len(refs) < ondisk.TreeBlockInfoSize {
			return true
		}
		level, refs = uint64(refs[ondisk.TreeBlockInfoSize-1]), refs[ondisk.TreeBlockInfoSize:]
	}
	if level > 0 {
		return true
	}
	if r, _, err := ondisk.DecodeInlineRef(refs); err == nil && r.Type == ondisk.TypeTreeBlockRef && !r.Root.IsSubvolume() {
		return true
	}
	for _, f := range s.index.at[ondisk.Bytenr(k.Objectid)] {
		if f.gen == it.Generation {
			return true
		}
	}
	return false
}
