package filedata

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// maxCompressed bounds both sizes of a compressed extent. Writers use 128 KiB;
// the bound only keeps a bad item from asking for much memory.
const maxCompressed = 1 << 20

// Reader reads the bytes of one file. It may be used by several goroutines.
type Reader struct {
	v      *volume.Volume
	ino    uint64
	layout csumtree.Layout
	trees  readTrees
	cache  *decodedCache

	unproven *atomic.Int64 // sectors given that no checksum proves right
}

type readTrees struct{ fs, csums *btree.Tree }

// NewReader gives a reader of inode ino. fsTree and csumTree must not change
// during a call; csumTree is nil where it is lost: data that need it cannot be read.
func NewReader(ctx context.Context, v *volume.Volume, fsTree, csumTree *btree.Tree, ino uint64) (*Reader, error) {
	r := newReader(v, ino, readTrees{fsTree, csumTree})
	if _, err := fstree.ReadInode(ctx, fsTree, ino); err != nil {
		return nil, err
	}
	return r, nil
}

func newReader(v *volume.Volume, ino uint64, trees readTrees) *Reader {
	return &Reader{v: v, ino: ino, layout: layoutOf(v), trees: trees, cache: &decodedCache{}, unproven: new(atomic.Int64)}
}

func layoutOf(v *volume.Volume) csumtree.Layout {
	return csumtree.Layout{Sectorsize: v.Sectorsize(), Nodesize: v.Nodesize(), Size: v.CsumType().Size()}
}

// Rebind gives a reader of the same file that uses other handles of the same
// trees, for example as the running transaction has them now, and keeps what was
// decoded.
func (r *Reader) Rebind(fsTree, csumTree *btree.Tree) *Reader {
	n := *r
	n.trees = readTrees{fsTree, csumTree}
	return &n
}

// Unproven counts the sectors that this reader and those rebound to it gave although no checksum proves them right.
func (r *Reader) Unproven() int64 { return r.unproven.Load() }

// Size is the size of the file.
func (r *Reader) Size(ctx context.Context) (uint64, error) {
	it, err := fstree.ReadInode(ctx, r.trees.fs, r.ino)
	return it.Size, err
}

// ReadAt reads from offset off; io.EOF when the file ends before p is full.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	it, err := fstree.ReadInode(ctx, r.trees.fs, r.ino)
	if err != nil {
		return 0, err
	}
	if off < 0 || uint64(off) >= it.Size {
		return 0, io.EOF
	}
	n := int(min(uint64(len(p)), it.Size-uint64(off)))
	if err := r.read(ctx, it, p[:n], uint64(off)); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read fills p with the bytes of the file from off, which may lie beyond its
// size: what no extent covers is zero.
func (r *Reader) read(ctx context.Context, it ondisk.InodeItem, p []byte, off uint64) error {
	done := 0 // bytes of p that are filled
	end := off + uint64(len(p))
	err := fstree.Extents(ctx, r.trees.fs, r.ino, off, end, func(at uint64, e ondisk.FileExtent) error {
		from, to := max(at, off, off+uint64(done)), min(at+fstree.Span(e), end)
		if from >= to {
			return nil
		}
		clear(p[done : from-off])
		done = int(to - off)
		if err := r.piece(ctx, it, p[from-off:to-off], from-at, e); err != nil {
			return fmt.Errorf("inode %d of subvolume %d at offset %d: %w", r.ino, uint64(r.trees.fs.ID()), from, err)
		}
		return nil
	})
	clear(p[done:])
	return err
}

// piece reads len(p) bytes from the skip-th byte of what the extent gives to the
// file.
func (r *Reader) piece(ctx context.Context, it ondisk.InodeItem, p []byte, skip uint64, e ondisk.FileExtent) error {
	if err := checkExtent(e, skip, uint64(len(p))); err != nil {
		return err
	}
	switch {
	case e.Type == ondisk.ExtentInline:
		return r.inline(p, skip, e)
	case IsHole(e):
		clear(p)
		return nil
	}
	from := e.Offset + skip
	if e.Compression != ondisk.CompressNone {
		b, err := r.decoded(ctx, it, e)
		if err == nil {
			copy(p, b[from:])
		}
		return err
	}
	return r.plain(ctx, it, p, e.DiskBytenr+ondisk.Bytenr(from))
}

