// Package treeblock reads, caches and writes tree blocks.
//
// A tree block in memory is its on-disk bytes. What must hold:
//
//   - A block that came from a device was checked once, completely, before anyone sees it: checksum, file system
//     id, own address, WRITTEN flag, and package treecheck. Each reader's promise (what the parent said of the
//     block) is checked at every read, from the device or from the cache.
//   - A committed block never changes; readers share it without locks.
//   - A dirty block belongs to the running transaction, is never evicted, and is checked again before it is written.
//     It is written when the transaction is committed; leaves of big trees may be written earlier (WriteLeaves), and
//     are like committed ones from then on.
//
// A Store is safe for concurrent use. The bytes of a dirty block are not: who changes trees keeps readers out.
package treeblock

import (
	"fmt"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Block is one tree block in memory.
type Block struct {
	data ondisk.Block
	born uint64
}

// Data returns the block's bytes. They may be written only while the block is private to the running transaction.
func (b *Block) Data() ondisk.Block { return b.data }

// Bytenr returns the logical address that the header names.
func (b *Block) Bytenr() ondisk.Bytenr { return b.data.Bytenr() }

// Level returns the height above the leaves.
func (b *Block) Level() uint8 { return b.data.Level() }

// Generation returns the transaction that made the block.
func (b *Block) Generation() ondisk.Generation { return b.data.Generation() }

// Owner returns the tree that allocated the block.
func (b *Block) Owner() ondisk.TreeID { return b.data.Owner() }

// Born returns the block's place in the order of creation in the running transaction, 0 if it is committed.
func (b *Block) Born() uint64 { return b.born }

// Promise is what a parent (or a root item) says about a block it points to.
type Promise struct {
	Bytenr     ondisk.Bytenr
	Generation ondisk.Generation
	Level      uint8
	Owner      ondisk.TreeID // 0: any tree
	FirstKey   ondisk.Key
	HasKey     bool       // FirstKey is promised
	End        ondisk.Key // all keys are less, if HasEnd
	HasEnd     bool
	Tree       ondisk.TreeID // for messages
}

// check compares a block with the promise.
func (p *Promise) check(b ondisk.Block) error {
	switch {
	case b.Generation() != p.Generation:
		return p.broken("generation differs from the parent's", b.Generation(), p.Generation)
	case b.Level() != p.Level:
		return p.broken("level differs from the parent's", b.Level(), p.Level)
	case p.Owner != 0 && b.Owner() != p.Owner:
		return p.broken("block of another tree", b.Owner(), p.Owner)
	case p.HasKey && (b.NrItems() == 0 || b.Key(0) != p.FirstKey):
		if b.NrItems() == 0 {
			return p.broken("empty block below a node", 0, p.FirstKey)
		}
		return p.broken("first key differs from the parent's", b.Key(0), p.FirstKey)
	case p.HasEnd && b.NrItems() > 0 && !b.Key(b.NrItems()-1).Less(p.End):
		return p.broken("last key lies beyond the parent's next key", b.Key(b.NrItems()-1), p.End)
	}
	return nil
}

func (p *Promise) broken(reason string, got, want any) error {
	return &ondisk.CorruptError{What: "tree block", Tree: p.Tree, Bytenr: p.Bytenr, Slot: -1, Reason: reason, Got: got, Want: want}
}

// ReadError says why no copy of a block could be used.
type ReadError struct {
	Tree    ondisk.TreeID
	Bytenr  ondisk.Bytenr
	Mirrors []error // one per copy; empty: the address is not mapped
}

func (e *ReadError) Error() string {
	if len(e.Mirrors) == 0 {
		return fmt.Sprintf("tree %d: block %d: no device holds this address", int64(e.Tree), uint64(e.Bytenr))
	}
	var s strings.Builder
	fmt.Fprintf(&s, "tree %d: block %d: no good copy", int64(e.Tree), uint64(e.Bytenr))
	for i, err := range e.Mirrors {
		fmt.Fprintf(&s, "; copy %d: %v", i, err)
	}
	return s.String()
}

// Unwrap gives the error of each copy to errors.Is and errors.As.
func (e *ReadError) Unwrap() []error { return e.Mirrors }
