package check

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// chunks judges how the address space and the devices are divided: chunks
// against block groups, stripes against device extents, and what each says is used.
func (c *checker) chunks(ctx context.Context) {
	if c.sb.CompatRO&ondisk.CompatROBlockGroupTree != 0 {
		if t := c.tree(ctx, ondisk.BlockGroupTree); t != nil {
			c.groups = nil
			c.each(ctx, t, func(it item) {
				if it.key.Type == ondisk.TypeBlockGroupItem {
					c.addGroup(it)
				}
			})
		}
	}
	slices.SortFunc(c.groups, func(a, b group) int { return cmp.Compare(a.start, b.start) })
	c.pairGroups()
	c.countGroups()
	c.devices(ctx)
}

// pairGroups demands a block group for every chunk and the other way round.
func (c *checker) pairGroups() {
	all := c.v.Chunks().All()
	for _, ch := range all {
		at := Place{Tree: ondisk.ChunkTree, Bytenr: ch.Logical, Slot: -1}
		g := c.groupOf(uint64(ch.Logical))
		if g == nil || g.start != uint64(ch.Logical) || g.length != ch.Length || g.flags != ch.Type {
			c.rep.bad(at, "Linux refuses to mount it", "chunk of %d bytes, type %#x, has no block group like it", ch.Length, ch.Type)
		}
	}
	for _, g := range c.groups {
		ch, ok := c.v.Chunks().Find(ondisk.Bytenr(g.start))
		if !ok || uint64(ch.Logical) != g.start {
			c.rep.bad(Place{Tree: ondisk.BlockGroupTree, Bytenr: ondisk.Bytenr(g.start), Slot: -1}, "Linux refuses to mount it", "block group of %d bytes has no chunk", g.length)
		}
	}
}

// countGroups adds up the extents of each block group.
func (c *checker) countGroups() {
	if !c.extentOK {
		return
	}
	for i, e := range c.ext.ext {
		at := c.ext.at[i]
		g := c.groupOf(at)
		if g == nil || at+e.length > g.end() {
			c.rep.bad(Place{Tree: ondisk.ExtentTree, Bytenr: ondisk.Bytenr(at), Slot: -1}, "", "extent of %d bytes is not inside one block group", e.length)
			continue
		}
		g.sum += e.length
		if !fits(g.flags, e) {
			c.rep.bad(Place{Tree: ondisk.ExtentTree, Bytenr: ondisk.Bytenr(at), Slot: -1}, "", "extent with flags %#x in a block group of type %#x", e.flags, g.flags)
		}
	}
	var sum uint64
	for _, g := range c.groups {
		sum += g.used
		if g.used != g.sum {
			c.rep.bad(Place{Tree: ondisk.BlockGroupTree, Bytenr: ondisk.Bytenr(g.start), Slot: -1}, "free space is reported wrongly", "block group says %d bytes used, extents add up to %d", g.used, g.sum)
		}
	}
	if sum != c.sb.BytesUsed {
		c.rep.bad(Place{Slot: -1}, "free space is reported wrongly", "superblock says %d bytes used, block groups add up to %d", c.sb.BytesUsed, sum)
	}
}

// fits tells whether an extent may lie in a block group of a type.
func fits(flags uint64, e *extent) bool {
	if e.block() {
		return flags&(ondisk.BlockGroupMetadata|ondisk.BlockGroupSystem) != 0
	}
	return flags&ondisk.BlockGroupData != 0
}

// devPiece is a range of a device that a chunk uses.
type devPiece struct {
	dev           ondisk.DevID
	start, length uint64
	logical       ondisk.Bytenr
}

