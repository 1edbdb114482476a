package mkfs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// extent is an allocated range: a tree block or file data.
type extent struct {
	at    ondisk.Bytenr
	n     uint64 // bytes
	owner ondisk.TreeID
	data  bool
	level uint8  // of tree blocks
	ino   uint64 // of data
	off   uint64 // of data: place in the file
}

// The trees that describe the volume describe also the blocks that they themselves consist of. So their size is found first:
// the closing takes places for a guess of blocks, counts how many blocks the items would need then, and guesses again until
// the two agree. Then it writes exactly that.
type closing struct {
	b     *builder
	space *layout
	plans []planned
	taken []extent // places of the planned blocks, by address
	old   []extent // everything that had its place before, by address
}

// planned is a tree of the closing.
type planned struct {
	id     ondisk.TreeID
	items  func(*closing, emit) error
	levels []int
	places []ondisk.Bytenr // leaves first
}

func (p *planned) tree() tree {
	return tree{p.id, p.places[len(p.places)-1], uint8(len(p.levels) - 1), uint64(len(p.places))}
}

// place takes the next block of a tree that is written as its items come.
func (b *builder) place(owner ondisk.TreeID) place {
	return func(level uint8) (ondisk.Bytenr, error) {
		size := uint64(b.p.nodesize)
		at, _, _, err := b.space.take(metadata, size, size, true)
		if err == nil {
			b.blocks = append(b.blocks, extent{at: at, n: size, owner: owner, level: level})
		}
		return at, err
	}
}

// close writes all trees that are not written yet and makes everything durable.
func (b *builder) close() error {
	if b.space.current[data] < 0 { // an empty volume gets a data chunk too
		if err := b.space.grow(data); err != nil {
			return err
		}
	}
	c := &closing{b: b}
	for _, p := range []planned{
		{id: ondisk.ChunkTree, items: (*closing).chunkItems}, {id: ondisk.DataRelocTree, items: (*closing).relocItems},
		{id: ondisk.UUIDTree, items: (*closing).uuidItems}, {id: ondisk.DevTree, items: (*closing).devItems},
		{id: ondisk.ExtentTree, items: (*closing).extentItems}, {id: ondisk.FreeSpaceTree, items: (*closing).freeItems},
		{id: ondisk.BlockGroupTree, items: (*closing).groupItems}, {id: ondisk.RootTree, items: (*closing).rootItems},
	} {
		if p.id == ondisk.FreeSpaceTree && b.p.compatRO&ondisk.CompatROFreeSpaceTree == 0 || p.id == ondisk.BlockGroupTree && !b.hasGroupTree() {
			continue
		}
		p.levels = []int{1}
		c.plans = append(c.plans, p)
	}
	c.old = slices.Concat(b.blocks, b.extents)
	slices.SortFunc(c.old, byAddress)
	if err := c.settle(); err != nil {
		return err
	}
	return c.write()
}

func byAddress(a, b extent) int { return cmp.Compare(a.at, b.at) }

func (b *builder) hasGroupTree() bool { return b.p.compatRO&ondisk.CompatROBlockGroupTree != 0 }

// settle guesses until the guess is right.
func (c *closing) settle() error {
	for range 64 {
		c.space = c.b.space.clone()
		if err := c.takePlaces(); err != nil {
			return err
		}
		right := true
		for i := range c.plans {
			p := &c.plans[i]
			n := counter{nodesize: int(c.b.p.nodesize)}
			if err := p.items(c, n.add); err != nil {
				return err
			}
			if levels := n.levels(); !slices.Equal(levels, p.levels) {
				p.levels, right = levels, false
			}
		}
		if right {
			return c.firstKeys()
		}
	}
	return fmt.Errorf("the sizes of the trees do not settle")
}

// firstKeys finds the first keys of the planned blocks, if extent items shall tell them. No size depends on them.
func (c *closing) firstKeys() error {
	if c.b.first == nil {
		return nil
	}
	for i := range c.plans {
		p := &c.plans[i]
		n := counter{nodesize: int(c.b.p.nodesize)}
		if err := p.items(c, n.add); err != nil {
			return err
		}
		for k, key := range n.keys() {
			c.b.first[p.places[k]] = key
		}
	}
	return nil
}

