package extent

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// record is one extent with all its references, inline and keyed, while they change.
type record struct {
	found    bool
	key      ondisk.Key // of the extent item
	item     ondisk.ExtentItem
	level    uint8      // of a tree block
	firstKey ondisk.Key // of a tree block in an EXTENT_ITEM
	owner    []ondisk.InlineRef
	entries  []entry
	keyed    int // entries with an item of their own
}

// entry is one reference of an extent, with its count.
type entry struct {
	ref.Ref
	count int64
	had   int64      // count on disk; 0: the reference is new
	key   ondisk.Key // of the item of its own; zero: inline
}

func (e *entry) keyed() bool { return e.key.Type != 0 }

// reset forgets the extent and keeps the memory.
func (r *record) reset() {
	*r = record{owner: r.owner[:0], entries: r.entries[:0]}
}

// give takes out the references by parent that come from blocks of a set, and returns how many they were. The item's count is left alone.
func (r *record) give(parents *ref.Set) (n uint64) {
	for i := range r.entries {
		e := &r.entries[i]
		if (e.Kind == ref.KindSharedData || e.Kind == ref.KindSharedBlock) && parents.Has(e.Parent) {
			n += uint64(e.count)
			e.count = 0
		}
	}
	return n
}

// read loads the extent at the address. The cursor stands on or before it, and is left behind it.
func (r *record) read(ctx context.Context, c *btree.Cursor, at ondisk.Bytenr) error {
	r.reset()
	if err := c.Advance(ctx, firstKey(at)); err != nil {
		return err
	}
	for c.Valid() && c.Key().Objectid == uint64(at) && c.Key().Type <= ondisk.TypeSharedDataRef {
		if err := r.readItem(c.Key(), c.Data()); err != nil {
			return locate(err, c)
		}
		if err := c.Next(ctx); err != nil {
			return err
		}
	}
	if !r.found && len(r.entries) > 0 {
		return noItem(at)
	}
	return nil
}

func locate(err error, c *btree.Cursor) error { return locateAt(err, c.Leaf(), c.Slot()) }

func locateAt(err error, b *treeblock.Block, slot int) error {
	if e, ok := err.(*ondisk.CorruptError); ok {
		e.Tree, e.Bytenr, e.Slot = ondisk.ExtentTree, b.Bytenr(), slot
	}
	return err
}

func (r *record) readItem(k ondisk.Key, b []byte) error {
	at := ondisk.Bytenr(k.Objectid)
	switch k.Type {
	case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
		return r.readHead(k, b)
	case ondisk.TypeTreeBlockRef:
		r.own(k, entry{Ref: ref.Ref{At: at, Kind: ref.KindTreeBlock, Root: ondisk.TreeID(k.Offset)}, had: 1})
	case ondisk.TypeSharedBlockRef:
		r.own(k, entry{Ref: ref.Ref{At: at, Kind: ref.KindSharedBlock, Parent: ondisk.Bytenr(k.Offset)}, had: 1})
	case ondisk.TypeSharedDataRef:
		n, err := ondisk.DecodeSharedDataRef(b)
		if err != nil {
			return err
		}
		r.own(k, entry{Ref: ref.Ref{At: at, Kind: ref.KindSharedData, Parent: ondisk.Bytenr(k.Offset)}, had: int64(n)})
	case ondisk.TypeExtentDataRef:
		d, err := ondisk.DecodeExtentDataRef(b)
		if err != nil {
			return err
		}
		r.own(k, entry{Ref: ref.Ref{At: at, Kind: ref.KindData, Root: d.Root, Ino: d.Objectid, Offset: d.Offset}, had: int64(d.Count)})
	default:
		return &ondisk.CorruptError{What: "extent tree", Slot: -1, Reason: "unknown item", Got: k}
	}
	return nil
}

// own notes a reference that has an item of its own.
func (r *record) own(k ondisk.Key, e entry) {
	e.key, e.count = k, e.had
	r.entries = append(r.entries, e)
	r.keyed++
}

// readHead reads the extent item itself.
func (r *record) readHead(k ondisk.Key, b []byte) error {
	if r.found {
		return &ondisk.CorruptError{What: "extent", Slot: -1, Reason: "has two items", Got: k, Want: r.key}
	}
	var err error
	if r.item, err = ondisk.DecodeExtentItem(b); err != nil {
		return err
	}
	r.found, r.key = true, k
	b = b[ondisk.ExtentItemSize:]
	switch {
	case k.Type == ondisk.TypeMetadataItem:
		r.level = uint8(k.Offset)
	case r.item.Flags&ondisk.ExtentFlagTreeBlock != 0:
		if len(b) < ondisk.TreeBlockInfoSize {
			return &ondisk.CorruptError{What: "extent item", Slot: -1, Reason: "too short", Got: len(b)}
		}
		r.firstKey, r.level = ondisk.DecodeKey(b), b[ondisk.KeySize]
		b = b[ondisk.TreeBlockInfoSize:]
	}
	for len(b) > 0 {
		i, n, err := ondisk.DecodeInlineRef(b)
		if err != nil {
			return err
		}
		b = b[n:]
		if i.Type == ondisk.TypeExtentOwnerRef {
			r.owner = append(r.owner, i)
			continue
		}
		r.entries = append(r.entries, entry{
			Ref: ref.Ref{At: ondisk.Bytenr(k.Objectid), Kind: ref.Kind(i.Type), Root: i.Root, Parent: i.Parent, Ino: i.Objectid, Offset: i.Offset},
			had: int64(i.Count), count: int64(i.Count),
		})
	}
	return nil
}

