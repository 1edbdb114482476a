package filedata

import (
	"bytes"
	"context"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Truncate sets the size of the file. What a larger size adds is a hole.
func (w *Writer) Truncate(ctx context.Context, size uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := checkRange(size, 0); err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	for dropped := false; !dropped; {
		err := w.inTx(ctx, needDrop(), func(c *change) (err error) {
			dropped, err = c.shrink(ctx, size)
			return err
		})
		if err != nil {
			return err
		}
	}
	return w.inTx(ctx, w.need(0, 1), func(c *change) error { return c.resize(ctx, size) })
}

// needDrop is what dropping itemsAtOnce extents may use up.
func needDrop() transaction.Need {
	return transaction.Need{Items: 16 + 2*itemsAtOnce, Deleting: true}
}

// shrink drops some of the extents beyond size, and tells whether all are gone.
// The size becomes smaller as far as no part of a sector is cut.
func (c *change) shrink(ctx context.Context, size uint64) (done bool, err error) {
	if size > c.inode.Size {
		return true, nil
	}
	n, at, err := c.t.TrimExtents(ctx, c.ino, c.ceil(size), itemsAtOnce)
	if err != nil {
		return false, err
	}
	c.nbytes += n
	return at == c.ceil(size), c.finish(ctx, min(c.inode.Size, at))
}

// resize sets a size that needs no extents to be dropped. The sector at the end
// is written anew when it lies in the tree, or has bytes that must become zero.
func (c *change) resize(ctx context.Context, size uint64) error {
	if size == c.inode.Size {
		return nil
	}
	end := min(size, c.inode.Size)
	inline, err := c.hasInline(ctx)
	if err != nil {
		return err
	}
	dirty, err := c.dirtyTail(ctx, end)
	if err != nil {
		return err
	}
	if !inline && !dirty {
		return c.finish(ctx, size)
	}
	var segs []segment
	if n := c.ceil(end) - end; n > 0 {
		segs = []segment{{end, make([]byte, n)}}
	}
	return c.write(ctx, segs, size)
}

// dirtyTail tells whether the file has bytes other than zero between end and the
// end of its sector.
func (c *change) dirtyTail(ctx context.Context, end uint64) (bool, error) {
	b := make([]byte, c.ceil(end)-end)
	if err := c.r.read(ctx, c.inode, b, end); err != nil {
		return false, err
	}
	return !allZero(b), nil
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// leaveTree gives the bytes of a file that lie in the tree a place outside, so
// that it can have other extents.
func (c *change) leaveTree(ctx context.Context) error {
	inline, err := c.hasInline(ctx)
	if err != nil || !inline {
		return err
	}
	c.noInline = true
	if err := c.write(ctx, nil, c.inode.Size); err != nil {
		return err
	}
	c.nbytes = 0 // is in the inode
	c.inode, err = fstree.ReadInode(ctx, c.t.Items(), c.ino)
	return err
}