// takePlaces takes a place for each planned block.
func (c *closing) takePlaces() error {
	c.taken = c.taken[:0]
	size := uint64(c.b.p.nodesize)
	for i := range c.plans {
		p := &c.plans[i]
		p.places = p.places[:0]
		k := metadata
		if p.id == ondisk.ChunkTree {
			k = system
		}
		for level, n := range p.levels {
			for range n {
				at, _, _, err := c.space.take(k, size, size, true)
				if err != nil {
					return err
				}
				p.places = append(p.places, at)
				c.taken = append(c.taken, extent{at: at, n: size, owner: p.id, level: uint8(level)})
			}
		}
	}
	slices.SortFunc(c.taken, byAddress)
	return nil
}

// write writes the planned trees at their places.
func (c *closing) write() error {
	b := c.b
	for _, a := range c.space.areas[len(b.space.areas):] {
		if err := b.chunks.Insert(a.Chunk); err != nil {
			return err
		}
	}
	c.space.chunks = b.chunks
	b.space = c.space
	var done []tree
	for i := range c.plans {
		p := &c.plans[i]
		left := p.places
		w := b.newTree(p.id, func(uint8) (ondisk.Bytenr, error) {
			if len(left) == 0 {
				return 0, fmt.Errorf("%v has more blocks than planned", p.id)
			}
			at := left[0]
			left = left[1:]
			return at, nil
		})
		if err := p.items(c, w.add); err != nil {
			return err
		}
		t, err := w.finish()
		if err != nil {
			return err
		}
		if t != p.tree() {
			return fmt.Errorf("%v came out as %+v, planned was %+v", p.id, t, p.tree())
		}
		done = append(done, t)
	}
	b.trees = append(b.trees, done...)
	b.blocks = append(b.blocks, c.taken...)
	if err := b.data.finish(); err != nil {
		return err
	}
	if err := b.meta.finish(); err != nil {
		return err
	}
	return b.io.Flush()
}

func (c *closing) chunkItems(add emit) error {
	for _, d := range c.b.devItems(c.space) {
		if err := add(ondisk.Key{Objectid: ondisk.DevItemsObjectid, Type: ondisk.TypeDevItem, Offset: uint64(d.DevID)}, d.Append(nil)); err != nil {
			return err
		}
	}
	for i := range c.space.areas {
		a := &c.space.areas[i]
		k := ondisk.Key{Objectid: ondisk.FirstChunkTreeObjectid, Type: ondisk.TypeChunkItem, Offset: uint64(a.Logical)}
		if err := add(k, a.ChunkItem.Append(nil)); err != nil {
			return err
		}
	}
	return nil
}

// devItems gives the DEV_ITEM of each device.
func (b *builder) devItems(l *layout) []ondisk.DevItem {
	items := make([]ondisk.DevItem, len(l.devs))
	for i, d := range l.devs {
		items[i] = ondisk.DevItem{
			DevID: d.id, TotalBytes: d.total, UUID: d.uuid, FSID: b.p.fsid,
			IOAlign: b.p.sectorsize, IOWidth: b.p.sectorsize, SectorSize: b.p.sectorsize,
		}
	}
	for i := range l.areas {
		for _, s := range l.areas[i].Stripes {
			items[s.DevID-1].BytesUsed += l.areas[i].DevExtentLen()
		}
	}
	return items
}

func (c *closing) devItems(add emit) error {
	for _, d := range c.space.devs {
		k := ondisk.Key{Objectid: 0, Type: ondisk.TypePersistentItem, Offset: uint64(d.id)}
		if err := add(k, ondisk.DevStats{}.Append(nil)); err != nil {
			return err
		}
	}
	type item struct {
		k ondisk.Key
		e ondisk.DevExtent
	}
	var items []item
	for i := range c.space.areas {
		a := &c.space.areas[i]
		for _, s := range a.Stripes {
			items = append(items, item{
				ondisk.Key{Objectid: uint64(s.DevID), Type: ondisk.TypeDevExtent, Offset: s.Offset},
				ondisk.DevExtent{
					ChunkTree: ondisk.ChunkTree, ChunkObjectid: ondisk.FirstChunkTreeObjectid, ChunkOffset: a.Logical,
					Length: a.DevExtentLen(), ChunkTreeUUID: c.b.p.chunkTree,
				},
			})
		}
	}
	slices.SortFunc(items, func(a, b item) int { return a.k.Compare(b.k) })
	for _, i := range items {
		if err := add(i.k, i.e.Append(nil)); err != nil {
			return err
		}
	}
	return nil
}

