// Package ref says which extents a tree block refers to, and in which form, and
// sums up changes to such references.
//
// It is the one place that knows how references leave a block: copy-on-write,
// dropping and checking use it. It is pure: no I/O, no clock. What must hold:
// Of is given blocks that passed treecheck, and gives each reference once per
// slot, so that a data extent named by three items of a leaf comes three times.
package ref

import (
	"cmp"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Kind is the form of a reference: the type of its inline back reference.
type Kind uint8

// The forms. "Shared" ones name the referring block, the others its owner.
const (
	KindTreeBlock   = Kind(ondisk.TypeTreeBlockRef)
	KindData        = Kind(ondisk.TypeExtentDataRef)
	KindSharedBlock = Kind(ondisk.TypeSharedBlockRef)
	KindSharedData  = Kind(ondisk.TypeSharedDataRef)
)

// String names the form as FORMAT and btrfs-progs do.
func (k Kind) String() string { return ondisk.KeyType(k).String() }

// IsData tells whether the reference arrives at a data extent.
func (k Kind) IsData() bool { return k == KindData || k == KindSharedData }

// Ref is one reference arriving at an extent.
type Ref struct {
	At     ondisk.Bytenr // the extent
	Len    uint64        // its length on disk
	Kind   Kind
	Level  uint8         // of the block at At; 0 for data
	Root   ondisk.TreeID // KindTreeBlock, KindData
	Parent ondisk.Bytenr // KindSharedBlock, KindSharedData: the referring block
	Ino    uint64        // KindData
	Offset uint64        // KindData: file offset minus offset in the extent, modulo 2^64
}

// Change adds Delta references like Ref to the extent at Ref.At. With SetFull
// it also sets FULL_BACKREF on the block there; Delta may then be 0.
type Change struct {
	Ref
	Delta   int32
	SetFull bool
}

// Info is what the extent tree tells about an extent.
type Info struct {
	At         ondisk.Bytenr
	Refs       uint64
	Flags      uint64
	Generation ondisk.Generation
	Found      bool
}

// Loss is how many of an extent's references come from some set of blocks.
type Loss struct {
	Info
	Len   uint64 // of the extent on disk
	N     uint64
	Level uint8 // of a tree block
}

// Compare orders references by At, Kind, Root, Parent, Ino, Offset: equal
// references are one entry with a count on disk.
func Compare(a, b Ref) int {
	if c := cmp.Compare(a.At, b.At); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Root, b.Root); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Parent, b.Parent); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Ino, b.Ino); c != 0 {
		return c
	}
	return cmp.Compare(a.Offset, b.Offset)
}

// Merge sorts changes and adds up those of equal references, in place. What
// comes out without effect is dropped.
func Merge(cs []Change) []Change {
	slices.SortFunc(cs, func(a, b Change) int { return Compare(a.Ref, b.Ref) })
	out := cs[:0]
	for i := 0; i < len(cs); {
		sum := cs[i]
		for i++; i < len(cs) && Compare(sum.Ref, cs[i].Ref) == 0; i++ {
			sum.Delta += cs[i].Delta
			sum.SetFull = sum.SetFull || cs[i].SetFull
		}
		if sum.Delta != 0 || sum.SetFull {
			out = append(out, sum)
		}
	}
	return out
}
