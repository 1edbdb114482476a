package space

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Flush brings the items of all changed groups up to date: free space (fst may be nil) and use (groups is tree 2 or
// 11). Doing so takes and gives back space, so callers repeat it until it reports that nothing was out of date.
func (s *Space) Flush(ctx context.Context, fst, groups *btree.Tree) (changed bool, err error) {
	for _, g := range s.outdated() {
		if g.stale {
			g.stale = false
			if fst != nil {
				changed = true
				if err := s.flushFree(ctx, fst, g); err != nil {
					return true, err
				}
			}
		}
	}
	for _, g := range s.outdated() {
		if g.itemUsed == g.usedBytes && !g.isNew {
			continue
		}
		changed = true
		g.itemUsed, g.isNew = g.usedBytes, false
		item := ondisk.BlockGroupItem{Used: g.itemUsed, ChunkObjectid: ondisk.FirstChunkTreeObjectid, Flags: g.Flags}
		if err := groups.Put(ctx, groupKey(g.Start, g.Len), item.Append(nil)); err != nil {
			return true, err
		}
	}
	return changed, nil
}

// outdated returns the changed groups by address.
func (s *Space) outdated() []*Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.touched)
	slices.SortFunc(out, func(a, b *Group) int { return cmp.Compare(a.Start, b.Start) })
	return out
}

func infoKey(g *Group) ondisk.Key {
	return ondisk.Key{Objectid: uint64(g.Start), Type: ondisk.TypeFreeSpaceInfo, Offset: g.Len}
}

// item is an item as it should be.
type item struct {
	key  ondisk.Key
	data []byte
}

// flushFree makes the free space items of a group say what the used bitmap says. Space that a superblock's copy
// lies in counts as free there.
func (s *Space) flushFree(ctx context.Context, t *btree.Tree, g *Group) error {
	c, err := t.Seek(ctx, ondisk.Key{Objectid: uint64(g.Start)})
	if err != nil {
		return err
	}
	var had ondisk.FreeSpaceInfo
	if c.Valid() && c.Key() == infoKey(g) {
		if had, err = ondisk.DecodeFreeSpaceInfo(c.Data()); err != nil {
			return err
		}
	}
	want := g.freeItems(had.Flags&ondisk.FreeSpaceUsesBitmaps != 0, s.cfg.Sectorsize)
	var ops []btree.Op
	for c.Valid() && c.Key().Objectid < uint64(g.End()) {
		k := c.Key()
		for len(want) > 0 && want[0].key.Less(k) {
			ops = append(ops, btree.Op{Kind: btree.OpInsert, Key: want[0].key, Data: want[0].data})
			want = want[1:]
		}
		switch {
		case len(want) == 0 || want[0].key != k:
			ops = append(ops, btree.Op{Kind: btree.OpDelete, Key: k})
		default:
			if !bytes.Equal(want[0].data, c.Data()) {
				ops = append(ops, btree.Op{Kind: btree.OpUpdate, Key: k, Data: want[0].data})
			}
			want = want[1:]
		}
		if err := c.Next(ctx); err != nil {
			return err
		}
	}
	for _, w := range want {
		ops = append(ops, btree.Op{Kind: btree.OpInsert, Key: w.key, Data: w.data})
	}
	return t.Apply(ctx, ops)
}

// bitmapBits is how many sectors one bitmap item covers.
const bitmapBits = 256 * 8

// manyRuns is the number of free runs above which the kernel uses bitmaps for a group of that size: when the items
// of that many extents would take more room than bitmaps.
func manyRuns(length uint64, sectorsize uint32) int {
	per := uint64(bitmapBits) * uint64(sectorsize)
	return int((length + per - 1) / per * (256 + ondisk.ItemSize) / ondisk.ItemSize)
}

// freeItems returns the items that describe the group's free space, in key order.
func (g *Group) freeItems(bitmaps bool, sectorsize uint32) []item {
	runs := g.freeRuns()
	many := manyRuns(g.Len, sectorsize)
	switch {
	case len(runs) > many:
		bitmaps = true
	case many > 100 && len(runs) < many-100, many <= 100 && len(runs) == 0:
		bitmaps = false
	}
	info := ondisk.FreeSpaceInfo{ExtentCount: uint32(len(runs))}
	if bitmaps {
		info.Flags = ondisk.FreeSpaceUsesBitmaps
	}
	out := []item{{infoKey(g), info.Append(nil)}}
	if bitmaps {
		return append(out, g.bitmapItems()...)
	}
	for _, r := range runs {
		out = append(out, item{key: ondisk.Key{Objectid: uint64(g.address(r.from)), Type: ondisk.TypeFreeSpaceExtent, Offset: uint64(r.to-r.from) << g.shift}})
	}
	slices.SortFunc(out, func(a, b item) int { return a.key.Compare(b.key) })
	return out
}

func (g *Group) freeRuns() []run {
	var out []run
	for i := g.used.nextClear(0, g.n); i < g.n; {
		end := g.used.nextSet(i, g.n)
		out = append(out, run{g, i, end})
		i = g.used.nextClear(end, g.n)
	}
	return out
}

// bitmapItems cuts the used bitmap into items. On disk a set bit is a free sector.
func (g *Group) bitmapItems() []item {
	var out []item
	for from := 0; from < g.n; from += bitmapBits {
		to := min(g.n, from+bitmapBits)
		words := make([]byte, 0, bitmapBits/8)
		for w := from / 64; w*64 < to; w++ {
			words = binary.LittleEndian.AppendUint64(words, ^g.used[w]&mask(w, from, to))
		}
		key := ondisk.Key{Objectid: uint64(g.address(from)), Type: ondisk.TypeFreeSpaceBitmap, Offset: uint64(to-from) << g.shift}
		out = append(out, item{key, words[:(to-from+7)/8]})
	}
	return out
}