// extentItems gives all extents, and the block groups if they have no tree of their own, in the order of addresses.
func (c *closing) extentItems(add emit) error {
	old, taken := c.old, c.taken
	groups := c.space.areas
	if c.b.hasGroupTree() {
		groups = nil
	}
	var buf []byte
	for len(old)+len(taken)+len(groups) > 0 {
		var next extent
		switch {
		case len(old) > 0 && (len(taken) == 0 || old[0].at < taken[0].at):
			next = old[0]
		case len(taken) > 0:
			next = taken[0]
		default:
			next.at = ^ondisk.Bytenr(0)
		}
		// A block group sorts behind the extent at its own start.
		if len(groups) > 0 && groups[0].Logical < next.at {
			if err := addGroup(&groups[0], add); err != nil {
				return err
			}
			groups = groups[1:]
			continue
		}
		var k ondisk.Key
		k, buf = c.item(next, buf[:0])
		if err := add(k, buf); err != nil {
			return err
		}
		if len(old) > 0 && old[0].at == next.at {
			old = old[1:]
		} else {
			taken = taken[1:]
		}
	}
	return nil
}

// item gives key and body of an extent's item.
func (c *closing) item(e extent, buf []byte) (ondisk.Key, []byte) {
	head, ref := ondisk.ExtentItem{Refs: 1, Generation: generation, Flags: ondisk.ExtentFlagTreeBlock}, ondisk.InlineRef{Root: e.owner}
	k := ondisk.Key{Objectid: uint64(e.at), Type: ondisk.TypeMetadataItem, Offset: uint64(e.level)}
	ref.Type = ondisk.TypeTreeBlockRef
	switch {
	case e.data:
		k.Type, k.Offset = ondisk.TypeExtentItem, e.n
		head.Flags = ondisk.ExtentFlagData
		ref.Type, ref.Objectid, ref.Offset, ref.Count = ondisk.TypeExtentDataRef, e.ino, e.off, 1
	case c.b.first != nil: // the older form tells more of the block
		k.Type, k.Offset = ondisk.TypeExtentItem, e.n
		return k, ref.Append(append(c.b.first[e.at].Append(head.Append(buf)), e.level))
	}
	return k, ref.Append(head.Append(buf))
}

func addGroup(a *area, add emit) error {
	g := ondisk.BlockGroupItem{Used: a.usedBytes(), ChunkObjectid: ondisk.FirstChunkTreeObjectid, Flags: a.Type}
	return add(ondisk.Key{Objectid: uint64(a.Logical), Type: ondisk.TypeBlockGroupItem, Offset: a.Length}, g.Append(nil))
}

func (c *closing) groupItems(add emit) error {
	for i := range c.space.areas {
		if err := addGroup(&c.space.areas[i], add); err != nil {
			return err
		}
	}
	return nil
}

