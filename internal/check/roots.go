package check

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// top is a tree as the root tree tells.
type top struct {
	id   ondisk.TreeID
	key  ondisk.Key
	item ondisk.RootItem
}

// dying tells whether the tree is a deleted subvolume.
func (t top) dying() bool { return t.id.IsSubvolume() && t.item.Refs == 0 }

// readRoots collects the root items.
func (c *checker) readRoots(ctx context.Context) {
	ok := c.each(ctx, c.v.RootTree(), func(it item) {
		if it.key.Type != ondisk.TypeRootItem {
			return
		}
		r, err := ondisk.DecodeRootItem(it.data)
		if err != nil {
			c.rep.bad(it.place(ondisk.RootTree), "", "%v", err)
			return
		}
		c.tops = append(c.tops, top{ondisk.TreeID(it.key.Objectid), it.key, r})
	})
	c.walkOK = c.walkOK && ok
	want := []ondisk.TreeID{ondisk.ExtentTree, ondisk.DevTree, ondisk.FSTree, ondisk.CsumTree, ondisk.DataRelocTree}
	if c.sb.CompatRO&ondisk.CompatROFreeSpaceTree != 0 {
		want = append(want, ondisk.FreeSpaceTree)
	}
	if c.sb.CompatRO&ondisk.CompatROBlockGroupTree != 0 {
		want = append(want, ondisk.BlockGroupTree)
	}
	for _, id := range want {
		if c.topOf(id) == nil {
			c.rep.bad(Place{Tree: id, Slot: -1}, "Linux refuses to mount it", "there is no such tree")
		}
	}
	for i, t := range c.tops {
		at := Place{Tree: t.id, Slot: -1, Key: t.key}
		if !t.id.IsShareable() && t.id != ondisk.DataRelocTree && t.key.Offset != 0 {
			c.rep.bad(at, "Linux does not find it", "root item of a system tree with an offset")
		}
		if t.id.IsSubvolume() && t.item.RootDirid != ondisk.FirstFreeObjectid {
			c.rep.bad(at, "the subvolume can not be opened", "root directory is inode %d", t.item.RootDirid)
		}
		if i > 0 && c.tops[i-1].id == t.id && t.id != ondisk.RelocTree {
			c.rep.warn(at, "", "more than one root item")
		}
	}
}

// topOf gives the last root item of a tree, nil if there is none.
func (c *checker) topOf(id ondisk.TreeID) *top {
	for i := len(c.tops) - 1; i >= 0; i-- {
		if c.tops[i].id == id {
			return &c.tops[i]
		}
	}
	return nil
}

// subRef is one place of a subvolume, as ROOT_REF or ROOT_BACKREF tells.
type subRef struct {
	parent, child ondisk.TreeID
	dir, index    uint64
	name          string
}

// judgeRoots judges how subvolumes hang together.
func (c *checker) judgeRoots(ctx context.Context) {
	refs, backs := map[subRef]bool{}, map[subRef]bool{}
	orphans := map[ondisk.TreeID]bool{}
	places := map[ondisk.TreeID]uint32{} // of each child
	c.each(ctx, c.v.RootTree(), func(it item) {
		a, b := ondisk.TreeID(it.key.Objectid), ondisk.TreeID(it.key.Offset)
		switch it.key.Type {
		case ondisk.TypeRootRef, ondisk.TypeRootBackref:
			r, err := ondisk.DecodeRootRef(it.data)
			if err != nil {
				c.rep.bad(it.place(ondisk.RootTree), "", "%v", err)
				return
			}
			if it.key.Type == ondisk.TypeRootRef {
				refs[subRef{a, b, r.Dirid, r.Sequence, string(r.Name)}] = true
				places[b]++
			} else {
				backs[subRef{b, a, r.Dirid, r.Sequence, string(r.Name)}] = true
			}
		case ondisk.TypeOrphanItem:
			orphans[b] = true
		}
	})
	for r := range refs {
		if !backs[r] {
			c.rep.bad(Place{Tree: r.child, Slot: -1}, "the subvolume can not be found by its id", "no ROOT_BACKREF for its place %q in %v", r.name, r.parent)
		}
		c.judgePlace(ctx, r)
	}
	for r := range backs {
		if !refs[r] {
			c.rep.bad(Place{Tree: r.child, Slot: -1}, "the parent could be deleted with it inside", "no ROOT_REF for its place %q in %v", r.name, r.parent)
		}
	}
	for _, t := range c.tops {
		c.judgeTop(t, places[t.id], orphans[t.id])
	}
	c.judgeUUIDs(ctx)
}

// judgeTop compares a root item with what leads to the tree.
func (c *checker) judgeTop(t top, places uint32, orphan bool) {
	at := Place{Tree: t.id, Slot: -1, Key: t.key}
	switch {
	case !t.id.IsSubvolume():
	case t.dying() && !orphan:
		c.rep.bad(at, "its space is never given back", "deleted, but there is no orphan item to finish it")
	case t.dying() && places > 0:
		c.rep.bad(at, "", "deleted, but still has a place")
	case t.dying() || t.id == ondisk.FSTree:
	case places == 0 && !orphan:
		c.rep.bad(at, "nobody can reach it", "no directory refers to the subvolume")
	case places > 0 && t.item.Refs != places:
		c.rep.bad(at, "", "says %d references, has %d places", t.item.Refs, places)
	}
	if t.item.GenerationV2 != 0 && t.item.GenerationV2 != t.item.Generation && t.id.IsSubvolume() {
		c.rep.warn(at, "UUIDs and times of the subvolume are void", "generation_v2 %d differs from generation %d", t.item.GenerationV2, t.item.Generation)
	}
}

