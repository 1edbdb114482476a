package ondisk

import (
	"cmp"
	"fmt"
)

// Key orders the items of a tree: object id, type, offset.
//
//	off size field
//	  0    8 objectid
//	  8    1 type
//	  9    8 offset
type Key struct {
	Objectid uint64
	Type     KeyType
	Offset   uint64
}

// MaxKey is not smaller than any key.
func MaxKey() Key { return Key{^uint64(0), 255, ^uint64(0)} }

// Compare orders keys numerically.
func (k Key) Compare(o Key) int {
	if c := cmp.Compare(k.Objectid, o.Objectid); c != 0 {
		return c
	}
	if c := cmp.Compare(k.Type, o.Type); c != 0 {
		return c
	}
	return cmp.Compare(k.Offset, o.Offset)
}

// Less tells whether k sorts before o.
func (k Key) Less(o Key) bool { return k.Compare(o) < 0 }

// IsZero tells whether all members are zero.
func (k Key) IsZero() bool { return k == Key{} }

// Next gives the smallest larger key; MaxKey has none and gives itself.
func (k Key) Next() Key {
	switch {
	case k.Offset != ^uint64(0):
		k.Offset++
	case k.Type != 255:
		k.Type, k.Offset = k.Type+1, 0
	case k.Objectid != ^uint64(0):
		k = Key{Objectid: k.Objectid + 1}
	}
	return k
}

// String writes the key as btrfs-progs does: (256 INODE_ITEM 0).
func (k Key) String() string { return fmt.Sprintf("(%d %s %d)", int64(k.Objectid), k.Type, k.Offset) }

// DecodeKey reads a key from the first KeySize bytes of b, which must be there.
func DecodeKey(b []byte) Key {
	_ = b[KeySize-1]
	return Key{le.Uint64(b), KeyType(b[8]), le.Uint64(b[9:])}
}

// Append writes the key to the end of b.
func (k Key) Append(b []byte) []byte {
	b = le.AppendUint64(b, k.Objectid)
	b = append(b, byte(k.Type))
	return le.AppendUint64(b, k.Offset)
}

// Put writes the key to the first KeySize bytes of b.
func (k Key) Put(b []byte) {
	_ = b[KeySize-1]
	le.PutUint64(b, k.Objectid)
	b[8] = byte(k.Type)
	le.PutUint64(b[9:], k.Offset)
}
