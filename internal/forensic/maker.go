package forensic

import (
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// madeAt is where blocks that are made anew lie: far above all that chunks hold.
const madeAt = ondisk.Bytenr(1) << 60

// maker makes blocks in memory.
type maker struct {
	sb     *ondisk.Superblock
	blocks map[ondisk.Bytenr]ondisk.Block
}

func newMaker(sb *ondisk.Superblock) *maker {
	return &maker{sb: sb, blocks: map[ondisk.Bytenr]ondisk.Block{}}
}

// block begins a block.
func (m *maker) block(owner ondisk.TreeID, level uint8) ondisk.Block {
	b := make(ondisk.Block, m.sb.Nodesize)
	b.SetFSID(m.sb.TreeUUID())
	b.SetBytenr(madeAt + ondisk.Bytenr(len(m.blocks))*ondisk.Bytenr(m.sb.Nodesize))
	b.SetFlags(ondisk.HeaderFlagsNew | ondisk.FlagWritten)
	b.SetGeneration(m.sb.Generation)
	b.SetOwner(owner)
	b.SetLevel(level)
	m.blocks[b.Bytenr()] = b
	return b
}

func (m *maker) seal(b ondisk.Block) {
	t := checksum.Type(m.sb.CsumType)
	checksum.Sum(t, b[:t.Size()], b[32:])
}

// tree makes a tree of items, in any order. Of items with one key the first counts.
func (m *maker) tree(id ondisk.TreeID, list []item) (btree.RootPtr, error) {
	slices.SortStableFunc(list, func(a, b item) int { return a.key.Compare(b.key) })
	list = slices.CompactFunc(list, func(a, b item) bool { return a.key == b.key })
	var leaves []leaf
	for len(list) > 0 {
		var l leaf
		l, list = m.leaf(id, list)
		leaves = append(leaves, l)
	}
	return m.nodes(id, leaves), nil
}

// leaf makes a leaf of as many items as fit, and gives the rest. An item that fits into no leaf cannot come out of one.
func (m *maker) leaf(id ondisk.TreeID, list []item) (leaf, []item) {
	b := m.block(id, 0)
	end, n := ondisk.LeafData(len(b)), 0
	for n < len(list) && (n+1)*ondisk.ItemSize+len(list[n].body) <= end {
		end -= len(list[n].body)
		b.SetItemHead(n, list[n].key, uint32(end), uint32(len(list[n].body)))
		copy(b[ondisk.HeaderSize+end:], list[n].body)
		n++
	}
	b.SetNrItems(n)
	m.seal(b)
	n = max(n, 1)
	return leaf{first: list[0].key, last: list[n-1].key, at: b.Bytenr(), gen: b.Generation()}, list[n:]
}

// nodes makes the nodes above leaves, which are in order, and gives the root.
func (m *maker) nodes(id ondisk.TreeID, leaves []leaf) btree.RootPtr {
	if len(leaves) == 0 {
		b := m.block(id, 0)
		m.seal(b)
		return btree.RootPtr{Bytenr: b.Bytenr(), Generation: b.Generation()}
	}
	level := uint8(0)
	for ; len(leaves) > 1; level++ {
		var up []leaf
		for part := range slices.Chunk(leaves, ondisk.MaxPtrs(int(m.sb.Nodesize))) {
			b := m.block(id, level+1)
			for i, l := range part {
				b.SetPtr(i, l.first, l.at, l.gen)
			}
			b.SetNrItems(len(part))
			m.seal(b)
			up = append(up, leaf{first: part[0].first, last: part[len(part)-1].last, at: b.Bytenr(), gen: b.Generation()})
		}
		leaves = up
	}
	return btree.RootPtr{Bytenr: leaves[0].at, Generation: leaves[0].gen, Level: level}
}