// change applies sorted, merged changes of this extent.
func (r *record) change(cs []ref.Change, gen ondisk.Generation) error {
	if !r.found {
		r.item = ondisk.ExtentItem{Generation: gen, Flags: ondisk.ExtentFlagTreeBlock}
		r.level = cs[0].Level
		if cs[0].Kind.IsData() {
			r.item.Flags = ondisk.ExtentFlagData
		}
	}
	total := int64(r.item.Refs)
	old := len(r.entries)
	if old > few && len(cs) > 0 {
		slices.SortFunc(r.entries, func(a, b entry) int { return ref.Compare(a.Ref, b.Ref) })
	}
	next := 0
	for i := range cs {
		c := &cs[i]
		if c.SetFull {
			r.item.Flags |= ondisk.ExtentFlagFullBackref
		}
		if c.Delta == 0 {
			continue
		}
		total += int64(c.Delta)
		e := r.find(&c.Ref, &next, old)
		if e == nil {
			r.entries = append(r.entries, entry{Ref: c.Ref})
			e = &r.entries[len(r.entries)-1]
		}
		e.count += int64(c.Delta)
		if e.count < 0 {
			return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: c.At, Slot: -1,
				Reason: "a reference is given up that is not there: " + c.Kind.String(), Got: c.Ref, Want: e.had}
		}
	}
	if total < 0 {
		return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: cs[0].At, Slot: -1, Reason: "fewer references than are given up", Got: total}
	}
	r.item.Refs = uint64(total)
	return nil
}

// find looks for a reference among the first old entries. Few are in any order; many are sorted, and next is where
// the search goes on.
func (r *record) find(want *ref.Ref, next *int, old int) *entry {
	if old <= few {
		for i := range r.entries[:old] {
			if ref.Compare(r.entries[i].Ref, *want) == 0 {
				return &r.entries[i]
			}
		}
		return nil
	}
	for ; *next < old; *next++ {
		switch c := ref.Compare(r.entries[*next].Ref, *want); {
		case c == 0:
			return &r.entries[*next]
		case c > 0:
			return nil
		}
	}
	return nil
}

// hash is the key offset of a reference's own item.
func hash(e *ref.Ref) uint64 {
	switch e.Kind {
	case ref.KindTreeBlock:
		return uint64(e.Root)
	case ref.KindData:
		return checksum.DataRefHash(uint64(e.Root), e.Ino, e.Offset)
	}
	return uint64(e.Parent)
}

// place decides which new references stay inline and which get items of their own. room is the size from which on
// an item takes no more references.
func (r *record) place(room int) {
	size := ondisk.ExtentItemSize
	if r.key.Type == ondisk.TypeExtentItem && r.item.Flags&ondisk.ExtentFlagTreeBlock != 0 {
		size += ondisk.TreeBlockInfoSize
	}
	for _, o := range r.owner {
		size += ondisk.InlineRefSize(o.Type)
	}
	for i := range r.entries {
		if e := &r.entries[i]; !e.keyed() && e.had > 0 && e.count > 0 {
			size += ondisk.InlineRefSize(ondisk.KeyType(e.Kind))
		}
	}
	for i := range r.entries {
		e := &r.entries[i]
		if e.had > 0 || e.count == 0 {
			continue
		}
		n := ondisk.InlineRefSize(ondisk.KeyType(e.Kind))
		if r.keyed == 0 && size+n < room {
			size += n
			continue
		}
		e.key = r.freeKey(&e.Ref)
		r.keyed++
	}
}

// freeKey returns the key of a new reference's own item: the first free one from its hash on.
func (r *record) freeKey(e *ref.Ref) ondisk.Key {
	k := ondisk.Key{Objectid: uint64(e.At), Type: ondisk.KeyType(e.Kind), Offset: hash(e)}
	for slices.ContainsFunc(r.entries, func(o entry) bool { return o.key == k }) {
		k.Offset++
	}
	return k
}

// body appends the extent item's body to buf.
func (r *record) body(buf []byte) []byte {
	buf = r.item.Append(buf)
	if r.key.Type == ondisk.TypeExtentItem && r.item.Flags&ondisk.ExtentFlagTreeBlock != 0 {
		buf = append(r.firstKey.Append(buf), r.level)
	}
	for _, o := range r.owner {
		buf = o.Append(buf)
	}
	var order []sorted
	for i := range r.entries {
		if e := &r.entries[i]; !e.keyed() && e.count > 0 {
			order = append(order, sorted{e, 0})
		}
	}
	if len(order) > 1 {
		for i := range order {
			order[i].hash = hash(&order[i].e.Ref)
		}
		slices.SortFunc(order, func(a, b sorted) int {
			return cmp.Or(cmp.Compare(a.e.Kind, b.e.Kind), cmp.Compare(b.hash, a.hash))
		})
	}
	for _, o := range order {
		e := o.e
		buf = ondisk.InlineRef{Type: ondisk.KeyType(e.Kind), Root: e.Root, Objectid: e.Ino, Offset: e.Offset, Parent: e.Parent, Count: uint32(e.count)}.Append(buf)
	}
	return buf
}

// sorted is an inline reference with what it is sorted by: descending within its type.
type sorted struct {
	e    *entry
	hash uint64
}

// ownBody appends the body of a reference's own item.
func (e *entry) ownBody(buf []byte) []byte {
	switch e.Kind {
	case ref.KindData:
		return ondisk.ExtentDataRef{Root: e.Root, Objectid: e.Ino, Offset: e.Offset, Count: uint32(e.count)}.Append(buf)
	case ref.KindSharedData:
		return append(buf, byte(e.count), byte(e.count>>8), byte(e.count>>16), byte(e.count>>24))
	}
	return buf
}
