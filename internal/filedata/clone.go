package filedata

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// clone is a range of one file that becomes a range of another.
type clone struct {
	sub  ondisk.TreeID
	ino  uint64
	from uint64 // in the source
	off  uint64 // in the file that is written
	n    uint64
}

// Clone makes [off, off+n) share the extents of another file, or of another
// range of this one, at srcOff. Offsets are multiples of the sector size; so is
// n, unless the range ends at the end of the source and not before the end of
// this file. What is gathered for the source must have been flushed.
func (w *Writer) Clone(ctx context.Context, off uint64, srcSub ondisk.TreeID, srcIno, srcOff, n uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := checkRange(off, n); err != nil {
		return err
	}
	if err := checkRange(srcOff, n); err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	if err := w.inTx(ctx, w.need(0, 1), func(c *change) error { return c.zeroTail(ctx, off) }); err != nil {
		return err
	}
	x := clone{srcSub, srcIno, srcOff, off, n}
	for done := uint64(0); done < n; {
		need := w.need(0, 2)
		need.Items += clonesAtOnce / 2
		err := w.inTx(ctx, need, func(c *change) error {
			if done == 0 {
				if err := c.checkClone(ctx, x); err != nil {
					return err
				}
			}
			step, err := c.clone(ctx, x, done)
			done += step
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// zeroTail makes the bytes between the end of the file and the end of its sector
// zero, when the file is about to grow by something that is put at off.
func (c *change) zeroTail(ctx context.Context, off uint64) error {
	if off <= c.inode.Size || c.inode.Size%c.ss == 0 {
		return nil
	}
	dirty, err := c.dirtyTail(ctx, c.inode.Size)
	if err != nil || !dirty {
		return err
	}
	c.stamped = true
	end := c.ceil(c.inode.Size)
	return c.write(ctx, []segment{{c.inode.Size, make([]byte, end-c.inode.Size)}}, c.inode.Size)
}

// checkClone refuses ranges that cannot share extents.
func (c *change) checkClone(ctx context.Context, x clone) error {
	src, err := c.source(ctx, x)
	if err != nil {
		return err
	}
	bad := func(why string) error {
		return fmt.Errorf("clone to inode %d of subvolume %d: %s: %w", c.ino, uint64(c.sub), why, fs.ErrInvalid)
	}
	end := x.from + x.n
	switch {
	case src.inode.Mode&fstree.ModeType != fstree.ModeFile:
		return bad("the source is not a regular file")
	case (src.inode.Flags^c.inode.Flags)&ondisk.InodeNodatasum != 0:
		return bad("only one of both files has checksums")
	case end > src.inode.Size:
		return bad("the range reaches beyond the source")
	case x.off%c.ss != 0 || x.from%c.ss != 0:
		return bad("not aligned")
	case x.n%c.ss != 0 && (end != src.inode.Size || x.off+x.n < c.inode.Size):
		return bad("not aligned at the end")
	case x.sub == c.sub && x.ino == c.ino && x.off < end && x.from < x.off+x.n:
		return bad("source and target overlap")
	}
	return nil
}

// source is the other file, read through the same transaction.
type source struct {
	*Reader
	inode ondisk.InodeItem
}

func (c *change) source(ctx context.Context, x clone) (source, error) {
	if err := fstree.Alive(ctx, c.tx, x.sub); err != nil { // its extents may be gone
		return source{}, fmt.Errorf("inode %d of subvolume %d: %w", x.ino, uint64(x.sub), err)
	}
	t, err := c.tx.Tree(ctx, x.sub)
	if err != nil {
		return source{}, err
	}
	it, err := fstree.ReadInode(ctx, t, x.ino)
	r := newReader(c.r.v, x.ino, readTrees{t, c.r.trees.csums})
	return source{r, it}, err
}

// clone shares what follows the first done bytes of the range, some extents of
// it, and tells how many bytes that were.
func (c *change) clone(ctx context.Context, x clone, done uint64) (uint64, error) {
	src, err := c.source(ctx, x)
	if err != nil {
		return 0, err
	}
	if src.inode.Size < x.from+x.n {
		return 0, fmt.Errorf("inode %d became shorter: %w", x.ino, fs.ErrInvalid)
	}
	from, off := x.from+done, x.off+done
	end := c.ceil(x.from + x.n)
	pieces, stop, inline, err := c.shared(ctx, src, from, end, off)
	if err != nil {
		return 0, err
	}
	if inline { // bytes in the tree cannot be shared
		b := make([]byte, min(c.ss, x.n))
		if err := src.read(ctx, src.inode, b, 0); err != nil {
			return 0, err
		}
		return uint64(len(b)), c.write(ctx, []segment{{off, b}}, max(c.inode.Size, off+uint64(len(b))))
	}
	step := min(stop-from, x.n-done)
	size := max(c.inode.Size, off+step)
	if err := c.leaveTree(ctx); err != nil {
		return 0, err
	}
	if err := c.replace(ctx, off, off+stop-from, pieces); err != nil {
		return 0, err
	}
	if err := c.fillHoles(ctx, off, off+stop-from); err != nil {
		return 0, err
	}
	return step, c.finish(ctx, size)
}

// shared gives pieces for off that share the extents of the source from from on,
// and where in the source they end: at end or after clonesAtOnce pieces. inline
// tells that the source has its bytes in the tree.
func (c *change) shared(ctx context.Context, src source, from, end, off uint64) (pieces []fstree.Piece, stop uint64, inline bool, err error) {
	stop = end
	err = fstree.Extents(ctx, src.trees.fs, src.ino, from, end, func(at uint64, e ondisk.FileExtent) error {
		if e.Type == ondisk.ExtentInline {
			inline = true
			return fs.SkipAll
		}
		if e.Type != ondisk.ExtentReg || e.DiskBytenr == 0 {
			return nil
		}
		a, b := max(at, from), min(at+e.NumBytes, end)
		if len(pieces) == clonesAtOnce {
			stop = a
			return fs.SkipAll
		}
		e.Offset += a - at
		e.NumBytes = b - a
		pieces = append(pieces, fstree.Piece{Off: off + a - from, Extent: e})
		return nil
	})
	return pieces, stop, inline, err
}
