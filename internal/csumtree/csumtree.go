// Package csumtree finds and adds the checksums of data: the items of tree 7.
//
// What must hold: an item holds the checksums of consecutive sectors, items do
// not overlap, none is larger than Layout.MaxEntries, and every sum found is of
// the sector asked for. Removing sums is the business of package extent, which
// does it when an extent is freed.
package csumtree

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Layout is what a volume says about its checksums.
type Layout struct {
	Sectorsize uint32
	Nodesize   uint32
	Size       int // bytes of one checksum
}

// MaxEntries is the number of checksums that one item may hold.
func (l Layout) MaxEntries() int {
	return (int(l.Nodesize)-ondisk.HeaderSize-50)/l.Size - 1
}

func key(at ondisk.Bytenr) ondisk.Key {
	return ondisk.Key{Objectid: ondisk.CsumObjectid, Type: ondisk.TypeExtentCsum, Offset: uint64(at)}
}

func isCsum(k ondisk.Key) bool {
	return k.Objectid == ondisk.CsumObjectid && k.Type == ondisk.TypeExtentCsum
}

// Sums are the checksums of consecutive sectors; some may be missing.
type Sums struct {
	size    int
	sums    []byte
	missing []bool // nil: none is missing
}

// At gives the checksum of the i-th sector, and whether there is one.
func (s *Sums) At(i int) ([]byte, bool) {
	if s.missing != nil && s.missing[i] {
		return nil, false
	}
	return s.sums[i*s.size : (i+1)*s.size], true
}

// Len is the number of sectors asked for.
func (s *Sums) Len() int { return len(s.sums) / s.size }

// Missing tells how many of the checksums are not there.
func (s *Sums) Missing() int {
	n := 0
	for _, m := range s.missing {
		if m {
			n++
		}
	}
	return n
}

// Lookup finds the checksums of n sectors from at. The caller bounds n.
func Lookup(ctx context.Context, t *btree.Tree, l Layout, at ondisk.Bytenr, n int) (*Sums, error) {
	s := &Sums{size: l.Size, sums: make([]byte, n*l.Size)}
	found, err := s.fill(ctx, t, l, at, n)
	if err != nil {
		return nil, err
	}
	if found == n {
		s.missing = nil
	}
	return s, nil
}

// fill copies what the tree has and tells how many that were.
func (s *Sums) fill(ctx context.Context, t *btree.Tree, l Layout, at ondisk.Bytenr, n int) (int, error) {
	end := at + ondisk.Bytenr(n)*ondisk.Bytenr(l.Sectorsize)
	c, err := t.SeekLast(ctx, key(at))
	if err != nil {
		return 0, err
	}
	if !c.Valid() || !isCsum(c.Key()) {
		if c, err = t.Seek(ctx, key(at)); err != nil {
			return 0, err
		}
	}
	found, next := 0, 0
	for c.Valid() && isCsum(c.Key()) && ondisk.Bytenr(c.Key().Offset) < end {
		from, count, err := within(l, c, at, end)
		if err != nil {
			return 0, err
		}
		if count > 0 {
			to := int((max(ondisk.Bytenr(c.Key().Offset), at) - at) / ondisk.Bytenr(l.Sectorsize))
			s.skip(next, to, n)
			copy(s.sums[to*l.Size:], c.Data()[from*l.Size:(from+count)*l.Size])
			found, next = found+count, to+count
		}
		if err := c.Next(ctx); err != nil {
			return 0, err
		}
	}
	s.skip(next, n, n)
	return found, nil
}

// skip marks the sums [from, to) missing.
func (s *Sums) skip(from, to, n int) {
	if from >= to {
		return
	}
	if s.missing == nil {
		s.missing = make([]bool, n)
	}
	for i := from; i < to; i++ {
		s.missing[i] = true
	}
}

// within tells which sums of the item under c are of sectors in [at, end).
func within(l Layout, c *btree.Cursor, at, end ondisk.Bytenr) (from, count int, err error) {
	start, data := ondisk.Bytenr(c.Key().Offset), c.Data()
	ss := ondisk.Bytenr(l.Sectorsize)
	if len(data)%l.Size != 0 || start%ss != 0 {
		return 0, 0, corrupt(c, "checksum item is not whole", len(data))
	}
	n := len(data) / l.Size
	if start < at {
		from = int(min((at-start)/ss, ondisk.Bytenr(n)))
	}
	stop := ondisk.Bytenr(n)
	if last := (end - start) / ss; last < stop {
		stop = last
	}
	return from, max(int(stop)-from, 0), nil
}

func corrupt(c *btree.Cursor, reason string, got any) error {
	return &ondisk.CorruptError{
		What: "checksum item " + c.Key().String(), Tree: ondisk.CsumTree,
		Bytenr: c.Leaf().Bytenr(), Slot: c.Slot(), Reason: reason, Got: got,
	}
}

// Insert adds the checksums of the sectors from at, of which there must be none
// yet. They go to the end of the item before when that ends at at and has room,
// so that a file written piece by piece gets full items. Any error means that
// the transaction must be aborted.
func Insert(ctx context.Context, t *btree.Tree, l Layout, at ondisk.Bytenr, sums []byte) error {
	n, err := extend(ctx, t, l, at, sums)
	if err != nil {
		return err
	}
	for sums, at = sums[n:], l.after(at, n); len(sums) > 0; sums, at = sums[n:], l.after(at, n) {
		n = min(len(sums), l.MaxEntries()*l.Size)
		if err := t.Insert(ctx, key(at), sums[:n]); err != nil {
			return err
		}
	}
	return nil
}

// after is the address that follows n bytes of sums.
func (l Layout) after(at ondisk.Bytenr, n int) ondisk.Bytenr {
	return at + ondisk.Bytenr(n/l.Size)*ondisk.Bytenr(l.Sectorsize)
}

const overlap = "checksums of this sector are there already"

// extend appends to the item before at, and tells how many bytes went there.
func extend(ctx context.Context, t *btree.Tree, l Layout, at ondisk.Bytenr, sums []byte) (int, error) {
	c, err := t.SeekLast(ctx, key(at))
	if err != nil || !c.Valid() || !isCsum(c.Key()) || len(sums) == 0 {
		return 0, err
	}
	have := c.Data()
	end := l.after(ondisk.Bytenr(c.Key().Offset), len(have))
	if end > at {
		return 0, corrupt(c, overlap, at)
	}
	room := l.MaxEntries()*l.Size - len(have)
	if end != at || room <= 0 {
		return 0, nil
	}
	n := min(room, len(sums))
	k := c.Key()
	item := append(append(make([]byte, 0, len(have)+n), have...), sums[:n]...)
	return n, t.Update(ctx, k, item)
}
