package mkfs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ErrNoRoom: the source does not fit on the devices.
var ErrNoRoom = errors.New("no room left on the devices")

const (
	mib = uint64(1) << 20
	gib = uint64(1) << 30

	firstByte = mib // the first byte of a device that chunks may use
	minStripe = mib
)

// kind is what a chunk holds.
type kind int

const (
	system kind = iota
	metadata
	data
	kinds
)

func (k kind) bits() uint64 {
	return [...]uint64{ondisk.BlockGroupSystem, ondisk.BlockGroupMetadata, ondisk.BlockGroupData}[k]
}

func (k kind) String() string { return [...]string{"system", "metadata", "data"}[k] }

// shape tells how a profile uses devices.
type shape struct {
	min, max int // devices; max 0: as many as have room
	perDev   int // stripes on each
	copies   int
	step     int
	parity   int // stripes that hold no data
}

// columns is the number of stripes of n devices that hold different data.
func (s shape) columns(n int) uint64 { return uint64((n - s.parity) * s.perDev / s.copies) }

func shapes(profile uint64) shape {
	switch profile & ondisk.BlockGroupProfileMask {
	case ondisk.BlockGroupDUP:
		return shape{1, 1, 2, 2, 1, 0}
	case ondisk.BlockGroupRAID1:
		return shape{2, 2, 1, 2, 1, 0}
	case ondisk.BlockGroupRAID1C3:
		return shape{3, 3, 1, 3, 1, 0}
	case ondisk.BlockGroupRAID1C4:
		return shape{4, 4, 1, 4, 1, 0}
	case ondisk.BlockGroupRAID0:
		return shape{1, 0, 1, 1, 1, 0}
	case ondisk.BlockGroupRAID10:
		return shape{2, 0, 1, 2, 2, 0}
	case ondisk.BlockGroupRAID5:
		return shape{2, 0, 1, 1, 1, 1}
	case ondisk.BlockGroupRAID6:
		return shape{3, 0, 1, 1, 1, 2}
	}
	return shape{1, 1, 1, 1, 1, 0}
}

// span is a range of addresses [from, to).
type span struct{ from, to ondisk.Bytenr }

// area is a chunk and what of it is given out: everything below next but the gaps between the spans of used.
type area struct {
	chunk.Chunk
	kind kind
	skip []span // superblocks lie there
	next ondisk.Bytenr
	used []span
}

// devSpace is a device: chunks lie on it one behind the other.
type devSpace struct {
	id          ondisk.DevID
	uuid        ondisk.UUID
	total, next uint64
}

func (d *devSpace) free() uint64 { return d.total - min(d.total, d.next) }

// layout gives out addresses, always ascending within a kind, and adds chunks when those there are are full. It is a value but
// for its slices: clone makes one to plan with.
type layout struct {
	p       *plan
	devs    []devSpace
	areas   []area
	current [kinds]int // the area being filled; -1: none yet
	logical ondisk.Bytenr
	first   [kinds]uint64 // length of the first chunk, when not the usual one
	reserve uint64        // bytes that data must leave free for metadata, on every device
	chunks  *chunk.Map    // learns new chunks; nil in clones
}

func newLayout(p *plan, m *chunk.Map) *layout {
	l := &layout{p: p, logical: ondisk.Bytenr(firstByte), chunks: m, current: [kinds]int{-1, -1, -1}}
	for i, size := range p.sizes {
		l.devs = append(l.devs, devSpace{ondisk.DevID(i + 1), p.devUUIDs[i], size, firstByte})
	}
	return l
}

// clone copies the layout; adding chunks to the copy shows nowhere else.
func (l *layout) clone() *layout {
	c := *l
	c.chunks = nil
	c.devs = slices.Clone(l.devs)
	c.areas = slices.Clone(l.areas)
	for i := range c.areas {
		c.areas[i].used = slices.Clone(c.areas[i].used)
	}
	return &c
}

func (l *layout) total() (n uint64) {
	for _, d := range l.devs {
		n += d.total
	}
	return n
}

func (l *layout) profile(k kind) uint64 {
	if k == data {
		return l.p.data
	}
	return l.p.metadata
}

// take gives out up to want bytes at an address that is a multiple of align, or exactly want if whole. fresh tells that the
// place does not follow the last one of this kind.
func (l *layout) take(k kind, want, align uint64, whole bool) (at ondisk.Bytenr, n uint64, fresh bool, err error) {
	if l.current[k] < 0 {
		if err := l.grow(k); err != nil {
			return 0, 0, false, err
		}
	}
	for {
		a := &l.areas[l.current[k]]
		if at, n, ok := a.fit(want, align, whole); ok {
			return at, n, a.give(at, n), nil
		}
		if err := l.grow(k); err != nil {
			return 0, 0, false, err
		}
	}
}

// fit finds the next place of the area, around superblocks.
func (a *area) fit(want, align uint64, whole bool) (ondisk.Bytenr, uint64, bool) {
	at := a.next
	for {
		at = ondisk.Bytenr((uint64(at) + align - 1) / align * align)
		end, past := a.End(), ondisk.Bytenr(0)
		for _, s := range a.skip {
			if s.to > at {
				end, past = min(end, s.from), s.to
				break
			}
		}
		room := uint64(0)
		if end > at {
			room = uint64(end-at) / align * align
		}
		if room >= want || room > 0 && !whole {
			return at, min(want, room), true
		}
		if past == 0 || past >= a.End() {
			return 0, 0, false
		}
		at = past
	}
}

