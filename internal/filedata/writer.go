package filedata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// How much a Writer keeps before it writes: bytes, and pieces that do not touch.
const (
	gather       = 16 << 20
	gatherPieces = 512
)

// How many extents one transaction drops, and clones.
const (
	itemsAtOnce  = 1024
	clonesAtOnce = 128
)

// WriterOptions tell how a file is written.
type WriterOptions struct {
	// Compression of files whose flags and property do not say anything:
	// ondisk.CompressNone …
	Compression uint8
	Level       int // of the compression, 0 is its default
}

// Writer changes the bytes of one file. What is written is gathered in memory
// until Flush, or until it is much. Every call that changes the tree opens its
// own transactions. A Writer may be used by several goroutines.
type Writer struct {
	m   *transaction.Manager
	sub ondisk.TreeID
	ino uint64
	opt WriterOptions

	mu      sync.Mutex
	dirty   dirty
	stamped time.Time // when WriteAt last set the time of the last change
}

// NewWriter gives a writer of inode ino in subvolume sub.
func NewWriter(m *transaction.Manager, sub ondisk.TreeID, ino uint64, opt WriterOptions) *Writer {
	return &Writer{m: m, sub: sub, ino: ino, opt: opt}
}

// WriteAt writes p at off. The bytes are in the tree after the next Flush, the
// time of the last change at once: a time that is set before Flush is kept.
func (w *Writer) WriteAt(ctx context.Context, p []byte, off uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := checkRange(off, uint64(len(p))); err != nil {
		return err
	}
	if err := w.stamp(ctx); err != nil || len(p) == 0 {
		return err
	}
	for len(p) > 0 {
		if w.dirty.bytes >= gather || len(w.dirty.segs) >= gatherPieces {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		n := min(len(p), gather-w.dirty.bytes)
		if n == gather { // nothing to gather: write it from where it is
			if err := w.write(ctx, []segment{{off, p[:n]}}, n); err != nil {
				return err
			}
		} else {
			w.dirty.write(off, p[:n])
		}
		off, p = off+uint64(n), p[n:]
	}
	return nil
}

// stampEvery is how exact the time of the last change is.
const stampEvery = 10 * time.Millisecond

// stamp sets the time of the last change, unless it was set just now for bytes
// that are still gathered.
func (w *Writer) stamp(ctx context.Context) error {
	if len(w.dirty.segs) > 0 && time.Since(w.stamped) < stampEvery {
		return nil
	}
	w.stamped = time.Now()
	return w.inTx(ctx, transaction.Need{Items: 1}, func(c *change) error {
		return c.t.EditInode(ctx, c.ino, func(it *ondisk.InodeItem) {
			it.Mtime = c.tx.Now()
			it.Ctime = it.Mtime
		})
	})
}

// checkRange refuses what lies beyond the largest file.
func checkRange(off, n uint64) error {
	if off > math.MaxInt64 || n > math.MaxInt64-off {
		return fmt.Errorf("range [%d, +%d) of a file: %w", off, n, fs.ErrInvalid)
	}
	return nil
}

// Flush brings what was gathered into the tree. After an error of Begin (no
// space, for example) it is still gathered. When the subvolume was deleted it is
// forgotten.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush(ctx)
}

// Pending tells whether anything is gathered.
func (w *Writer) Pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dirty.segs) > 0
}

// Discard forgets what was gathered.
func (w *Writer) Discard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = dirty{}
}

func (w *Writer) flush(ctx context.Context) error {
	if len(w.dirty.segs) == 0 {
		return nil
	}
	err := w.write(ctx, w.dirty.segs, w.dirty.bytes)
	if errors.Is(err, fstree.ErrDeleted) {
		err = nil // nobody can read it any more
	}
	if err == nil {
		w.dirty = dirty{}
	}
	return err
}

// write stores segments with so many bytes.
func (w *Writer) write(ctx context.Context, segs []segment, bytes int) error {
	return w.inTx(ctx, w.need(bytes, len(segs)), func(c *change) error {
		c.stamped = true
		return c.write(ctx, segs, max(c.inode.Size, segs[len(segs)-1].end()))
	})
}

// need says what writing so many bytes in so many pieces may use up. New extents
// lie side by side in every tree; what they replace may be anywhere.
func (w *Writer) need(bytes, pieces int) transaction.Need {
	ss := w.m.Volume().Sectorsize()
	return transaction.Need{
		Items: 8 + pieces/2 + bytes>>22,
		Data:  uint64(bytes) + uint64(2*pieces+1)*uint64(ss),
	}
}

