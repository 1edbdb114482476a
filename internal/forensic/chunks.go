package forensic

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// findChunks makes the chunk map and the chunk tree, finds out which device is which, and forgets the blocks that lie where the
// chunk map has no place for them.
func (s *search) findChunks(ctx context.Context) error {
	s.open()
	c := &chunkFinder{s: s, devs: map[ondisk.DevID]ondisk.DevItem{}, claims: map[ondisk.Bytenr]*claim{}}
	whole, err := c.items(ctx)
	if err == nil && !whole {
		err = c.fromExtents(ctx)
	}
	if err != nil {
		return err
	}
	c.nameDevices()
	s.index.keep(s.belongs)
	if err := c.writeTree(); err != nil {
		return err
	}
	s.sb.SysChunks = nil
	for _, one := range s.chunks.All() {
		if one.Type&ondisk.BlockGroupSystem != 0 {
			s.sb.SysChunks = append(s.sb.SysChunks, ondisk.SysChunk{Logical: one.Logical, Chunk: one.ChunkItem})
		}
	}
	s.open()
	return nil
}

// chunkFinder gathers chunks and devices.
type chunkFinder struct {
	s     *search
	devs  map[ondisk.DevID]ondisk.DevItem
	other []item // of the chunk tree

	claims map[ondisk.Bytenr]*claim
	order  []ondisk.Bytenr // of claims that are no chunk of the map, sorted
}

// items reads the chunk tree, or what is left of it, and tells whether it is whole.
func (c *chunkFinder) items(ctx context.Context) (whole bool, err error) {
	s := c.s
	var g *gathering
	if s.sure {
		g, err = s.gather(ctx, ondisk.ChunkTree, btree.RootPtr{Bytenr: s.sb.ChunkRoot, Generation: s.sb.ChunkRootGeneration, Level: s.sb.ChunkRootLevel}, nil)
	} else {
		g, err = s.gatherAll(ctx, ondisk.ChunkTree, nil)
	}
	if err == nil && len(g.leaves) == 0 {
		g, err = s.gatherAll(ctx, ondisk.ChunkTree, nil) // the superblock may tell nonsense
	}
	if err != nil {
		return false, err
	}
	if whole = g.lost == 0; whole {
		s.rep.note("chunk tree: as the superblock says")
	} else {
		s.rep.note("chunk tree: lost; %d leaves of it were found", len(g.leaves))
	}
	// Newer leaves first: of two chunks that claim one address the newer counts.
	slices.SortStableFunc(g.leaves, func(a, b leaf) int { return cmp.Compare(b.gen, a.gen) })
	return whole, s.eachItem(ctx, ondisk.ChunkTree, g.leaves, func(it item) error {
		c.item(it)
		return nil
	})
}

func (c *chunkFinder) item(it item) {
	switch it.key.Type {
	case ondisk.TypeDevItem:
		d, err := ondisk.DecodeDevItem(it.body)
		if _, known := c.devs[d.DevID]; err == nil && !known {
			c.devs[d.DevID] = d
		}
	case ondisk.TypeChunkItem:
		ci, err := ondisk.DecodeChunkItem(it.body)
		if err != nil {
			return
		}
		if err := c.s.chunks.Insert(chunk.Chunk{Logical: ondisk.Bytenr(it.key.Offset), ChunkItem: ci}); err != nil {
			c.s.rep.lost("a chunk at %d is left out: %v", it.key.Offset, err)
			return
		}
	default:
		c.other = append(c.other, it)
	}
}

var (
	errNoPlace = errors.New("too little is left of what else tells of it")
	errOrder   = errors.New("the order of its stripes is not told elsewhere")
)

// claim is what device extents and block groups tell of a chunk.
type claim struct {
	flags, length uint64
	gen           ondisk.Generation // of the leaf that tells of the group
	stripes       []ondisk.Stripe
	size          uint64 // of each stripe
	odd           bool   // stripes differ in size
}

