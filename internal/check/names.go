package check

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// nameKey is a name in a directory.
type nameKey struct {
	dir  uint64
	name string
}

// nameFacts is what the three places say of a name.
type nameFacts struct {
	item, indexed, ref bool
	itemTo, indexTo    ondisk.Key
	itemType, idxType  uint8
	index, refIndex    uint64
	refIno             uint64
}

// judgeNames finds the names of a subvolume that are not told three times in the
// same way. It is called when sums say that there are some.
func (c *checker) judgeNames(ctx context.Context, g grove) {
	t := c.v.TreeAt(g.id, g.item)
	facts := map[nameKey]*nameFacts{}
	at := func(dir uint64, name []byte) *nameFacts {
		k := nameKey{dir, string(name)}
		if facts[k] == nil {
			facts[k] = &nameFacts{}
		}
		return facts[k]
	}
	modes := map[uint64]uint32{}
	c.each(ctx, t, func(it item) {
		switch it.key.Type {
		case ondisk.TypeInodeItem:
			if in, err := ondisk.DecodeInodeItem(it.data); err == nil {
				modes[it.key.Objectid] = in.Mode
			}
		case ondisk.TypeInodeRef:
			rs, _ := ondisk.DecodeInodeRefs(it.data)
			for _, r := range rs {
				f := at(it.key.Offset, r.Name)
				f.ref, f.refIndex, f.refIno = true, r.Index, it.key.Objectid
			}
		case ondisk.TypeInodeExtref:
			rs, _ := ondisk.DecodeInodeExtrefs(it.data)
			for _, r := range rs {
				f := at(r.Parent, r.Name)
				f.ref, f.refIndex, f.refIno = true, r.Index, it.key.Objectid
			}
		case ondisk.TypeDirItem:
			es, _ := ondisk.DecodeDirEntries(it.data)
			for _, e := range es {
				f := at(it.key.Objectid, e.Name)
				f.item, f.itemTo, f.itemType = true, e.Location, e.Type&0x7f
			}
		case ondisk.TypeDirIndex:
			es, _ := ondisk.DecodeDirEntries(it.data)
			for _, e := range es {
				f := at(it.key.Objectid, e.Name)
				if f.indexed {
					c.rep.bad(inoPlace(&g, it.key.Objectid), "", "name %q has two indexes, %d and %d", e.Name, f.index, it.key.Offset)
				}
				f.indexed, f.indexTo, f.idxType, f.index = true, e.Location, e.Type&0x7f, it.key.Offset
			}
		}
	})
	keys := make([]nameKey, 0, len(facts))
	for k := range facts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b nameKey) int {
		return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.name, b.name))
	})
	found := false
	for _, k := range keys {
		if k.dir == ondisk.FirstFreeObjectid && k.name == ".." && facts[k].refIno == k.dir {
			continue
		}
		if wrong := facts[k].wrong(modes); wrong != "" {
			found = true
			c.rep.bad(inoPlace(&g, k.dir), "the name can not be listed, opened or deleted", "name %q: %s", k.name, wrong)
		}
	}
	if !found {
		c.rep.bad(Place{Tree: g.id, Slot: -1}, "", "names by hash, by index and in inodes do not agree")
	}
}

// wrong says what is wrong with a name, "" if nothing.
func (f *nameFacts) wrong(modes map[uint64]uint32) string {
	sub := f.indexTo.Type == ondisk.TypeRootItem || f.itemTo.Type == ondisk.TypeRootItem
	switch {
	case !f.item:
		return "no entry by hash (DIR_ITEM)"
	case !f.indexed:
		return "no entry by index (DIR_INDEX)"
	case f.itemTo.Objectid != f.indexTo.Objectid || f.itemTo.Type != f.indexTo.Type:
		return "entries by hash and by index lead to different inodes"
	case f.itemType != f.idxType:
		return "entries by hash and by index tell different types"
	case sub:
		return ""
	case !f.ref:
		return "the inode does not know it (INODE_REF)"
	case f.refIno != f.indexTo.Objectid:
		return "another inode thinks it is its name"
	case f.refIndex != f.index:
		return "entry and inode tell different indexes"
	case f.idxType != fileType(modes[f.refIno]):
		return "entry and inode tell different types"
	}
	return ""
}

// paths fills in the paths of inodes in findings.
func (c *checker) paths(ctx context.Context) {
	const limit = 200 // a damaged volume may have many, and each costs searches
	for i := range c.rep.rep.Findings {
		f := &c.rep.rep.Findings[i]
		if f.Place.Ino == 0 || i > limit {
			continue
		}
		for _, t := range c.tops {
			if t.id == f.Place.Tree {
				f.Place.Path = c.pathOf(ctx, t, f.Place.Ino)
				break
			}
		}
	}
}

// pathOf gives a path of an inode within its subvolume, "" if none is found.
func (c *checker) pathOf(ctx context.Context, t top, ino uint64) string {
	tree := c.v.TreeAt(t.id, t.item)
	path := ""
	for range 100 {
		if ino == ondisk.FirstFreeObjectid {
			return path
		}
		cur, err := tree.Seek(ctx, ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeRef})
		if err != nil || !cur.Valid() || cur.Key().Objectid != ino || cur.Key().Type != ondisk.TypeInodeRef {
			return ""
		}
		rs, err := ondisk.DecodeInodeRefs(cur.Data())
		if err != nil || len(rs) == 0 {
			return ""
		}
		if path != "" {
			path = "/" + path
		}
		path, ino = string(rs[0].Name)+path, cur.Key().Offset
	}
	return ""
}
