package extent

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Lookup answers for a sorted list of addresses what count and flags the extents there will have when the queue is
// applied. It is one sweep over the extent tree. out has the length of at.
func (x *Extents) Lookup(ctx context.Context, at []ondisk.Bytenr, out []ref.Info) error {
	t, err := x.cfg.Tree(ctx, ondisk.ExtentTree)
	if err != nil || len(at) == 0 {
		return err
	}
	if len(at) <= manyLookups {
		return x.lookup(ctx, t, at, out)
	}
	n := (len(at) + manyLookups - 1) / manyLookups
	return inParallel(n, func(i int) error {
		from, to := i*manyLookups, min(len(at), (i+1)*manyLookups)
		return x.lookup(ctx, t, at[from:to], out[from:to])
	})
}

// manyLookups is how many addresses one goroutine looks up in a row.
const manyLookups = 512

func (x *Extents) lookup(ctx context.Context, t *btree.Tree, at []ondisk.Bytenr, out []ref.Info) error {
	c, err := t.Seek(ctx, firstKey(at[0]))
	if err != nil {
		return err
	}
	for i, a := range at {
		if err := c.Advance(ctx, firstKey(a)); err != nil {
			return err
		}
		if out[i], err = infoAt(c, a); err != nil {
			return err
		}
		x.addQueued(a, &out[i])
	}
	return nil
}

// firstKey is not greater than the key of the extent item at the address.
func firstKey(at ondisk.Bytenr) ondisk.Key {
	return ondisk.Key{Objectid: uint64(at), Type: ondisk.TypeExtentItem}
}

func infoAt(c *btree.Cursor, at ondisk.Bytenr) (ref.Info, error) {
	info := ref.Info{At: at}
	if !c.Valid() {
		return info, nil
	}
	if k := c.Key(); k.Objectid != uint64(at) || k.Type != ondisk.TypeExtentItem && k.Type != ondisk.TypeMetadataItem {
		return info, nil
	}
	item, err := ondisk.DecodeExtentItem(c.Data())
	if err != nil {
		return info, err
	}
	info.Refs, info.Flags, info.Generation, info.Found = item.Refs, item.Flags, item.Generation, true
	return info, nil
}

// addQueued adds to what the tree says what the queue will do.
func (x *Extents) addQueued(at ondisk.Bytenr, info *ref.Info) {
	h := x.queue[at]
	if h == nil {
		return
	}
	if !info.Found && h.delta > 0 {
		info.Found, info.Generation = true, x.gen
		info.Flags = ondisk.ExtentFlagTreeBlock
		if h.changes[0].Kind.IsData() {
			info.Flags = ondisk.ExtentFlagData
		}
	}
	info.Refs = uint64(int64(info.Refs) + h.delta)
	if h.full {
		info.Flags |= ondisk.ExtentFlagFullBackref
	}
}
