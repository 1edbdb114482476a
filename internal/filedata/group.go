package filedata

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// group is a run of whole sectors to be written.
type group struct {
	off  uint64
	data []byte
}

func (g group) end() uint64 { return g.off + uint64(len(g.data)) }

// write stores segments, sorted and not overlapping, in a file that has the
// given size afterwards. It may cut the file only inside its last sector.
func (c *change) write(ctx context.Context, segs []segment, size uint64) error {
	segs, err := c.withTail(ctx, segs, size)
	if err != nil {
		return err
	}
	groups, err := c.groups(ctx, segs, size)
	if err != nil {
		return err
	}
	inline, err := c.inlinePiece(ctx, groups, size)
	if err != nil {
		return err
	}
	if inline != nil {
		if err := c.replace(ctx, 0, c.ss, []fstree.Piece{*inline}); err != nil {
			return err
		}
		return c.finish(ctx, size)
	}
	stored, err := c.store(ctx, groups)
	if err != nil {
		return err
	}
	for i, g := range groups {
		if err := c.replace(ctx, g.off, g.end(), stored[i]); err != nil {
			return err
		}
	}
	return c.finish(ctx, size)
}

// withTail adds zeros behind the old end of a file that grows, up to the end of
// its sector, unless they are there or that sector is written anyway: the kernel
// leaves what was there when it makes a file shorter.
func (c *change) withTail(ctx context.Context, segs []segment, size uint64) ([]segment, error) {
	old, end := c.inode.Size, c.ceil(c.inode.Size)
	if size <= old || old == end {
		return segs, nil
	}
	at := 0
	for ; at < len(segs) && segs[at].off < end; at++ {
		if c.ceil(segs[at].end()) >= end {
			return segs, nil
		}
	}
	dirty, err := c.dirtyTail(ctx, old)
	if err != nil || !dirty {
		return segs, err
	}
	return slices.Insert(slices.Clone(segs), at, segment{old, make([]byte, end-old)}), nil
}

// groups makes whole sectors of segments, reading what the file has at their
// edges. Inline data that would no longer be alone in the file are among them.
func (c *change) groups(ctx context.Context, segs []segment, size uint64) ([]group, error) {
	inline, err := c.hasInline(ctx)
	if err != nil {
		return nil, err
	}
	var out []group
	if inline && (len(segs) == 0 || segs[0].off >= c.ss) {
		g, err := c.group(ctx, nil, 0, min(c.ss, c.ceil(size)), size)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	for len(segs) > 0 {
		n, end := 1, c.ceil(segs[0].end())
		for n < len(segs) && segs[n].off <= end {
			end = max(end, c.ceil(segs[n].end()))
			n++
		}
		g, err := c.group(ctx, segs[:n], c.floor(segs[0].off), end, size)
		if err != nil {
			return nil, err
		}
		out, segs = append(out, g), segs[n:]
	}
	return out, nil
}

// group makes one group [from, to) of segments that lie in it.
func (c *change) group(ctx context.Context, segs []segment, from, to, size uint64) (group, error) {
	if len(segs) == 1 && segs[0].off == from && segs[0].end() == to && size >= to {
		return group{from, segs[0].data}, nil
	}
	g := group{off: from, data: make([]byte, to-from)}
	at := from // everything before is filled
	for _, s := range segs {
		if err := c.fill(ctx, g, at, s.off); err != nil {
			return g, err
		}
		copy(g.data[s.off-from:], s.data)
		at = s.end()
	}
	if err := c.fill(ctx, g, at, to); err != nil {
		return g, err
	}
	if size < to {
		clear(g.data[size-from:])
	}
	return g, nil
}

// fill reads [from, to) of the group from the file; what is behind its end stays
// zero, whatever lies there.
func (c *change) fill(ctx context.Context, g group, from, to uint64) error {
	if to = min(to, c.inode.Size); from >= to {
		return nil
	}
	return c.r.read(ctx, c.inode, g.data[from-g.off:to-g.off], from)
}

func (c *change) hasInline(ctx context.Context) (bool, error) {
	b, err := c.t.Items().Get(ctx, ondisk.Key{Objectid: c.ino, Type: ondisk.TypeExtentData})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e, err := ondisk.DecodeFileExtent(b)
	return e.Type == ondisk.ExtentInline, err
}

// maxInline is the most bytes that are stored in the tree.
const maxInline = 2048

// inlinePiece gives the extent of a file that is small enough to lie in the
// tree, or nil.
func (c *change) inlinePiece(ctx context.Context, groups []group, size uint64) (*fstree.Piece, error) {
	if c.noInline || len(groups) != 1 || groups[0].off != 0 || size == 0 || size > c.ss || groups[0].end() != c.ss ||
		c.inode.Flags&ondisk.InodeNodatacow != 0 {
		return nil, nil
	}
	alone := true
	err := fstree.Extents(ctx, c.t.Items(), c.ino, c.ss, ^uint64(0), func(uint64, ondisk.FileExtent) error {
		alone = false
		return fs.SkipAll
	})
	if err != nil || !alone {
		return nil, err
	}
	e := ondisk.FileExtent{Generation: c.tx.Generation(), RAMBytes: size, Inline: groups[0].data[:size]}
	if algo, level := c.algorithm(ctx); algo != ondisk.CompressNone {
		if b, ok := encodeInline(algo, level, e.Inline, int(c.ss)); ok && len(b) <= maxInline {
			e.Compression, e.Inline, c.used = algo, b, algo
			return &fstree.Piece{Extent: e}, nil
		}
	}
	if size > maxInline || size >= c.ss {
		return nil, nil
	}
	return &fstree.Piece{Extent: e}, nil
}
