package btree

import (
	"encoding/binary"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Editing the bytes of one leaf. Item heads grow from the front of the block, bodies from its end; offsets count
// from the end of the block's header.

const (
	head    = ondisk.HeaderSize
	offAt   = ondisk.KeySize     // of the body's offset in an item head
	lenAt   = ondisk.KeySize + 4 // of the body's length
	perItem = ondisk.ItemSize
)

// maxItem returns the size of the largest item body.
func maxItem(nodesize uint32) int { return int(nodesize) - head - perItem }

// leafRoom returns how many bytes of heads and bodies a leaf can hold.
func leafRoom(nodesize uint32) int { return int(nodesize) - head }

// smallLeaf returns the fill below which a leaf that lost items tries to join a neighbour.
func smallLeaf(nodesize uint32) int { return leafRoom(nodesize) / 4 }

// joinable returns the most bytes two leaves may have together to be joined. The rest is room to grow.
func joinable(nodesize uint32) int { return leafRoom(nodesize) * 7 / 8 }

// bodyStart returns where the body of item i-1 begins, i.e. where the bodies of items from i on end.
func bodyStart(b ondisk.Block, i int) int {
	if i == 0 {
		return len(b) - head
	}
	return int(binary.LittleEndian.Uint32(b[head+(i-1)*perItem+offAt:]))
}

// bytesOf returns how many bytes the items i..j-1 occupy, heads and bodies.
func bytesOf(b ondisk.Block, i, j int) int { return (j-i)*perItem + bodyStart(b, i) - bodyStart(b, j) }

func leafUsed(b ondisk.Block) int { return bytesOf(b, 0, b.NrItems()) }

func leafFree(b ondisk.Block) int { return len(b) - head - leafUsed(b) }

// shiftBodies moves the bodies of items i.. by delta bytes towards the end of the block (or the front, if negative).
func shiftBodies(b ondisk.Block, i, delta int) {
	n := b.NrItems()
	from, to := head+bodyStart(b, n), head+bodyStart(b, i)
	copy(b[from+delta:to+delta], b[from:to])
	shiftOffsets(b[head+i*perItem:head+n*perItem], delta)
}

// shiftOffsets adds delta to the offset of each item head.
func shiftOffsets(heads []byte, delta int) {
	for h := offAt; h < len(heads); h += perItem {
		binary.LittleEndian.PutUint32(heads[h:], uint32(int(binary.LittleEndian.Uint32(heads[h:]))+delta))
	}
}

// leafInsert puts an item into slot i. There must be room.
func leafInsert(b ondisk.Block, i int, key ondisk.Key, data []byte) {
	n := b.NrItems()
	end := bodyStart(b, i)
	shiftBodies(b, i, -len(data))
	copy(b[head+(i+1)*perItem:], b[head+i*perItem:head+n*perItem])
	b.SetItemHead(i, key, uint32(end-len(data)), uint32(len(data)))
	copy(b[head+end-len(data):], data)
	b.SetNrItems(n + 1)
}

// leafDelete takes the item in slot i away.
func leafDelete(b ondisk.Block, i int) {
	n := b.NrItems()
	shiftBodies(b, i+1, bodyStart(b, i)-bodyStart(b, i+1))
	copy(b[head+i*perItem:], b[head+(i+1)*perItem:head+n*perItem])
	b.SetNrItems(n - 1)
}

// leafResize changes the length of the body in slot i. There must be room. The body's content is unspecified.
func leafResize(b ondisk.Block, i, size int) {
	if delta := b.ItemLen(i) - size; delta != 0 {
		key, end := b.Key(i), bodyStart(b, i)
		shiftBodies(b, i+1, delta)
		b.SetItemHead(i, key, uint32(end-size), uint32(size))
	}
}

// leafAppend adds the items i..j-1 of src behind the last item of dst. There must be room.
func leafAppend(dst, src ondisk.Block, i, j int) {
	n := dst.NrItems()
	end := bodyStart(dst, n)
	from, to := bodyStart(src, j), bodyStart(src, i)
	copy(dst[head+end-(to-from):head+end], src[head+from:head+to])
	copy(dst[head+n*perItem:], src[head+i*perItem:head+j*perItem])
	shiftOffsets(dst[head+n*perItem:head+(n+j-i)*perItem], end-to)
	dst.SetNrItems(n + j - i)
}

// leafPush adds an item behind the last one. There must be room.
func leafPush(b ondisk.Block, key ondisk.Key, data []byte) {
	n := b.NrItems()
	off := bodyStart(b, n) - len(data)
	b.SetItemHead(n, key, uint32(off), uint32(len(data)))
	copy(b[head+off:], data)
	b.SetNrItems(n + 1)
}