func (c *closing) freeItems(add emit) error {
	for i := range c.space.areas {
		a := &c.space.areas[i]
		free := a.free()
		info := ondisk.FreeSpaceInfo{ExtentCount: uint32(len(free))}
		if err := add(ondisk.Key{Objectid: uint64(a.Logical), Type: ondisk.TypeFreeSpaceInfo, Offset: a.Length}, info.Append(nil)); err != nil {
			return err
		}
		for _, s := range free {
			if err := add(ondisk.Key{Objectid: uint64(s.from), Type: ondisk.TypeFreeSpaceExtent, Offset: uint64(s.to - s.from)}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// relocItems gives the empty directory that the data relocation tree consists of.
func (c *closing) relocItems(add emit) error {
	return addEmptyRoot(c.b.p, add)
}

// addEmptyRoot gives the two items of an empty root directory.
func addEmptyRoot(p *plan, add emit) error {
	dir := ondisk.InodeItem{Generation: generation, Nlink: 1, Mode: modeDir | 0o755, Atime: p.now, Ctime: p.now, Mtime: p.now, Otime: p.now}
	if err := add(ondisk.Key{Objectid: firstIno, Type: ondisk.TypeInodeItem}, dir.Append(nil)); err != nil {
		return err
	}
	return add(ondisk.Key{Objectid: firstIno, Type: ondisk.TypeInodeRef, Offset: firstIno}, ondisk.AppendInodeRef(nil, ondisk.InodeRef{Name: []byte("..")}))
}

func (c *closing) uuidItems(add emit) error {
	type item struct {
		k  ondisk.Key
		id ondisk.TreeID
	}
	var items []item
	for _, s := range c.b.subvols() {
		k := ondisk.Key{Objectid: binary.LittleEndian.Uint64(s.uuid[:8]), Type: ondisk.TypeUUIDSubvol, Offset: binary.LittleEndian.Uint64(s.uuid[8:])}
		items = append(items, item{k, s.id})
	}
	slices.SortFunc(items, func(a, b item) int { return a.k.Compare(b.k) })
	for _, i := range items {
		if err := add(i.k, binary.LittleEndian.AppendUint64(nil, uint64(i.id))); err != nil {
			return err
		}
	}
	return nil
}

// rootItems gives the root tree: all other trees, how subvolumes hang together, and which one is the default.
func (c *closing) rootItems(add emit) error {
	type item struct {
		k    ondisk.Key
		body []byte
	}
	var items []item
	put := func(id uint64, typ ondisk.KeyType, off uint64, body []byte) {
		items = append(items, item{ondisk.Key{Objectid: id, Type: typ, Offset: off}, body})
	}
	for i := range c.plans {
		if id := c.plans[i].id; id != ondisk.ChunkTree && id != ondisk.RootTree {
			put(uint64(id), ondisk.TypeRootItem, 0, c.b.rootItem(c.plans[i].tree()).Append(nil))
		}
	}
	for _, t := range c.b.trees {
		put(uint64(t.id), ondisk.TypeRootItem, 0, c.b.rootItem(t).Append(nil))
	}
	start := ondisk.FSTree
	for _, s := range c.b.subvols() {
		if s.isDefault {
			start = s.id
		}
		if s.parent != 0 {
			ref := ondisk.RootRef{Dirid: s.dir, Sequence: s.index, Name: []byte(s.name)}.Append(nil)
			put(uint64(s.parent), ondisk.TypeRootRef, uint64(s.id), ref)
			put(uint64(s.id), ondisk.TypeRootBackref, uint64(s.parent), ref)
		}
	}
	const dir = ondisk.RootDirObjectid
	name := []byte("default")
	put(uint64(ondisk.FSTree), ondisk.TypeInodeRef, dir, ondisk.AppendInodeRef(nil, ondisk.InodeRef{Name: name}))
	now := c.b.p.now
	inode := ondisk.InodeItem{
		Generation: generation, Nbytes: uint64(c.b.p.nodesize), Nlink: 1, Mode: modeDir | 0o755, Atime: now, Ctime: now, Mtime: now, Otime: now,
	}
	put(dir, ondisk.TypeInodeItem, 0, inode.Append(nil))
	put(dir, ondisk.TypeInodeRef, dir, ondisk.AppendInodeRef(nil, ondisk.InodeRef{Name: []byte("..")}))
	location := ondisk.Key{Objectid: uint64(start), Type: ondisk.TypeRootItem}
	if start == ondisk.FSTree {
		location.Offset = ^uint64(0)
	}
	put(dir, ondisk.TypeDirItem, uint64(checksum.NameHash(name)), ondisk.AppendDirEntry(nil, ondisk.DirEntry{Location: location, Type: ondisk.FTDir, Name: name}))
	slices.SortFunc(items, func(a, b item) int { return a.k.Compare(b.k) })
	for _, i := range items {
		if err := add(i.k, i.body); err != nil {
			return err
		}
	}
	return nil
}

// rootItem describes a tree.
func (b *builder) rootItem(t tree) ondisk.RootItem {
	r := ondisk.RootItem{
		Inode:      ondisk.InodeItem{Generation: 1, Size: 3, Nbytes: uint64(b.p.nodesize), Nlink: 1, Mode: modeDir | 0o755},
		Generation: generation, GenerationV2: generation, Bytenr: t.root, Level: t.level, BytesUsed: t.blocks * uint64(b.p.nodesize), Refs: 1,
	}
	if t.id == ondisk.DataRelocTree {
		r.RootDirid = firstIno
	}
	for _, s := range b.subvols() {
		if s.id != t.id {
			continue
		}
		r.RootDirid, r.UUID, r.Ctime, r.Otime = firstIno, s.uuid, b.p.now, b.p.now
		r.Inode.Flags = ondisk.InodeRootItemInit
		r.Ctransid, r.Otransid = generation, generation
		if s.readOnly {
			r.Flags |= ondisk.RootFlagReadonly
		}
	}
	return r
}