// IsHole tells whether an extent stands for zeros that are nowhere.
func IsHole(e ondisk.FileExtent) bool {
	return e.Type == ondisk.ExtentPrealloc || e.Type == ondisk.ExtentReg && e.DiskBytenr == 0
}

// checkExtent refuses an extent that cannot give n bytes from its skip-th on.
func checkExtent(e ondisk.FileExtent, skip, n uint64) error {
	switch {
	case e.Encryption != 0:
		return badExtent("unknown encryption", e.Encryption)
	case e.OtherEncoding != 0:
		return badExtent("unknown encoding", e.OtherEncoding)
	case e.Type == ondisk.ExtentInline || IsHole(e):
		return nil
	case e.Type != ondisk.ExtentReg:
		return badExtent("unknown type", e.Type)
	}
	from := e.Offset + skip
	switch {
	case uint64(e.DiskBytenr) > math.MaxInt64 || e.DiskNumBytes > math.MaxInt64:
		return badExtent("lies beyond the largest address", e.DiskBytenr)
	case from < e.Offset || from+n < from || from+n > e.RAMBytes:
		return badExtent("reaches beyond its data", e.Offset)
	case e.Compression == ondisk.CompressNone && from+n > e.DiskNumBytes:
		return badExtent("reaches beyond its place on disk", e.DiskNumBytes)
	case e.Compression != ondisk.CompressNone && (e.RAMBytes > maxCompressed || e.DiskNumBytes > maxCompressed):
		return badExtent("compressed extent too large", max(e.RAMBytes, e.DiskNumBytes))
	}
	return nil
}

func badExtent(reason string, got any) error {
	return &ondisk.CorruptError{What: "file extent", Slot: -1, Reason: reason, Got: got}
}

// inline copies from the data in the item.
func (r *Reader) inline(p []byte, skip uint64, e ondisk.FileExtent) error {
	b, err := inlineData(e, r.layout.Sectorsize)
	if err != nil {
		return err
	}
	n := 0
	if skip < uint64(len(b)) {
		n = copy(p, b[skip:])
	}
	clear(p[n:])
	return nil
}

// inlineData gives the plain bytes of an inline extent.
func inlineData(e ondisk.FileExtent, sectorsize uint32) ([]byte, error) {
	if e.Compression == ondisk.CompressNone {
		return e.Inline, nil
	}
	if e.RAMBytes > uint64(sectorsize) {
		return nil, badExtent("inline data larger than a sector", e.RAMBytes)
	}
	b := make([]byte, e.RAMBytes)
	return b, compress.Decode(e.Compression, b, e.Inline, int(sectorsize), true)
}

// plain reads bytes that lie on disk as they are. Whole sectors are read, since
// only those have a checksum.
func (r *Reader) plain(ctx context.Context, it ondisk.InodeItem, p []byte, at ondisk.Bytenr) error {
	ss := ondisk.Bytenr(r.layout.Sectorsize)
	from, to := at/ss*ss, (at+ondisk.Bytenr(len(p))+ss-1)/ss*ss
	if from == at && int(to-from) == len(p) {
		return r.sectors(ctx, it, p, from)
	}
	b := make([]byte, to-from)
	if err := r.sectors(ctx, it, b, from); err != nil {
		return err
	}
	copy(p, b[at-from:])
	return nil
}

// decoded gives the whole decoded extent, from the cache if it is there.
func (r *Reader) decoded(ctx context.Context, it ondisk.InodeItem, e ondisk.FileExtent) ([]byte, error) {
	k, durable := decodedKey{e.DiskBytenr, e.Generation}, e.Generation <= r.v.Super().Generation
	if b := r.cache.get(k); durable && uint64(len(b)) == e.RAMBytes && b != nil {
		return b, nil
	}
	src := make([]byte, e.DiskNumBytes)
	if err := r.sectors(ctx, it, src, e.DiskBytenr); err != nil {
		return nil, err
	}
	b := make([]byte, e.RAMBytes, e.RAMBytes+compress.Slack)
	if err := compress.Decode(e.Compression, b, src, int(r.layout.Sectorsize), false); err != nil {
		return nil, fmt.Errorf("extent at %d: %w", e.DiskBytenr, err)
	}
	if durable {
		r.cache.put(k, b)
	}
	return b, nil
}
