package check

import (
	"context"
	"sort"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// extent is what is known about one extent. want, found and memo change while the
// trees are walked, with atomic operations only.
type extent struct {
	length uint64
	refs   uint64 // stated
	count  uint64 // recorded back references
	have   uint64 // their fingerprint
	found  uint64 // references found
	want   uint64 // their fingerprint
	memo   atomic.Pointer[memo]
	flags  uint16
	level  uint8
}

func (e *extent) block() bool { return e.flags&uint16(ondisk.ExtentFlagTreeBlock) != 0 }
func (e *extent) full() bool  { return e.flags&uint16(ondisk.ExtentFlagFullBackref) != 0 }

// table holds all extents by address. Addresses are apart, so that searching
// touches little memory.
type table struct {
	at  []uint64
	ext []*extent
	mem []extent // where the next extents go
}

// add appends an extent behind all others.
func (t *table) add(at uint64) *extent {
	if len(t.mem) == 0 {
		t.mem = make([]extent, 1024)
	}
	e := &t.mem[0]
	t.mem = t.mem[1:]
	t.at, t.ext = append(t.at, at), append(t.ext, e)
	return e
}

// find gives the extent that starts at an address, nil if there is none.
func (t *table) find(at ondisk.Bytenr) *extent {
	if i := t.index(at); i >= 0 {
		return t.ext[i]
	}
	return nil
}

// index is find for who wants a number, negative if there is none.
func (t *table) index(at ondisk.Bytenr) int {
	i := t.from(uint64(at))
	if i < len(t.at) && t.at[i] == uint64(at) {
		return i
	}
	return -1
}

// from gives the index of the first extent that starts at or after at.
func (t *table) from(at uint64) int {
	return sort.Search(len(t.at), func(i int) bool { return t.at[i] >= at })
}

// fingerprint hashes what makes a reference different from others to the same
// extent.
func fingerprint(r ref.Ref) uint64 {
	h := mix(uint64(r.Kind) + 0x9e3779b97f4a7c15)
	if r.Kind == ref.KindSharedBlock || r.Kind == ref.KindSharedData {
		return mix(h ^ uint64(r.Parent))
	}
	h = mix(h ^ uint64(r.Root))
	if r.Kind == ref.KindData {
		h = mix(mix(h^r.Ino) ^ r.Offset)
	}
	return h
}

// mix spreads the bits of v over all bits.
func mix(v uint64) uint64 {
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// record adds a back reference of the extent tree.
func (e *extent) record(r ref.Ref, count uint32) {
	e.count += uint64(count)
	e.have += fingerprint(r) * uint64(count)
}

// meet adds a reference found in a tree.
func (e *extent) meet(r ref.Ref) {
	atomic.AddUint64(&e.found, 1)
	atomic.AddUint64(&e.want, fingerprint(r))
}

// readExtents fills the table from the extent tree.
func (c *checker) readExtents(ctx context.Context) {
	t := c.tree(ctx, ondisk.ExtentTree)
	if t == nil {
		c.extentOK = false
		return
	}
	l := loader{c: c}
	c.extentOK = c.each(ctx, t, l.item)
}

// loader follows the extent tree from item to item.
type loader struct {
	c   *checker
	at  uint64 // of cur
	cur *extent
	end uint64
}

func (l *loader) item(it item) {
	switch it.key.Type {
	case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
		l.extent(it)
	case ondisk.TypeTreeBlockRef, ondisk.TypeSharedBlockRef, ondisk.TypeExtentDataRef, ondisk.TypeSharedDataRef:
		l.keyed(it)
	case ondisk.TypeBlockGroupItem:
		l.c.addGroup(it)
	default:
		l.c.rep.warn(it.place(ondisk.ExtentTree), "", "item of a type that does not belong here")
	}
}

func (l *loader) extent(it item) {
	e, err := ondisk.DecodeExtentItem(it.data)
	if err != nil {
		l.c.rep.bad(it.place(ondisk.ExtentTree), "", "%v", err)
		return
	}
	if it.key.Objectid < l.end {
		l.c.rep.bad(it.place(ondisk.ExtentTree), "two owners write over each other", "extent overlaps the one before, which ends at %d", l.end)
		if it.key.Objectid <= l.at && l.cur != nil {
			return
		}
	}
	x := l.c.ext.add(it.key.Objectid)
	x.length, x.refs, x.flags = it.key.Offset, e.Refs, uint16(e.Flags)
	rest := it.data[ondisk.ExtentItemSize:]
	switch {
	case it.key.Type == ondisk.TypeMetadataItem:
		x.length, x.level = l.c.node, uint8(it.key.Offset)
	case x.block() && len(rest) >= ondisk.TreeBlockInfoSize:
		x.level, rest = rest[ondisk.TreeBlockInfoSize-1], rest[ondisk.TreeBlockInfoSize:]
	}
	l.cur, l.at, l.end = x, it.key.Objectid, it.key.Objectid+x.length
	l.inline(it, rest)
}

// inline records the references inside an extent item. They are decoded one by
// one: there may be millions.
func (l *loader) inline(it item, b []byte) {
	for len(b) > 0 {
		r, n, err := ondisk.DecodeInlineRef(b)
		if err != nil {
			l.c.rep.bad(it.place(ondisk.ExtentTree), "", "%v", err)
			return
		}
		b = b[n:]
		if r.Type != ondisk.TypeExtentOwnerRef {
			l.record(it, ref.Ref{Kind: ref.Kind(r.Type), Root: r.Root, Parent: r.Parent, Ino: r.Objectid, Offset: r.Offset}, r.Count)
		}
	}
}

func (l *loader) keyed(it item) {
	if l.cur == nil || l.at != it.key.Objectid {
		l.c.rep.bad(it.place(ondisk.ExtentTree), "", "back reference of an extent that there is not")
		return
	}
	r, n := ref.Ref{Kind: ref.Kind(it.key.Type)}, uint32(1)
	switch it.key.Type {
	case ondisk.TypeTreeBlockRef:
		r.Root = ondisk.TreeID(it.key.Offset)
	case ondisk.TypeSharedBlockRef:
		r.Parent = ondisk.Bytenr(it.key.Offset)
	case ondisk.TypeSharedDataRef:
		r.Parent = ondisk.Bytenr(it.key.Offset)
		n, _ = ondisk.DecodeSharedDataRef(it.data)
	case ondisk.TypeExtentDataRef:
		for b := it.data; len(b) >= ondisk.ExtentDataRefSize; b = b[ondisk.ExtentDataRefSize:] {
			d, _ := ondisk.DecodeExtentDataRef(b[:ondisk.ExtentDataRefSize])
			l.record(it, ref.Ref{Kind: r.Kind, Root: d.Root, Ino: d.Objectid, Offset: d.Offset}, d.Count)
		}
		return
	}
	l.record(it, r, n)
}

func (l *loader) record(it item, r ref.Ref, n uint32) {
	if r.Kind.IsData() == l.cur.block() {
		l.c.rep.bad(it.place(ondisk.ExtentTree), "", "back reference %v does not fit the kind of extent", r.Kind)
	}
	l.cur.record(r, n)
	if x := l.c.collect; x != nil {
		x.recorded(ondisk.Bytenr(l.at), r, n)
	}
}