// change is one transaction's work on the file.
type change struct {
	*Writer
	tx    *transaction.Tx
	t     *fstree.Tree
	r     *Reader // of the file as the transaction has it
	inode ondisk.InodeItem
	ss    uint64
	holes bool // holes need items

	stamped  bool // the inode has its times already
	noInline bool // no bytes may be left in the tree

	nbytes int64 // change of the inode's nbytes
	used   uint8 // compression that was used
}

// inTx runs fn in a transaction.
func (w *Writer) inTx(ctx context.Context, need transaction.Need, fn func(*change) error) error {
	tx, err := w.m.Begin(ctx, need)
	if err != nil {
		return err
	}
	c, err := w.begin(ctx, tx)
	if err == nil {
		err = fn(c)
	}
	return errors.Join(err, tx.End(ctx))
}

func (w *Writer) begin(ctx context.Context, tx *transaction.Tx) (*change, error) {
	if err := fstree.Writable(ctx, tx, w.sub); err != nil {
		return nil, fmt.Errorf("inode %d of subvolume %d: %w", w.ino, uint64(w.sub), err)
	}
	t, err := fstree.Open(ctx, tx, w.sub)
	if err != nil {
		return nil, err
	}
	csums, err := tx.Tree(ctx, ondisk.CsumTree)
	if err != nil {
		return nil, err
	}
	it, err := fstree.ReadInode(ctx, t.Items(), w.ino)
	if err != nil {
		return nil, err
	}
	if it.Mode&fstree.ModeType != fstree.ModeFile {
		return nil, fmt.Errorf("inode %d: not a regular file: %w", w.ino, fs.ErrInvalid)
	}
	if it.Flags&(ondisk.InodeImmutable|ondisk.InodeReadonly|ondisk.InodeVerity) != 0 {
		return nil, fmt.Errorf("inode %d has flags %#x: %w", w.ino, it.Flags, fs.ErrPermission)
	}
	v := w.m.Volume()
	r := newReader(v, w.ino, readTrees{t.Items(), csums})
	return &change{
		Writer: w, tx: tx, t: t, r: r, inode: it, ss: uint64(v.Sectorsize()),
		holes: tx.Super().Incompat&ondisk.IncompatNoHoles == 0,
	}, nil
}

func (c *change) floor(n uint64) uint64 { return n / c.ss * c.ss }
func (c *change) ceil(n uint64) uint64  { return (n + c.ss - 1) / c.ss * c.ss }

// replace puts pieces in the place of what is in [from, to).
func (c *change) replace(ctx context.Context, from, to uint64, pieces []fstree.Piece) error {
	n, err := c.t.ReplaceExtents(ctx, c.ino, from, to, pieces)
	c.nbytes += n
	return err
}

// finish fills the holes of a file that grew and writes the inode.
func (c *change) finish(ctx context.Context, size uint64) error {
	if size > c.inode.Size {
		if err := c.fillHoles(ctx, c.floor(c.inode.Size), c.ceil(size)); err != nil {
			return err
		}
	}
	if bits := fstree.FeatureOf(c.used); bits != 0 {
		c.tx.AddIncompat(bits)
	}
	return c.t.EditInode(ctx, c.ino, func(it *ondisk.InodeItem) {
		it.Size = size
		it.Nbytes += uint64(c.nbytes)
		if !c.stamped {
			it.Mtime = c.tx.Now()
			it.Ctime = it.Mtime
		}
	})
}

// fillHoles puts hole items where [from, to) has no item, on volumes that want
// those.
func (c *change) fillHoles(ctx context.Context, from, to uint64) error {
	if !c.holes {
		return nil
	}
	var gaps []fstree.Piece
	at := from
	gap := func(end uint64) {
		if at < end {
			gaps = append(gaps, fstree.Piece{Off: at, Extent: ondisk.FileExtent{
				Generation: c.tx.Generation(), Type: ondisk.ExtentReg, RAMBytes: end - at, NumBytes: end - at,
			}})
		}
	}
	err := fstree.Extents(ctx, c.t.Items(), c.ino, from, to, func(off uint64, e ondisk.FileExtent) error {
		gap(min(off, to))
		at = max(at, c.ceil(off+fstree.Span(e)))
		return nil
	})
	if err != nil {
		return c.tx.Fail(err)
	}
	gap(to)
	for _, g := range gaps {
		if err := c.replace(ctx, g.Off, g.Off+g.Extent.NumBytes, []fstree.Piece{g}); err != nil {
			return err
		}
	}
	return nil
}