// judgePlace looks for the directory entry that a ROOT_REF tells of.
func (c *checker) judgePlace(ctx context.Context, r subRef) {
	at := Place{Tree: r.child, Slot: -1}
	parent := c.topOf(r.parent)
	if parent == nil || c.topOf(r.child) == nil {
		c.rep.bad(at, "", "its place %q is in %v, but one of them does not exist", r.name, r.parent)
		return
	}
	b, err := c.v.TreeAt(r.parent, parent.item).Get(ctx, ondisk.Key{Objectid: r.dir, Type: ondisk.TypeDirIndex, Offset: r.index})
	var unread *treeblock.ReadError
	if errors.As(err, &unread) {
		return // told already
	}
	loc, _, name, _, ok := entry(b)
	if err != nil || !ok || loc.Objectid != uint64(r.child) || loc.Type != ondisk.TypeRootItem || string(name) != r.name {
		c.rep.bad(at, "the subvolume can not be reached by its path", "%v has no entry %q for it at index %d of directory %d", r.parent, r.name, r.index, r.dir)
	}
}

// judgeUUIDs compares the uuid tree with the subvolumes, if it claims to be
// current.
func (c *checker) judgeUUIDs(ctx context.Context) {
	if c.sb.UUIDTreeGeneration != c.sb.Generation || c.topOf(ondisk.UUIDTree) == nil {
		return
	}
	t := c.tree(ctx, ondisk.UUIDTree)
	if t == nil {
		return
	}
	listed := map[ondisk.TreeID]ondisk.UUID{}
	whole := c.each(ctx, t, func(it item) {
		if it.key.Type != ondisk.TypeUUIDSubvol {
			return
		}
		var u ondisk.UUID
		le.PutUint64(u[:], it.key.Objectid)
		le.PutUint64(u[8:], it.key.Offset)
		for b := it.data; len(b) >= 8; b = b[8:] {
			id := ondisk.TreeID(le.Uint64(b))
			listed[id] = u
			if s := c.topOf(id); s == nil || s.item.UUID != u {
				c.rep.warn(it.place(ondisk.UUIDTree), "", "%v does not have UUID %v", id, u)
			}
		}
	})
	for _, s := range c.tops {
		if whole && s.id.IsSubvolume() && !s.dying() && !s.item.UUID.IsZero() && listed[s.id] != s.item.UUID {
			c.rep.warn(Place{Tree: s.id, Slot: -1}, "the subvolume can not be found by its UUID", "UUID %v is not in the uuid tree", s.item.UUID)
		}
	}
}

// logs judges the logs of what was synced after the last commit.
func (c *checker) logs(ctx context.Context) {
	if c.sb.LogRoot == 0 {
		return
	}
	var logs []ondisk.RootItem
	c.each(ctx, c.logTree(ondisk.RootItem{Bytenr: c.sb.LogRoot, Level: c.sb.LogRootLevel, Generation: c.sb.Generation + 1}), func(it item) {
		if it.key.Type != ondisk.TypeRootItem {
			return
		}
		if r, err := ondisk.DecodeRootItem(it.data); err == nil {
			logs = append(logs, r)
		}
	})
	for _, r := range logs {
		c.judgeLog(ctx, r)
	}
}

// judgeLog looks for data in a log without checksums. Its checksums come after
// the files in the order of keys, so it is read twice.
func (c *checker) judgeLog(ctx context.Context, r ondisk.RootItem) {
	var own ranges
	size := uint64(c.v.CsumType().Size())
	c.each(ctx, c.logTree(r), func(it item) {
		if it.key.Type == ondisk.TypeExtentCsum {
			own.add(it.key.Offset, it.key.Offset+uint64(len(it.data))/size*c.sector)
		}
	})
	nosum := map[uint64]bool{}
	c.each(ctx, c.logTree(r), func(it item) {
		switch it.key.Type {
		case ondisk.TypeInodeItem:
			in, err := ondisk.DecodeInodeItem(it.data)
			nosum[it.key.Objectid] = err == nil && in.Flags&ondisk.InodeNodatasum != 0
		case ondisk.TypeExtentData:
			e, err := ondisk.DecodeFileExtent(it.data)
			if err != nil || e.Type != ondisk.ExtentReg || e.DiskBytenr == 0 || nosum[it.key.Objectid] {
				return
			}
			at, n := uint64(e.DiskBytenr)+e.Offset, e.NumBytes
			if e.Compression != ondisk.CompressNone {
				at, n = uint64(e.DiskBytenr), e.DiskNumBytes
			}
			if own.covered(at, n)+c.sums.covered(at, n) < n {
				c.rep.bad(it.place(ondisk.LogTree), "reading the file after the replay fails", "data at %d has no checksums", at)
			}
		}
	})
}

// logTree opens a log.
func (c *checker) logTree(r ondisk.RootItem) *btree.Tree {
	return btree.New(c.store, ondisk.LogTree, btree.RootPtr{Bytenr: r.Bytenr, Generation: r.Generation, Level: r.Level}, nil)
}
