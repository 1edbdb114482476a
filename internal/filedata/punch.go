package filedata

import (
	"context"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Punch makes [off, off+n) a hole. The size stays.
func (w *Writer) Punch(ctx context.Context, off, n uint64) error {
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
	end := off + n
	if err := w.inTx(ctx, w.need(0, 2), func(c *change) error { return c.punchEdges(ctx, off, end) }); err != nil {
		return err
	}
	for done := false; !done; {
		err := w.inTx(ctx, needDrop(), func(c *change) (err error) {
			done, err = c.punch(ctx, off, end)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// punchEdges writes zeros to the parts of sectors at both ends.
func (c *change) punchEdges(ctx context.Context, off, end uint64) error {
	end = min(end, c.inode.Size)
	if off >= end {
		return nil
	}
	inline, err := c.hasInline(ctx)
	if err != nil {
		return err
	}
	var segs []segment
	add := func(from, to uint64) error {
		if from >= to {
			return nil
		}
		b := make([]byte, to-from)
		if err := c.r.read(ctx, c.inode, b, from); err != nil {
			return err
		}
		if !allZero(b) {
			segs = append(segs, segment{from, make([]byte, to-from)})
		}
		return nil
	}
	switch {
	case inline && off < c.ss:
		err = add(off, min(end, c.ss))
	case c.floor(off) == c.floor(end) && end < c.inode.Size:
		err = add(off, end)
	default:
		if err = add(off, min(c.ceil(off), end)); err == nil && end < c.inode.Size {
			err = add(max(c.floor(end), off), end)
		}
	}
	if err != nil || len(segs) == 0 {
		return err
	}
	return c.write(ctx, segs, c.inode.Size)
}

// punch drops some of the extents between the edges, and tells whether all are
// gone.
func (c *change) punch(ctx context.Context, off, end uint64) (done bool, err error) {
	from, to := c.ceil(off), c.floor(end)
	if end >= c.inode.Size {
		to = max(to, c.ceil(c.inode.Size))
	}
	inline, err := c.hasInline(ctx)
	if err != nil {
		return false, err
	}
	if inline { // the edges were enough
		from = max(from, c.ss)
	}
	if from >= to {
		return true, nil
	}
	stop, found, err := c.some(ctx, from, to)
	if err != nil || !found {
		return true, err
	}
	if err := c.replace(ctx, from, stop, nil); err != nil {
		return false, err
	}
	if err := c.fillHoles(ctx, from, min(stop, c.ceil(c.inode.Size))); err != nil {
		return false, err
	}
	return stop == to, c.finish(ctx, c.inode.Size)
}

// some gives the end of the first itemsAtOnce extents in [from, to), or to if
// there are not more, and whether any of them has data.
func (c *change) some(ctx context.Context, from, to uint64) (stop uint64, data bool, err error) {
	n := 0
	stop = to
	err = fstree.Extents(ctx, c.t.Items(), c.ino, from, to, func(off uint64, e ondisk.FileExtent) error {
		if n++; n > itemsAtOnce {
			stop = max(off, from)
			return fs.SkipAll
		}
		data = data || e.DiskBytenr != 0
		return nil
	})
	return stop, data || stop != to, err
}