// give records that a place is in use, and tells whether it does not follow the one before.
func (a *area) give(at ondisk.Bytenr, n uint64) (fresh bool) {
	a.next = at + ondisk.Bytenr(n)
	if last := len(a.used) - 1; last >= 0 && a.used[last].to == at {
		a.used[last].to = a.next
		return false
	}
	a.used = append(a.used, span{at, a.next})
	return true
}

// usedBytes is the number of bytes given out.
func (a *area) usedBytes() (n uint64) {
	for _, s := range a.used {
		n += uint64(s.to - s.from)
	}
	return n
}

// free lists the ranges that are not given out. Superblocks count as free (FORMAT: "Free space tree").
func (a *area) free() []span {
	var out []span
	at := a.Logical
	for _, s := range a.used {
		if s.from > at {
			out = append(out, span{at, s.from})
		}
		at = s.to
	}
	if at < a.End() {
		out = append(out, span{at, a.End()})
	}
	return out
}

// grow adds a chunk.
func (l *layout) grow(k kind) error {
	s := shapes(l.profile(k))
	devs := make([]*devSpace, len(l.devs))
	for i := range devs {
		devs[i] = &l.devs[i]
	}
	slices.SortStableFunc(devs, func(a, b *devSpace) int { return cmp.Compare(b.free(), a.free()) })
	n := len(devs)
	if s.max > 0 {
		n = s.max
	}
	for n -= n % s.step; n >= s.min; n -= s.step {
		columns := s.columns(n)
		room := devs[n-1].free()
		if k == data {
			room -= min(room, l.reserve)
		}
		stripe := min(l.length(k)/columns, room/uint64(s.perDev))
		stripe -= stripe % ondisk.StripeLen
		if stripe >= minStripe {
			return l.add(k, devs[:n], s, stripe, columns)
		}
	}
	return fmt.Errorf("a %s chunk of profile %s: %w", k, profileName(l.profile(k)), ErrNoRoom)
}

// add makes a chunk of stripes on devs.
func (l *layout) add(k kind, devs []*devSpace, s shape, stripe, columns uint64) error {
	c := chunk.Chunk{Logical: l.logical, ChunkItem: ondisk.ChunkItem{
		Length: stripe * columns, Owner: uint64(ondisk.ExtentTree), StripeLen: ondisk.StripeLen, Type: k.bits() | l.profile(k),
		IOAlign: ondisk.StripeLen, IOWidth: ondisk.StripeLen, SectorSize: l.p.sectorsize, SubStripes: 1,
	}}
	if l.profile(k) == ondisk.BlockGroupRAID10 {
		c.SubStripes = 2
	}
	for _, d := range devs {
		for range s.perDev {
			c.Stripes = append(c.Stripes, ondisk.Stripe{DevID: d.id, Offset: d.next, DevUUID: d.uuid})
			d.next += stripe
		}
	}
	a := area{Chunk: c, kind: k, next: c.Logical}
	for _, r := range c.SuperRanges() {
		a.skip = append(a.skip, span{r[0], r[1]})
	}
	slices.SortFunc(a.skip, func(x, y span) int { return cmp.Compare(x.from, y.from) })
	l.current[k] = len(l.areas)
	l.areas = append(l.areas, a)
	l.logical = c.End()
	if l.chunks == nil {
		return nil
	}
	return l.chunks.Insert(c)
}

// length is how long the next chunk of a kind shall be: as long as mkfs.btrfs makes the first ones and the kernel later ones
// (FORMAT: "How chunks get their size"), but less on small devices.
func (l *layout) length(k kind) uint64 {
	total, s := l.total(), shapes(l.profile(k))
	if l.first[k] > 0 && l.current[k] < 0 {
		return l.first[k]
	}
	share := total / uint64(s.copies) // what could be stored
	switch k {
	case system:
		return max(mib, min(8*mib, share/32))
	case metadata:
		longest := 256 * mib
		if total > 50*gib {
			longest = gib
		}
		return min(longest, max(min(32*mib, share/2), share/10))
	}
	if l.p.source == nil {
		return min(8*mib, share/4)
	}
	columns := uint64(1)
	if s.max == 0 {
		columns = max(1, s.columns(len(l.devs)))
	}
	return min(gib*columns, max(32*mib, share/10))
}

// shrink cuts unused space: of the last data chunk if it lies at the end of its devices, and behind all chunks.
func (l *layout) shrink() {
	if i := l.current[data]; i >= 0 {
		l.trim(&l.areas[i])
	}
	for i := range l.devs {
		l.devs[i].total = max(l.devs[i].next, MinDeviceSize)
	}
}

// trim shortens a data chunk to what is used of it.
func (l *layout) trim(a *area) {
	columns := a.Length / a.DevExtentLen()
	stripe := (uint64(a.next-a.Logical)/columns + ondisk.StripeLen) / ondisk.StripeLen * ondisk.StripeLen
	cut := a.DevExtentLen() - min(stripe, a.DevExtentLen())
	perDev := map[ondisk.DevID]uint64{}
	for _, s := range a.Stripes {
		perDev[s.DevID]++
		if d := &l.devs[s.DevID-1]; perDev[s.DevID] > 1 || d.next != s.Offset+a.DevExtentLen() {
			return // more than one stripe on a device, or not at its end
		}
	}
	if cut == 0 || a.End() != l.logical {
		return
	}
	for _, s := range a.Stripes {
		l.devs[s.DevID-1].next -= cut
	}
	l.chunks.Remove(a.Logical)
	a.Length -= cut * columns
	l.logical = a.End()
	_ = l.chunks.Insert(a.Chunk) // shorter than what was there
	a.skip = slices.DeleteFunc(a.skip, func(s span) bool { return s.from >= a.End() })
}
