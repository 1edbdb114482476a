package check

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// span is a range of addresses.
type span struct{ start, end uint64 }

// freeSpace compares the free space tree with what extents leave free.
func (c *checker) freeSpace(ctx context.Context) {
	if c.sb.CompatRO&ondisk.CompatROFreeSpaceTree == 0 || !c.extentOK {
		return
	}
	if c.sb.CompatRO&ondisk.CompatROFreeSpaceTreeValid == 0 {
		c.rep.warn(Place{Tree: ondisk.FreeSpaceTree, Slot: -1}, "Linux makes it anew when it mounts", "the free space tree is not marked as valid")
		return
	}
	t := c.tree(ctx, ondisk.FreeSpaceTree)
	if t == nil {
		return
	}
	f := freeReader{c: c, seen: map[uint64]bool{}}
	if !c.each(ctx, t, f.item) {
		return
	}
	f.finish()
	for _, g := range c.groups {
		if !f.seen[g.start] {
			c.rep.bad(f.place(g.start), "", "block group without free space information")
		}
	}
}

// freeReader follows the free space tree, one block group after the other.
type freeReader struct {
	c    *checker
	cur  *group // nil: none, or one that there is not
	info ondisk.FreeSpaceInfo
	runs []span // free, as the tree says; joined only over the borders of bitmaps
	to   uint64 // end of what bitmaps covered
	seen map[uint64]bool
}

func (f *freeReader) place(at uint64) Place {
	return Place{Tree: ondisk.FreeSpaceTree, Bytenr: ondisk.Bytenr(at), Slot: -1}
}

func (f *freeReader) item(it item) {
	at := it.place(ondisk.FreeSpaceTree)
	start, end := it.key.Objectid, it.key.Objectid+it.key.Offset
	switch it.key.Type {
	case ondisk.TypeFreeSpaceInfo:
		f.finish()
		g := f.c.groupOf(start)
		if g == nil && leftover(start, end) {
			f.c.rep.warn(at, "left by mkfs.btrfs up to 6.18; harmless, Linux passes over it", "free space information of a block group that mkfs removed")
			return
		}
		if g == nil || g.start != start || g.length != it.key.Offset {
			f.c.rep.bad(at, "", "free space information of a block group that there is not")
			return
		}
		f.info, _ = ondisk.DecodeFreeSpaceInfo(it.data)
		f.cur, f.to, f.seen[start] = g, start, true
	case ondisk.TypeFreeSpaceExtent, ondisk.TypeFreeSpaceBitmap:
		bitmap := it.key.Type == ondisk.TypeFreeSpaceBitmap
		switch {
		case f.cur == nil || start < f.cur.start || end > f.cur.end():
			if f.c.groupOf(start) == nil && !leftover(start, end) {
				f.c.rep.bad(at, "", "free space outside of all block groups")
			} else if f.cur != nil && !leftover(start, end) {
				f.c.rep.bad(at, "", "free space outside of its block group")
			}
		case bitmap != (f.info.Flags&ondisk.FreeSpaceUsesBitmaps != 0):
			f.c.rep.bad(at, "", "bitmaps and extents are mixed up")
		case bitmap:
			f.bitmap(at, start, end, it.data)
		default:
			if n := len(f.runs); n > 0 && f.runs[n-1].end >= start {
				f.c.rep.bad(at, "", "free extents are not joined, or overlap")
			}
			f.runs = append(f.runs, span{start, end})
		}
	default:
		f.c.rep.warn(at, "", "item of a type that does not belong here")
	}
}

// leftover tells whether a range is one of the temporary block groups of mkfs.btrfs (system, metadata, data), whose free
// space many versions forgot to remove.
func leftover(start, end uint64) bool {
	const mib = 1 << 20
	return start == mib && end == 5*mib || start == 5*mib && end == 13*mib || start == 13*mib && end == 21*mib
}

// bitmap adds the runs of a bitmap; one that goes on from the bitmap before is
// one run.
func (f *freeReader) bitmap(at Place, start, end uint64, b []byte) {
	if start != f.to {
		f.c.rep.bad(at, "", "bitmaps do not cover %d to %d", f.to, start)
	}
	f.to = end
	for i := uint64(0); i*f.c.sector < end-start && i/8 < uint64(len(b)); i++ {
		if b[i/8]>>(i%8)&1 == 0 {
			continue
		}
		s := start + i*f.c.sector
		if n := len(f.runs); n > 0 && f.runs[n-1].end == s {
			f.runs[n-1].end += f.c.sector
			continue
		}
		f.runs = append(f.runs, span{s, s + f.c.sector})
	}
}

// finish judges the block group at hand.
func (f *freeReader) finish() {
	g := f.cur
	if g == nil {
		f.runs = f.runs[:0]
		return
	}
	at := f.place(g.start)
	if f.info.Flags&ondisk.FreeSpaceUsesBitmaps != 0 && f.to != g.end() {
		f.c.rep.bad(at, "", "bitmaps do not cover %d to %d", f.to, g.end())
	}
	if int(f.info.ExtentCount) != len(f.runs) {
		f.c.rep.bad(at, "", "says %d free extents, has %d", f.info.ExtentCount, len(f.runs))
	}
	supers := f.c.supers(g)
	want, have := without(f.c.free(g), supers), without(f.runs, supers)
	for i := range max(len(want), len(have)) {
		switch {
		case i >= len(have):
			f.c.rep.bad(at, "the space is not used", "%d to %d is free, the tree does not know", want[i].start, want[i].end)
		case i >= len(want):
			f.c.rep.bad(at, "data in use will be written over", "the tree says %d to %d is free", have[i].start, have[i].end)
		case want[i] != have[i]:
			f.c.rep.bad(at, "data in use may be written over", "the tree says %d to %d is free, extents leave %d to %d", have[i].start, have[i].end, want[i].start, want[i].end)
		default:
			continue
		}
		break
	}
	f.cur, f.runs = nil, f.runs[:0]
}

// free gives what extents leave free of a block group.
func (c *checker) free(g *group) []span {
	var out []span
	at := g.start
	for i := c.ext.from(g.start); i < len(c.ext.at) && c.ext.at[i] < g.end(); i++ {
		if s := c.ext.at[i]; s > at {
			out = append(out, span{at, s})
		}
		at = max(at, c.ext.at[i]+c.ext.ext[i].length)
	}
	if at < g.end() {
		out = append(out, span{at, g.end()})
	}
	return out
}

// supers gives the ranges of a block group that superblock copies lie in. Linux
// lists them as free, other writers may not.
func (c *checker) supers(g *group) []span {
	ch, ok := c.v.Chunks().Find(ondisk.Bytenr(g.start))
	if !ok {
		return nil
	}
	var out []span
	for _, r := range ch.SuperRanges() {
		out = append(out, span{uint64(r[0]), uint64(r[1])})
	}
	return out
}

// without gives the parts of spans that are in none of the holes.
func without(spans, holes []span) []span {
	out := spans
	for _, h := range holes {
		var next []span
		for _, s := range out {
			if s.start < min(s.end, h.start) {
				next = append(next, span{s.start, min(s.end, h.start)})
			}
			if max(s.start, h.end) < s.end {
				next = append(next, span{max(s.start, h.end), s.end})
			}
		}
		out = next
	}
	return out
}