// fromExtents makes the chunks whose items are gone from the extents of their devices and their block groups, where these leave no
// doubt: with one stripe, or with stripes that are copies. It also tells which chunks stay unknown.
func (c *chunkFinder) fromExtents(ctx context.Context) error {
	claims := c.claims
	get := func(at uint64) *claim {
		cl := claims[ondisk.Bytenr(at)]
		if cl == nil {
			cl = &claim{}
			claims[ondisk.Bytenr(at)] = cl
		}
		return cl
	}
	err := c.eachOf(ctx, ondisk.DevTree, func(it item, _ ondisk.Generation) {
		d, err := ondisk.DecodeDevExtent(it.body)
		if it.key.Type != ondisk.TypeDevExtent || err != nil {
			return
		}
		cl := get(uint64(d.ChunkOffset))
		cl.odd = cl.odd || cl.size != 0 && cl.size != d.Length
		cl.size = d.Length
		cl.stripes = append(cl.stripes, ondisk.Stripe{DevID: ondisk.DevID(it.key.Objectid), Offset: it.key.Offset})
	})
	if err != nil || c.allKnown() {
		return err
	}
	group := func(it item, gen ondisk.Generation) {
		g, err := ondisk.DecodeBlockGroupItem(it.body)
		if it.key.Type != ondisk.TypeBlockGroupItem || err != nil {
			return
		}
		if cl := get(it.key.Objectid); gen >= cl.gen {
			cl.flags, cl.length, cl.gen = g.Flags, it.key.Offset, gen
		}
	}
	for _, tree := range []ondisk.TreeID{ondisk.ExtentTree, ondisk.BlockGroupTree} {
		if err := c.eachOf(ctx, tree, group); err != nil {
			return err
		}
	}
	c.place()
	return nil
}

// allKnown tells whether every claim has its chunk.
func (c *chunkFinder) allKnown() bool {
	for at := range c.claims {
		if _, ok := c.s.chunks.Find(at); !ok {
			return false
		}
	}
	return true
}

// place makes a chunk of each claim that has none.
func (c *chunkFinder) place() {
	for at := range c.claims {
		if _, ok := c.s.chunks.Find(at); !ok {
			c.order = append(c.order, at)
		}
	}
	slices.Sort(c.order)
	made := 0
	for _, at := range c.order {
		cl := c.claims[at]
		if err := c.insert(at, cl); err != nil {
			c.s.rep.lost("%d bytes at %d cannot be placed on a device: their chunk item is gone, and %v", cl.length, at, err)
			continue
		}
		made++
	}
	if made > 0 {
		c.s.rep.note("chunk map: %d chunks by their device extents and block groups", made)
	}
}

// insert makes a chunk of a claim, if it leaves no doubt.
func (c *chunkFinder) insert(at ondisk.Bytenr, cl *claim) error {
	one := chunk.Chunk{Logical: at, ChunkItem: ondisk.ChunkItem{
		Length: cl.length, Owner: uint64(ondisk.ExtentTree), StripeLen: ondisk.StripeLen, Type: cl.flags,
		IOAlign: ondisk.StripeLen, IOWidth: ondisk.StripeLen, SectorSize: c.s.sb.Sectorsize, SubStripes: 1, Stripes: cl.stripes,
	}}
	switch {
	case len(cl.stripes) == 0 || cl.flags == 0:
		return errNoPlace
	case cl.odd || cl.size != cl.length || len(cl.stripes) > 1 && one.Copies() != len(cl.stripes):
		return errOrder
	}
	for i, st := range one.Stripes {
		one.Stripes[i].DevUUID = c.devs[st.DevID].UUID
	}
	return c.s.chunks.Insert(one)
}