// devices compares stripes, device extents and device items.
func (c *checker) devices(ctx context.Context) {
	stripes := map[devPiece]bool{}
	for _, ch := range c.v.Chunks().All() {
		for _, s := range ch.Stripes {
			stripes[devPiece{s.DevID, s.Offset, ch.DevExtentLen(), ch.Logical}] = false
		}
	}
	used, total := map[ondisk.DevID]uint64{}, map[ondisk.DevID]uint64{}
	items := c.v.DevItems()
	c.identity(items)
	for _, d := range items {
		total[d.DevID] = d.TotalBytes
	}
	t := c.tree(ctx, ondisk.DevTree)
	if t == nil {
		return
	}
	var last devPiece
	whole := c.each(ctx, t, func(it item) {
		if it.key.Type != ondisk.TypeDevExtent {
			return
		}
		d, err := ondisk.DecodeDevExtent(it.data)
		if err != nil {
			c.rep.bad(it.place(ondisk.DevTree), "", "%v", err)
			return
		}
		p := devPiece{ondisk.DevID(it.key.Objectid), it.key.Offset, d.Length, d.ChunkOffset}
		used[p.dev] += p.length
		if _, ok := stripes[p]; !ok {
			c.rep.bad(it.place(ondisk.DevTree), "", "device extent of %d bytes belongs to no stripe of a chunk at %d", p.length, p.logical)
		} else {
			stripes[p] = true
		}
		if size, ok := total[p.dev]; !ok || p.start+p.length > size {
			c.rep.bad(it.place(ondisk.DevTree), "Linux refuses to mount it", "device extent up to %d, the device ends at %d", p.start+p.length, size)
		}
		if last.dev == p.dev && last.start+last.length > p.start {
			c.rep.bad(it.place(ondisk.DevTree), "two chunks write over each other", "device extents overlap")
		}
		last = p
	})
	if !whole {
		return
	}
	for p, ok := range stripes {
		if !ok {
			c.rep.bad(Place{Tree: ondisk.ChunkTree, Bytenr: p.logical, Slot: -1}, "Linux refuses to mount it", "stripe on device %d at %d has no device extent", p.dev, p.start)
		}
	}
	c.deviceItems(items, used)
}

// identity compares the UUIDs that tell devices apart.
func (c *checker) identity(items []ondisk.DevItem) {
	uuids := map[ondisk.DevID]ondisk.UUID{}
	own := c.sb.Dev
	for _, d := range items {
		uuids[d.DevID] = d.UUID
		if d.DevID == own.DevID && (d.UUID != own.UUID || d.FSID != own.FSID) {
			c.rep.bad(Place{Tree: ondisk.ChunkTree, Slot: -1}, "Linux takes the device for a missing one", "device %d has other UUIDs in its superblock than in the chunk tree", d.DevID)
		}
	}
	for _, ch := range c.v.Chunks().All() {
		for _, s := range ch.Stripes {
			if u, ok := uuids[s.DevID]; !ok || u != s.DevUUID {
				c.rep.bad(Place{Tree: ondisk.ChunkTree, Bytenr: ch.Logical, Slot: -1}, "Linux takes the device for a missing one", "stripe on device %d, UUID %v: there is no such device", s.DevID, s.DevUUID)
			}
		}
	}
}

func (c *checker) deviceItems(items []ondisk.DevItem, used map[ondisk.DevID]uint64) {
	var total uint64
	n := uint64(0)
	for _, d := range items {
		if d.DevID == 0 {
			continue // the target of a running replacement
		}
		n++
		total += d.TotalBytes
		at := Place{Tree: ondisk.ChunkTree, Slot: -1, Key: ondisk.Key{Objectid: ondisk.DevItemsObjectid, Type: ondisk.TypeDevItem, Offset: uint64(d.DevID)}}
		if d.BytesUsed != used[d.DevID] {
			c.rep.bad(at, "", "device says %d bytes used, its extents add up to %d", d.BytesUsed, used[d.DevID])
		}
		if dev, err := c.v.IO().Device(d.DevID); err == nil && uint64(dev.Size()) < d.TotalBytes {
			c.rep.bad(at, "Linux refuses to mount it", "the device has %d bytes, the volume says %d: it was cut off", dev.Size(), d.TotalBytes)
		}
		if d.DevID == c.sb.Dev.DevID && (d.TotalBytes != c.sb.Dev.TotalBytes || d.BytesUsed != c.sb.Dev.BytesUsed) {
			c.rep.warn(at, "", "superblock says %d of %d bytes used", c.sb.Dev.BytesUsed, c.sb.Dev.TotalBytes)
		}
	}
	if n != c.sb.NumDevices {
		c.rep.bad(Place{Slot: -1}, "", "superblock says %d devices, there are %d", c.sb.NumDevices, n)
	}
	if total != c.sb.TotalBytes {
		f := c.rep.warn
		if total > c.sb.TotalBytes {
			f = c.rep.bad
		}
		f(Place{Slot: -1}, "Linux may refuse to mount it", "superblock says %d bytes in all, devices add up to %d", c.sb.TotalBytes, total)
	}
}
