// Package treecheck decides whether a tree block is sane. It is the only gate:
// every block passes it after reading, and again before writing (invariant I2),
// and what passed may be used without checking bounds again.
//
// It looks at one block alone. What blocks promise each other (address,
// generation, level, first key) is package treeblock's business, what they say
// together package check's. It is pure and does not allocate unless it complains.
package treecheck

import (
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Context is what must be known about the volume.
type Context struct {
	Nodesize        uint32
	Sectorsize      uint32
	SuperGeneration ondisk.Generation
	Incompat        uint64
	CsumSize        int
	Write           bool // the block is about to be written: stricter, and WRITTEN need not be set
}

// Check gives a *ondisk.CorruptError if something about b is wrong.
func Check(b ondisk.Block, c Context) error {
	if len(b) != int(c.Nodesize) || len(b) < ondisk.HeaderSize {
		return &ondisk.CorruptError{What: "tree block", Slot: -1, Reason: "wrong length", Got: len(b), Want: c.Nodesize}
	}
	k := checker{b: b, c: &c}
	if err := k.header(); err != nil {
		return err
	}
	if b.Level() > 0 {
		return k.node()
	}
	return k.leaf()
}

// checker walks the slots of one block from left to right.
type checker struct {
	b    ondisk.Block
	c    *Context
	slot int
	key  ondisk.Key
	prev ondisk.Key // key of slot-1

	fileEnd   uint64 // end of the last EXTENT_DATA, while the inode stays the same
	fileIno   uint64
	csumEnd   uint64 // end of the last EXTENT_CSUM
	extentEnd uint64 // end of the last extent item
	devEnd    uint64 // end of the last DEV_EXTENT of device devID
	devID     uint64
}

// bad complains about the current slot.
func (k *checker) bad(reason string, got, want any) error {
	what := "node"
	if k.b.Level() == 0 {
		what = "leaf"
	}
	if k.slot >= 0 && k.b.Level() == 0 && k.key != (ondisk.Key{}) {
		what = k.key.Type.String()
	}
	return &ondisk.CorruptError{
		What: what, Tree: k.b.Owner(), Bytenr: k.b.Bytenr(), Slot: k.slot,
		Reason: fmt.Sprintf("%s (key %v)", reason, k.key), Got: got, Want: want,
	}
}

// badBlock complains about the block as a whole.
func (k *checker) badBlock(reason string, got, want any) error {
	return &ondisk.CorruptError{
		What: "tree block", Tree: k.b.Owner(), Bytenr: k.b.Bytenr(), Slot: -1, Reason: reason, Got: got, Want: want,
	}
}

func (k *checker) aligned(v uint64) bool { return v%uint64(k.c.Sectorsize) == 0 }

// young tells whether g can have been written by a transaction up to the running
// one.
func (k *checker) young(g ondisk.Generation) bool { return g <= k.c.SuperGeneration+1 }

func (k *checker) header() error {
	b := k.b
	switch {
	case b.Level() > ondisk.MaxLevel:
		return k.badBlock("level too high", b.Level(), ondisk.MaxLevel)
	case b.Owner() == 0:
		return k.badBlock("no owner", nil, nil)
	case !k.c.Write && !b.IsWritten():
		return k.badBlock("not marked as written", nil, nil)
	case !k.aligned(uint64(b.Bytenr())):
		return k.badBlock("address not aligned", uint64(b.Bytenr()), k.c.Sectorsize)
	}
	return nil
}

func (k *checker) node() error {
	n := k.b.NrItems()
	if n < 1 || n > ondisk.MaxPtrs(len(k.b)) {
		return k.badBlock("wrong number of pointers", n, ondisk.MaxPtrs(len(k.b)))
	}
	for k.slot = range n {
		k.key = k.b.Key(k.slot)
		if k.slot > 0 && !k.prev.Less(k.key) {
			return k.bad("keys out of order", k.prev, nil)
		}
		at, _ := k.b.Ptr(k.slot)
		if at == 0 || !k.aligned(uint64(at)) {
			return k.bad("bad pointer", uint64(at), nil)
		}
		k.prev = k.key
	}
	return nil
}

// neverEmpty tells whether a tree always holds an item.
func neverEmpty(t ondisk.TreeID) bool {
	switch t {
	case ondisk.RootTree, ondisk.ExtentTree, ondisk.ChunkTree, ondisk.DevTree, ondisk.FSTree, ondisk.DataRelocTree:
		return true
	}
	return false
}

func (k *checker) leaf() error {
	n := k.b.NrItems()
	space := ondisk.LeafData(len(k.b))
	if n == 0 {
		if neverEmpty(k.b.Owner()) && !k.b.IsReloc() {
			return k.badBlock("empty leaf", nil, nil)
		}
		return nil
	}
	if n < 0 || n > space/ondisk.ItemSize {
		return k.badBlock("too many items", n, space/ondisk.ItemSize)
	}
	end := uint64(space)
	for k.slot = range n {
		k.key = k.b.Key(k.slot)
		if k.slot > 0 && !k.prev.Less(k.key) {
			return k.bad("keys out of order", k.prev, nil)
		}
		off, size := uint64(uint32(k.b.ItemOffset(k.slot))), uint64(uint32(k.b.ItemLen(k.slot)))
		if off+size != end {
			return k.bad("item does not end where the one before starts", off+size, end)
		}
		if off < uint64(n)*ondisk.ItemSize {
			return k.bad("item overlaps the item heads", off, n*ondisk.ItemSize)
		}
		end = off
		if err := k.item(k.b.Item(k.slot)); err != nil {
			return err
		}
		k.prev = k.key
	}
	return nil
}

// item checks one item by its type. Unknown types pass.
func (k *checker) item(b []byte) error {
	switch k.key.Type {
	case ondisk.TypeInodeItem:
		return k.inodeItem(b)
	case ondisk.TypeInodeRef:
		return k.inodeRef(b, 10)
	case ondisk.TypeInodeExtref:
		return k.inodeRef(b, 18)
	case ondisk.TypeXattrItem, ondisk.TypeDirItem, ondisk.TypeDirIndex:
		return k.dirItem(b)
	case ondisk.TypeExtentData:
		return k.extentData(b)
	case ondisk.TypeExtentCsum:
		return k.extentCsum(b)
	case ondisk.TypeRootItem:
		return k.rootItem(b)
	case ondisk.TypeRootRef, ondisk.TypeRootBackref:
		return k.rootRef(b)
	case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
		return k.extentItem(b)
	case ondisk.TypeTreeBlockRef, ondisk.TypeSharedBlockRef, ondisk.TypeExtentDataRef, ondisk.TypeSharedDataRef:
		return k.keyedRef(b)
	case ondisk.TypeBlockGroupItem:
		return k.blockGroup(b)
	case ondisk.TypeChunkItem:
		return k.chunkItem(b)
	case ondisk.TypeDevItem:
		return k.devItem(b)
	case ondisk.TypeDevExtent:
		return k.devExtent(b)
	case ondisk.TypeFreeSpaceInfo, ondisk.TypeFreeSpaceExtent, ondisk.TypeFreeSpaceBitmap:
		return k.freeSpace(b)
	case ondisk.TypeRaidStripe:
		if k.c.Incompat&ondisk.IncompatRaidStripeTree == 0 {
			return k.bad("volume has no raid stripe tree", nil, nil)
		}
	}
	return nil
}
