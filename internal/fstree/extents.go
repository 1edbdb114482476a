package fstree

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Piece is an extent at a place of a file.
type Piece struct {
	Off    uint64
	Extent ondisk.FileExtent
}

// bytes is what a piece counts for in nbytes.
func (p Piece) bytes() int64 {
	if p.Extent.Type != ondisk.ExtentInline && p.Extent.DiskBytenr == 0 {
		return 0
	}
	return int64(Span(p.Extent))
}

func (p Piece) end() uint64 { return p.Off + Span(p.Extent) }

func extentKey(ino, off uint64) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData, Offset: off}
}

// refer changes the references that an EXTENT_DATA item at off holds.
func (t *Tree) refer(ino, off uint64, e ondisk.FileExtent, delta int32) error {
	if e.Type == ondisk.ExtentInline || e.DiskBytenr == 0 {
		return nil
	}
	return t.tx.AddRef(ref.Change{Delta: delta, Ref: ref.Ref{
		At: e.DiskBytenr, Len: e.DiskNumBytes, Kind: ref.KindData, Root: t.id, Ino: ino, Offset: off - e.Offset,
	}})
}

// ReplaceExtents puts pieces, sorted and inside [from, to), in the place of what
// the file has in that range. Extents that reach out of the range keep the rest.
// from and to are multiples of the sector size. It gives the change of the
// inode's nbytes, which the caller writes with the inode. An error aborts the
// transaction.
func (t *Tree) ReplaceExtents(ctx context.Context, ino, from, to uint64, pieces []Piece) (nbytes int64, err error) {
	var old []Piece
	err = Extents(ctx, t.t, ino, from, to, func(off uint64, e ondisk.FileExtent) error {
		e.Inline = nil
		old = append(old, Piece{off, e})
		return nil
	})
	if err != nil {
		return 0, t.tx.Fail(err)
	}
	r := replacement{t: t, ino: ino, from: from, to: to}
	if err := r.run(ctx, old, pieces); err != nil {
		return 0, t.tx.Fail(place(t.t, ino, err))
	}
	return r.nbytes, nil
}

// replacement gathers the changes of one ReplaceExtents.
type replacement struct {
	t        *Tree
	ino      uint64
	from, to uint64
	ops      []btree.Op
	nbytes   int64
}

func (r *replacement) run(ctx context.Context, old, pieces []Piece) error {
	var tail *Piece
	for _, p := range old {
		for len(pieces) > 0 && pieces[0].Off < p.Off {
			if err := r.add(pieces[0]); err != nil {
				return err
			}
			pieces = pieces[1:]
		}
		again := len(pieces) > 0 && pieces[0].Off == p.Off
		rest, err := r.cut(p, again)
		if err != nil {
			return err
		}
		if rest != nil {
			tail = rest
		}
	}
	for _, p := range pieces {
		if err := r.add(p); err != nil {
			return err
		}
	}
	if tail != nil {
		r.op(btree.OpInsert, *tail)
	}
	return r.t.t.Apply(ctx, r.ops)
}

func (r *replacement) op(kind btree.OpKind, p Piece) {
	op := btree.Op{Kind: kind, Key: extentKey(r.ino, p.Off)}
	if kind != btree.OpDelete {
		op.Data = p.Extent.Append(nil)
	}
	r.ops = append(r.ops, op)
}

// add stores a new piece.
func (r *replacement) add(p Piece) error {
	r.op(btree.OpPut, p)
	r.nbytes += p.bytes()
	return r.t.refer(r.ino, p.Off, p.Extent, 1)
}

// cut takes the range out of an old piece and gives what is left after the
// range. again tells that a new piece will have the same key.
func (r *replacement) cut(p Piece, again bool) (rest *Piece, err error) {
	if p.Extent.Type == ondisk.ExtentInline && (p.Off < r.from || p.end() > r.to) {
		return nil, corrupt(r.t.t, extentKey(r.ino, p.Off), "inline data longer than a sector", p.Extent.RAMBytes)
	}
	r.nbytes -= p.bytes()
	holders := int32(-1) // items that point to the extent: one less, so far
	if p.Off < r.from {
		left := p
		left.Extent.NumBytes = r.from - p.Off
		left.fitHole()
		r.op(btree.OpUpdate, left)
		r.nbytes += left.bytes()
		holders++
	} else if !again {
		r.op(btree.OpDelete, p)
	}
	if p.end() > r.to {
		skip := r.to - p.Off
		right := Piece{r.to, p.Extent}
		right.Extent.NumBytes -= skip
		if p.Extent.DiskBytenr != 0 {
			right.Extent.Offset += skip
		}
		right.fitHole()
		r.nbytes += right.bytes()
		rest = &right
		holders++
	}
	if holders == 0 {
		return rest, nil
	}
	return rest, r.t.refer(r.ino, p.Off, p.Extent, holders)
}

// fitHole makes the length of a hole item what such items have.
func (p *Piece) fitHole() {
	if p.Extent.DiskBytenr == 0 && p.Extent.Type != ondisk.ExtentInline {
		p.Extent.RAMBytes = p.Extent.NumBytes
		p.Extent.Offset = 0
	}
}

// TrimExtents drops the extents of a file from from on, at most n items and the
// last ones first. It gives the change of nbytes and the offset from which on
// nothing is left: from, when all was dropped.
func (t *Tree) TrimExtents(ctx context.Context, ino, from uint64, n int) (nbytes int64, at uint64, err error) {
	c, err := t.t.SeekLast(ctx, extentKey(ino, ^uint64(0)))
	if err != nil {
		return 0, 0, place(t.t, ino, err)
	}
	at = ^uint64(0)
	for c.Valid() && c.Key().Objectid == ino && c.Key().Type == ondisk.TypeExtentData && c.Key().Offset > from && n > 0 {
		at = c.Key().Offset
		n--
		if err := c.Prev(ctx); err != nil {
			return 0, 0, place(t.t, ino, err)
		}
	}
	if n > 0 {
		at = from
	}
	nbytes, err = t.ReplaceExtents(ctx, ino, at, ^uint64(0), nil)
	return nbytes, at, err
}
