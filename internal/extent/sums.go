package extent

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// span is an address range.
type span struct{ from, to ondisk.Bytenr }

// dropSums deletes the checksums of sorted, disjoint ranges, in one pass over the checksum tree.
func (x *Extents) dropSums(ctx context.Context, gone []span) error {
	if len(gone) == 0 {
		return nil
	}
	t, err := x.cfg.Tree(ctx, ondisk.CsumTree)
	if err != nil {
		return err
	}
	key := func(at ondisk.Bytenr) ondisk.Key {
		return ondisk.Key{Objectid: ondisk.CsumObjectid, Type: ondisk.TypeExtentCsum, Offset: uint64(at)}
	}
	c, err := t.SeekLast(ctx, key(gone[0].from))
	if err == nil && !c.Valid() {
		c, err = t.Seek(ctx, key(gone[0].from))
	}
	var ops []btree.Op
	for err == nil && c.Valid() && len(gone) > 0 {
		k := c.Key()
		if k.Objectid != ondisk.CsumObjectid || k.Type != ondisk.TypeExtentCsum {
			err = c.Next(ctx) // stands before the checksums
			continue
		}
		at := ondisk.Bytenr(k.Offset)
		end := at + ondisk.Bytenr(uint64(len(c.Data())/x.cfg.CsumSize)*uint64(x.cfg.Sectorsize))
		for len(gone) > 0 && gone[0].to <= at {
			gone = gone[1:]
		}
		if len(gone) == 0 {
			break
		}
		if end <= gone[0].from {
			if c, err = x.nextSums(ctx, t, c, key(gone[0].from)); err != nil {
				break
			}
			continue
		}
		ops = x.cutSums(ops, k, c.Data(), at, end, gone)
		err = c.Next(ctx)
	}
	if err != nil || len(ops) == 0 {
		return err
	}
	return t.Apply(ctx, ops)
}

// nextSums moves on to the last item that begins at or before key, if that is not behind the cursor already.
func (x *Extents) nextSums(ctx context.Context, t *btree.Tree, c *btree.Cursor, key ondisk.Key) (*btree.Cursor, error) {
	was := c.Key()
	if err := c.Next(ctx); err != nil || !c.Valid() || !c.Key().Less(key) {
		return c, err
	}
	n, err := t.SeekLast(ctx, key)
	if err != nil {
		return nil, err
	}
	if !n.Valid() || !was.Less(n.Key()) {
		return nil, errors.New("extent: checksum tree changed during a pass")
	}
	return n, nil
}

// cutSums adds the operations that leave of an item only what no range covers.
func (x *Extents) cutSums(ops []btree.Op, k ondisk.Key, body []byte, at, end ondisk.Bytenr, gone []span) []btree.Op {
	byteAt := func(a ondisk.Bytenr) int { return int(uint64(a-at)/uint64(x.cfg.Sectorsize)) * x.cfg.CsumSize }
	first := len(ops)
	ops = append(ops, btree.Op{Kind: btree.OpDelete, Key: k})
	from := at
	for i := 0; from < end; i++ {
		to := end
		if i < len(gone) {
			to = min(end, max(from, gone[i].from))
		}
		if to > from {
			part := body[byteAt(from):byteAt(to)]
			part = append([]byte(nil), part...) // Apply moves the item it lies in
			if from == at {
				ops[first] = btree.Op{Kind: btree.OpUpdate, Key: k, Data: part}
			} else {
				nk := k
				nk.Offset = uint64(from)
				ops = append(ops, btree.Op{Kind: btree.OpInsert, Key: nk, Data: part})
			}
		}
		if i >= len(gone) {
			break
		}
		from = max(from, gone[i].to)
	}
	return ops
}
