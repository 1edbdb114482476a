// Package treecheck decides whether the bytes of a tree block can be trusted. It is the only gate: after it,
// accessors of slots do not check again.
package treecheck

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// Context says what the check needs to know of the volume.
type Context struct {
	Nodesize        uint32
	Sectorsize      uint32
	SuperGeneration ondisk.Generation
	Incompat        uint64
	CsumSize        int
	Write           bool // the block is about to be written
}

// Check checks the structure of a block: that slots and bodies lie inside it, and that keys ascend.
func Check(b ondisk.Block, c Context) error {
	if len(b) != int(c.Nodesize) {
		return bad(b, -1, "size", len(b), c.Nodesize)
	}
	n, slot := b.NrItems(), ondisk.ItemSize
	if b.Level() > 0 {
		slot = ondisk.KeyPtrSize
	}
	if b.Level() > 7 {
		return bad(b, -1, "level too high", b.Level(), 7)
	}
	if n < 0 || n > (len(b)-ondisk.HeaderSize)/slot || n == 0 && b.Level() > 0 {
		return bad(b, -1, "number of items", n, nil)
	}
	end := len(b) - ondisk.HeaderSize
	for i := range n {
		if i > 0 && !b.Key(i-1).Less(b.Key(i)) {
			return bad(b, i, "keys do not ascend", b.Key(i), b.Key(i-1))
		}
		if b.Level() > 0 {
			if at, _ := b.Ptr(i); at == 0 || uint64(at)%uint64(c.Sectorsize) != 0 {
				return bad(b, i, "child address", at, nil)
			}
			continue
		}
		if b.ItemLen(i) > end || b.ItemOffset(i) != end-b.ItemLen(i) {
			return bad(b, i, "body does not end where the one before begins", b.ItemOffset(i), end-b.ItemLen(i))
		}
		if end -= b.ItemLen(i); end < n*slot {
			return bad(b, i, "body overlaps the heads", end, n*slot)
		}
	}
	return nil
}

func bad(b ondisk.Block, slot int, reason string, got, want any) error {
	return &ondisk.CorruptError{What: "tree block", Tree: b.Owner(), Bytenr: b.Bytenr(), Slot: slot, Reason: reason, Got: got, Want: want}
}
