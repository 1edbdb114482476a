package filedata

import (
	"context"
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Allocate reserves space for the holes in [off, off+n): they still read as
// zeros. The file grows to hold the range unless keepSize.
func (w *Writer) Allocate(ctx context.Context, off, n uint64, keepSize bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := checkRange(off, n); err != nil {
		return err
	}
	if n == 0 {
		return fs.ErrInvalid
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	if !keepSize {
		if err := w.inTx(ctx, w.need(0, 1), func(c *change) error { return c.zeroTail(ctx, off+n) }); err != nil {
			return err
		}
	}
	ss := uint64(w.m.Volume().Sectorsize())
	for at, end := off/ss*ss, (off+n+ss-1)/ss*ss; at < end; {
		step := min(end-at, maxExtent)
		need := w.need(0, clonesAtOnce)
		need.Data += step
		err := w.inTx(ctx, need, func(c *change) (err error) {
			at, err = c.allocate(ctx, at, at+step, off+n, keepSize)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// allocate reserves space for some holes in [from, to) and tells up to where.
// The file gets at most the size given.
func (c *change) allocate(ctx context.Context, from, to, size uint64, keepSize bool) (uint64, error) {
	if err := c.leaveTree(ctx); err != nil {
		return from, err
	}
	gaps, stop, err := c.gaps(ctx, from, to)
	if err != nil {
		return from, err
	}
	pieces, err := c.reserved(ctx, gaps)
	if err != nil {
		return from, err
	}
	for _, p := range pieces {
		if err := c.replace(ctx, p.Off, p.Off+p.Extent.NumBytes, []fstree.Piece{p}); err != nil {
			return from, err
		}
	}
	if size = max(c.inode.Size, min(size, stop)); keepSize {
		size = c.inode.Size
	}
	if err := c.finish(ctx, size); err != nil {
		return from, err
	}
	return stop, c.t.EditInode(ctx, c.ino, func(it *ondisk.InodeItem) { it.Flags |= ondisk.InodePrealloc })
}

// reserved finds space for gaps; without enough nothing is changed.
func (c *change) reserved(ctx context.Context, gaps []gap) (out []fstree.Piece, err error) {
	for _, g := range gaps {
		for g.off < g.end {
			at, n, err := c.tx.AllocData(ctx, g.end-g.off)
			if err != nil {
				for _, p := range out {
					err = errors.Join(err, c.tx.FreeData(ctx, p.Extent.DiskBytenr, p.Extent.DiskNumBytes))
				}
				return nil, err
			}
			out = append(out, fstree.Piece{Off: g.off, Extent: ondisk.FileExtent{
				Generation: c.tx.Generation(), Type: ondisk.ExtentPrealloc, RAMBytes: n, DiskBytenr: at, DiskNumBytes: n, NumBytes: n,
			}})
			g.off += n
		}
	}
	return out, nil
}

type gap struct{ off, end uint64 }

// gaps lists the holes in [from, to), or as many as one transaction fills, and
// tells where the search ended.
func (c *change) gaps(ctx context.Context, from, to uint64) (out []gap, stop uint64, err error) {
	at := from
	err = fstree.Extents(ctx, c.t.Items(), c.ino, from, to, func(off uint64, e ondisk.FileExtent) error {
		if e.Type != ondisk.ExtentInline && e.DiskBytenr == 0 {
			return nil // a hole that is an item
		}
		if at < off {
			out = append(out, gap{at, off})
		}
		at = max(at, min(off+fstree.Span(e), to))
		if len(out) == clonesAtOnce {
			return fs.SkipAll
		}
		return nil
	})
	if len(out) < clonesAtOnce && at < to {
		out = append(out, gap{at, to})
		at = to
	}
	return out, at, err
}
