// Package space knows which bytes of a volume are free, and hands them out.
//
// It keeps bitmaps per block group, read from the free space tree (or from the extent tree) when a group is first
// needed. What must hold:
//
//   - Nothing is handed out that the last durable superblock can reach: what a transaction frees is pinned until
//     Committed is called (invariant I3). Only what the same transaction handed out is free again at once.
//   - The 64 KiB that hold a copy of the superblock are never handed out.
//   - A tree block does not cross a 64 KiB border counted from its group's start.
//   - Group items and free space items say the same as the bitmaps when Flush reports that nothing changed.
//
// One writer at a time; Usage may be called by others.
package space

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"syscall"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ErrNoSpace is returned, before anything is changed, when there is no room left.
var ErrNoSpace = fmt.Errorf("volume is full: %w", syscall.ENOSPC)

// Config is what a Space is made from.
type Config struct {
	Nodesize, Sectorsize uint32
	Map                  *chunk.Map
	// Committed returns a tree as the last commit left it. A group that is not loaded has not changed since, so
	// what it holds is read from there.
	Committed func(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error)
	// FreeSpaceTree tells that tree 10 exists and is valid, BlockGroupTree that tree 11 holds the group items.
	FreeSpaceTree, BlockGroupTree bool
}

// Space is the free space of a volume.
type Space struct {
	cfg     Config
	mu      sync.Mutex
	groups  []*Group // by address
	touched []*Group // changed since the last commit
	pinned  []run
	hint    map[uint64]*Group // where blocks of a type were last handed out
	pin     uint64            // bytes pinned
}

// run is a range of a group's sectors.
type run struct {
	g        *Group
	from, to int
}

// Open reads the items of all block groups.
func Open(ctx context.Context, cfg Config) (*Space, error) {
	s := &Space{cfg: cfg, hint: map[uint64]*Group{}}
	id := ondisk.ExtentTree
	if cfg.BlockGroupTree {
		id = ondisk.BlockGroupTree
	}
	t, err := cfg.Committed(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, c := range cfg.Map.All() {
		key := groupKey(c.Logical, c.Length)
		body, err := t.Get(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("chunk %d has no block group: %w", uint64(c.Logical), err)
		}
		item, err := ondisk.DecodeBlockGroupItem(body)
		if err != nil {
			return nil, err
		}
		if item.Used > c.Length {
			return nil, &ondisk.CorruptError{What: "block group", Tree: id, Bytenr: c.Logical, Slot: -1, Reason: "uses more than it has", Got: item.Used, Want: c.Length}
		}
		g := s.newGroup(c)
		g.usedBytes, g.itemUsed = item.Used, item.Used
		g.busyBytes += item.Used
		s.insert(g)
	}
	return s, nil
}

func groupKey(at ondisk.Bytenr, n uint64) ondisk.Key {
	return ondisk.Key{Objectid: uint64(at), Type: ondisk.TypeBlockGroupItem, Offset: n}
}

func (s *Space) newGroup(c *chunk.Chunk) *Group {
	g := &Group{Start: c.Logical, Len: c.Length, Flags: c.Type, shift: uint(bits.TrailingZeros32(s.cfg.Sectorsize))}
	g.n = int(c.Length >> g.shift)
	g.maxRun = g.n
	for _, r := range c.SuperRanges() {
		from, to := max(r[0], g.Start), min(r[1], g.End())
		if from >= to {
			continue
		}
		a, b := g.sectors(from, uint64(to-from))
		g.supers = append(g.supers, [2]int{a, b})
		g.busyBytes += uint64(to - from)
	}
	return g
}

func (s *Space) insert(g *Group) {
	i, _ := slices.BinarySearchFunc(s.groups, g.Start, func(g *Group, at ondisk.Bytenr) int { return cmp.Compare(g.Start, at) })
	s.groups = slices.Insert(s.groups, i, g)
}

// AddGroup takes in a new, empty chunk. Its items are written by Flush.
func (s *Space) AddGroup(c *chunk.Chunk) *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.newGroup(c)
	g.isNew, g.stale = true, true
	g.used, g.busy, g.fresh = newBitmap(g.n), newBitmap(g.n), newBitmap(g.n)
	for _, r := range g.supers {
		g.busy.set(r[0], r[1])
	}
	s.insert(g)
	s.touch(g)
	return g
}

// Empty lists groups of another type than typ (type and profile) that hold nothing, now and at the last commit. One
// group of each type stays.
func (s *Space) Empty(typ uint64) []*Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := map[uint64]int{}
	for _, g := range s.groups {
		left[g.Flags]++
	}
	var out []*Group
	for _, g := range s.groups {
		if g.Flags == typ || g.Flags&ondisk.BlockGroupSystem != 0 || g.usedBytes != 0 || g.itemUsed != 0 || g.isNew || g.touched || left[g.Flags] == 1 {
			continue
		}
		left[g.Flags]--
		out = append(out, g)
	}
	return out
}

// RemoveGroup forgets a group that Empty named.
func (s *Space) RemoveGroup(g *Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = slices.DeleteFunc(s.groups, func(o *Group) bool { return o == g })
	for typ, h := range s.hint {
		if h == g {
			delete(s.hint, typ)
		}
	}
}

// Group returns the group that holds the address.
func (s *Space) Group(at ondisk.Bytenr) (*Group, bool) {
	i, found := slices.BinarySearchFunc(s.groups, at, func(g *Group, at ondisk.Bytenr) int { return cmp.Compare(g.Start, at) })
	if !found {
		i--
	}
	if i < 0 || at >= s.groups[i].End() {
		return nil, false
	}
	return s.groups[i], true
}

// Groups returns all groups by address.
func (s *Space) Groups() []*Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.groups)
}

func (s *Space) touch(g *Group) {
	if !g.touched {
		g.touched = true
		s.touched = append(s.touched, g)
	}
}

// Committed is called when the transaction is durable: what it freed may be handed out again.
func (s *Space) Committed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.pinned {
		r.g.busy.clear(r.from, r.to)
		r.g.busyBytes -= uint64(r.to-r.from) << r.g.shift
		r.g.cursor = min(r.g.cursor, r.from)
		r.g.maxRun = r.g.n
	}
	s.pinned, s.pin = s.pinned[:0], 0
	for _, g := range s.touched {
		clear(g.fresh)
		g.touched = false
	}
	s.touched = s.touched[:0]
}

// Pinned calls fn for each range that was freed since the last commit.
func (s *Space) Pinned(fn func(at ondisk.Bytenr, n uint64)) {
	for _, r := range s.pinned {
		fn(r.g.address(r.from), uint64(r.to-r.from)<<r.g.shift)
	}
}

// Room is how much of a kind of space there is.
type Room struct {
	Total, Used uint64
	Free        uint64 // can be handed out now
	Pinned      uint64 // can be handed out after the next commit
}

// Room returns the space of all groups with the type bits (BlockGroupData, Metadata, System).
func (s *Space) Room(typ uint64) Room {
	s.mu.Lock()
	defer s.mu.Unlock()
	var r Room
	for _, g := range s.groups {
		if g.Flags&typ == 0 {
			continue
		}
		r.Total += g.Len
		r.Used += g.usedBytes
		r.Free += g.free()
	}
	for _, p := range s.pinned {
		if p.g.Flags&typ != 0 {
			r.Pinned += uint64(p.to-p.from) << p.g.shift
		}
	}
	return r
}

// UsedBytes returns the sum of all groups, for the superblock.
func (s *Space) UsedBytes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n uint64
	for _, g := range s.groups {
		n += g.usedBytes
	}
	return n
}