// eachOf gives every item of a tree's leaves to fn, the newest leaves without a newer one in the same place.
func (c *chunkFinder) eachOf(ctx context.Context, tree ondisk.TreeID, fn func(it item, gen ondisk.Generation)) error {
	g, err := c.s.gatherAll(ctx, tree, nil)
	if err != nil {
		return err
	}
	for _, l := range g.leaves {
		err := c.s.eachItem(ctx, tree, []leaf{l}, func(it item) error {
			fn(it, l.gen)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// nameDevices finds the numbers of devices without a superblock: by the places of the blocks on them.
func (c *chunkFinder) nameDevices() {
	s := c.s
	taken := map[ondisk.DevID]bool{}
	for _, d := range s.devs {
		if d.Super != nil {
			taken[d.Super.Dev.DevID] = true
			if _, ok := c.devs[d.Super.Dev.DevID]; !ok {
				c.devs[d.Super.Dev.DevID] = d.Super.Dev
			}
		}
	}
	for i, d := range s.devs {
		if d.Super != nil {
			continue
		}
		id, ok := c.number(i, taken)
		if !ok {
			for id = 1; taken[id] || c.devs[id].DevID != 0; {
				id++ // one that no chunk names: its tree blocks can be read
			}
			s.rep.lost("device %d of those given has no superblock and nothing tells which one it is: file data on it is not found", i+1)
		} else {
			s.rep.note("device %d of those given has no superblock; by its blocks it is number %d", i+1, id)
		}
		taken[id] = true
		item, known := c.devs[id]
		if !known {
			item = ondisk.DevItem{DevID: id, TotalBytes: uint64(max(d.Dev.Size(), 0)), SectorSize: s.sb.Sectorsize, FSID: s.sb.TreeUUID()}
			c.devs[id] = item
		}
		sb := *s.sb
		sb.Dev = item
		s.devs[i].Super = &sb
	}
	if s.sb.Dev.DevID == 0 && len(s.devs) > 0 && s.devs[0].Super != nil {
		s.sb.Dev = s.devs[0].Super.Dev
	}
}

// number finds the number of the device with index i: that which chunks, or what is left of them, give to the places of its blocks.
func (c *chunkFinder) number(i int, taken map[ondisk.DevID]bool) (ondisk.DevID, bool) {
	votes := map[ondisk.DevID]int{}
	for _, f := range c.s.index.blocks {
		for _, p := range f.places {
			if p.dev != i {
				continue
			}
			for _, id := range c.holders(f.at, uint64(p.off)) {
				if !taken[id] {
					votes[id]++
				}
			}
		}
	}
	var best ondisk.DevID
	for id, n := range votes {
		if n > votes[best] || n == votes[best] && id < best {
			best = id
		}
	}
	if votes[best] > 0 {
		return best, true
	}
	var free []ondisk.DevID
	for id := range c.devs {
		if !taken[id] {
			free = append(free, id)
		}
	}
	if len(free) == 1 {
		return free[0], true
	}
	return 1, len(c.s.devs) == 1 && !taken[1]
}

// holders lists the devices that may hold the block at an address at an offset.
func (c *chunkFinder) holders(at ondisk.Bytenr, off uint64) (out []ondisk.DevID) {
	if one, ok := c.s.chunks.Find(at); ok {
		for _, pl := range one.Places(at) {
			if pl.Offset == off {
				out = append(out, pl.DevID)
			}
		}
		return out
	}
	i, exact := slices.BinarySearch(c.order, at)
	if !exact {
		i--
	}
	if i < 0 {
		return nil
	}
	cl := c.claims[c.order[i]]
	if uint64(at-c.order[i]) >= cl.length {
		return nil
	}
	for _, st := range cl.stripes {
		if off >= st.Offset && off-st.Offset < cl.size {
			out = append(out, st.DevID)
		}
	}
	return out
}

// belongs tells whether a block may lie where it was found. What no chunk holds is believed.
func (s *search) belongs(f *found, p place) bool {
	d := s.devs[p.dev]
	if d.Super == nil {
		return false
	}
	one, ok := s.chunks.Find(f.at)
	if !ok {
		return true
	}
	if one.Type&(ondisk.BlockGroupMetadata|ondisk.BlockGroupSystem) == 0 {
		return false
	}
	for _, pl := range one.Places(f.at) {
		if pl.DevID == d.Super.Dev.DevID && pl.Offset == uint64(p.off) {
			return true
		}
	}
	return false
}

// writeTree makes the chunk tree anew, in memory.
func (c *chunkFinder) writeTree() error {
	list := c.other
	for _, d := range c.devs {
		list = append(list, item{ondisk.Key{Objectid: ondisk.DevItemsObjectid, Type: ondisk.TypeDevItem, Offset: uint64(d.DevID)}, d.Append(nil)})
	}
	for _, one := range c.s.chunks.All() {
		k := ondisk.Key{Objectid: ondisk.FirstChunkTreeObjectid, Type: ondisk.TypeChunkItem, Offset: uint64(one.Logical)}
		list = append(list, item{k, one.ChunkItem.Append(nil)})
	}
	root, err := c.s.made.tree(ondisk.ChunkTree, list)
	c.s.sb.ChunkRoot, c.s.sb.ChunkRootGeneration, c.s.sb.ChunkRootLevel = root.Bytenr, root.Generation, root.Level
	return err
}
