package space

import (
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Group is a block group: a chunk of the logical address space from which extents are cut.
//
// Three bitmaps, one bit to a sector, are read when the group is first needed:
// used says what the extent tree says once the running transaction is committed; busy is what may not be handed out
// (used, pinned, under a superblock's copy); fresh is what the running transaction handed out.
type Group struct {
	Start ondisk.Bytenr
	Len   uint64
	Flags uint64 // type and profile

	n                 int // sectors
	shift             uint
	used, busy, fresh bitmap   // nil: not loaded
	supers            [][2]int // sectors under superblocks

	usedBytes uint64 // what the group's item must say at the commit
	busyBytes uint64 // exact if loaded, else an estimate
	itemUsed  uint64 // what the group's item says now
	isNew     bool   // has no item yet
	stale     bool   // free space items are older than the bitmaps
	touched   bool   // in Space.touched
	cursor    int    // sector where the next search begins
	maxRun    int    // no run of free sectors is longer
}

// End returns the first address behind the group.
func (g *Group) End() ondisk.Bytenr { return g.Start + ondisk.Bytenr(g.Len) }

// Used returns how many bytes are in use.
func (g *Group) Used() uint64 { return g.usedBytes }

func (g *Group) free() uint64 { return g.Len - min(g.Len, g.busyBytes) }

// sectors turns an address range into bits.
func (g *Group) sectors(at ondisk.Bytenr, n uint64) (from, to int) {
	off := uint64(at - g.Start)
	return int(off >> g.shift), int((off + n) >> g.shift)
}

func (g *Group) address(sector int) ondisk.Bytenr { return g.Start + ondisk.Bytenr(sector)<<g.shift }

// take hands out free sectors.
func (g *Group) take(from, to int) {
	g.used.set(from, to)
	g.busy.set(from, to)
	g.fresh.set(from, to)
	n := uint64(to-from) << g.shift
	g.usedBytes += n
	g.busyBytes += n
	g.stale = true
}

// findBlock looks for step free sectors, aligned to step, at or behind from.
func (g *Group) findBlock(from, to, step int) (int, bool) {
	for i := from; ; {
		i = g.busy.nextClear(i, to)
		i = (i + step - 1) / step * step
		if i+step > to {
			return 0, false
		}
		end := g.busy.nextSet(i, i+step)
		if end == i+step {
			return i, true
		}
		i = end
	}
}

// findRun looks for want free sectors in a row at or behind from. Without luck it returns the longest run there.
func (g *Group) findRun(from, to, want int) (start, n int) {
	for i := g.busy.nextClear(from, to); i < to; {
		end := g.busy.nextSet(i, min(to, i+want))
		if end-i > n {
			start, n = i, end-i
		}
		if n >= want {
			return start, n
		}
		i = g.busy.nextClear(end, to)
	}
	return start, n
}
