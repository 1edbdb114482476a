package filedata

import (
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

const (
	// MinBatch is the least memory of a Batch: the largest extent fits, packed and
	// unpacked.
	MinBatch = 2*maxCompressed + 64<<10

	maxRun   = 1 << 20  // what is read at once, and the longest piece of a plain extent
	maxGap   = 32 << 10 // what is read in vain rather than reading twice
	minPiece = 64 << 10 // a longer piece is not cut to less than this for lack of room
)

// Batch reads pieces of many files together: sorted by their addresses, those
// near each other at once, with one look-up of checksums for each read. It is used
// by one goroutine at a time: Reset, Add, Load, use the pieces, again.
type Batch struct {
	v        *volume.Volume
	layout   csumtree.Layout
	buf      []byte // all memory for data: [0, front) is dealt out by Load, [tail, len) holds inline data
	front    int
	tail     int
	reserved int // what Load will need of [0, tail)
	pieces   []*Piece
	stats    BatchStats
}

// BatchStats count the work of a Batch since it was made.
type BatchStats struct {
	Pieces  int   // asked for, without those in the trees
	Reads   int   // of runs of pieces
	Bytes   int64 // read in runs
	Lookups int   // of the checksums of runs
	Unpacks int   // compressed extents
	Alone   int   // pieces that were read again by themselves, from all mirrors
}

// Piece is a range of a file that lies in one extent. Data and Err are valid
// after Load.
type Piece struct {
	Off  uint64 // in the file
	N    uint64
	Data []byte // N bytes, nil with an error; no longer valid after Batch.Reset
	Err  error

	Unproven int64 // sectors behind Data that no checksum proves right

	tree *btree.Tree
	ino  uint64
	it   ondisk.InodeItem
	skip uint64 // bytes of the extent before the piece
	e    ondisk.FileExtent
}

// NewBatch makes a batch that uses so much memory for data, not less than MinBatch.
func NewBatch(v *volume.Volume, memory int) *Batch {
	b := &Batch{v: v, layout: layoutOf(v), buf: make([]byte, max(memory, MinBatch))}
	b.Reset()
	return b
}

// Reset forgets the pieces.
func (b *Batch) Reset() {
	clear(b.pieces)
	b.pieces = b.pieces[:0]
	b.front, b.tail, b.reserved = 0, len(b.buf), 0
}

// Stats tells of the work done.
func (b *Batch) Stats() BatchStats { return b.stats }

// Room is what is left of the memory.
func (b *Batch) Room() int { return b.tail - b.reserved }

// Add asks for [off, to) of the file with inode ino, which lies in extent e at
// offset at of the file and is not a hole. The piece may be shorter; nil means
// that there is no room.
func (b *Batch) Add(t *btree.Tree, ino uint64, it ondisk.InodeItem, at uint64, e ondisk.FileExtent, off, to uint64) *Piece {
	p := &Piece{Off: off, N: to - off, tree: t, ino: ino, it: it, skip: off - at, e: e}
	if err := checkExtent(e, p.skip, p.N); err != nil {
		p.Err = p.wrap(err)
		return p
	}
	if e.Type == ondisk.ExtentInline {
		return b.addInline(p)
	}
	if e.Compression == ondisk.CompressNone && !b.fitPlain(p) || e.Compression != ondisk.CompressNone && !b.fitPacked(p) {
		return nil
	}
	b.pieces = append(b.pieces, p)
	b.stats.Pieces++
	return p
}

// wrap says where an error happened.
func (p *Piece) wrap(err error) error {
	return fmt.Errorf("inode %d of subvolume %d at offset %d: %w", p.ino, uint64(p.tree.ID()), p.Off, err)
}

// addInline copies what is in the tree.
func (b *Batch) addInline(p *Piece) *Piece {
	data, err := inlineData(p.e, b.layout.Sectorsize)
	if p.N > maxCompressed {
		err = badExtent("inline data larger than a sector", p.N)
	}
	p.e.Inline = nil
	if err != nil {
		p.Err = p.wrap(err)
		return p
	}
	if p.N > uint64(b.Room()) {
		return nil
	}
	b.tail -= int(p.N)
	p.Data = b.buf[b.tail : b.tail+int(p.N) : b.tail+int(p.N)]
	n := 0
	if p.skip < uint64(len(data)) {
		n = copy(p.Data, data[p.skip:])
	}
	clear(p.Data[n:])
	return p
}

// fitPlain makes a piece of a plain extent as short as it must be, and reserves
// its memory.
func (b *Batch) fitPlain(p *Piece) bool {
	ss := uint64(b.layout.Sectorsize)
	lead := p.address() % ss // read before the piece
	most := min(uint64(b.Room()), maxRun) / ss * ss
	if most <= lead || most < min(lead+p.N, minPiece) {
		return false
	}
	p.N = min(p.N, most-lead)
	b.reserved += int((lead + p.N + ss - 1) / ss * ss)
	return true
}

// address is where the first byte of a piece of a plain extent lies.
func (p *Piece) address() uint64 { return uint64(p.e.DiskBytenr) + p.e.Offset + p.skip }

// fitPacked reserves the memory of a compressed extent, packed and unpacked,
// unless the piece before is of the same one.
func (b *Batch) fitPacked(p *Piece) bool {
	if n := len(b.pieces); n > 0 && b.pieces[n-1].sharesWith(p) {
		return true
	}
	need := int(p.e.DiskNumBytes+p.e.RAMBytes) + compress.Slack
	if need > b.Room() {
		return false
	}
	b.reserved += need
	return true
}

// sharesWith tells whether both pieces are of the same compressed extent.
func (p *Piece) sharesWith(q *Piece) bool {
	return p.e.Compression == q.e.Compression && p.e.Compression != ondisk.CompressNone &&
		p.e.DiskBytenr == q.e.DiskBytenr && p.e.DiskNumBytes == q.e.DiskNumBytes && p.e.RAMBytes == q.e.RAMBytes
}
