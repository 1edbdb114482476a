package space

import (
	"context"
	"errors"
	"math/bits"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// load reads what is free in a group, if that was not done yet.
func (s *Space) load(ctx context.Context, g *Group) error {
	if g.used != nil {
		return nil
	}
	g.used, g.fresh = newBitmap(g.n), newBitmap(g.n)
	err := s.fill(ctx, g)
	if err != nil {
		g.used, g.fresh = nil, nil
		return err
	}
	g.busy = append(bitmap(nil), g.used...)
	for _, r := range g.supers {
		g.busy.set(r[0], r[1])
	}
	g.busyBytes = uint64(g.busy.count(0, g.n)) << g.shift
	return nil
}

// fill sets the used bits from the free space tree. If that one is wrong about this group, as from the extent tree.
func (s *Space) fill(ctx context.Context, g *Group) error {
	if s.cfg.FreeSpaceTree {
		err := s.fillFromFree(ctx, g)
		if err == nil {
			return nil
		}
		var c *ondisk.CorruptError
		if !errors.As(err, &c) {
			return err
		}
		clear(g.used)
		g.stale = true
		s.touch(g)
	}
	if err := s.fillFromExtents(ctx, g); err != nil {
		return err
	}
	if n := uint64(g.used.count(0, g.n)) << g.shift; n != g.usedBytes {
		return g.wrong(ondisk.ExtentTree, "extents do not add up to what the group says", n, g.usedBytes)
	}
	return nil
}

func (g *Group) wrong(t ondisk.TreeID, reason string, got, want any) error {
	return &ondisk.CorruptError{What: "block group", Tree: t, Bytenr: g.Start, Slot: -1, Reason: reason, Got: got, Want: want}
}

func (s *Space) fillFromFree(ctx context.Context, g *Group) error {
	t, err := s.cfg.Committed(ctx, ondisk.FreeSpaceTree)
	if err != nil {
		return err
	}
	c, err := t.Seek(ctx, ondisk.Key{Objectid: uint64(g.Start), Type: ondisk.TypeFreeSpaceInfo, Offset: g.Len})
	if err != nil {
		return err
	}
	if !c.Valid() || c.Key() != infoKey(g) {
		return g.wrong(ondisk.FreeSpaceTree, "has no free space info", nil, nil)
	}
	g.used.set(0, g.n)
	for err = c.Next(ctx); err == nil && c.Valid() && c.Key().Objectid < uint64(g.End()); err = c.Next(ctx) {
		k := c.Key()
		at := ondisk.Bytenr(k.Objectid)
		if k.Type == ondisk.TypeFreeSpaceInfo || k.Offset > uint64(g.End()-at) || (uint64(at-g.Start)|k.Offset)&(1<<g.shift-1) != 0 {
			return g.wrong(ondisk.FreeSpaceTree, "free space item lies wrong", k, nil)
		}
		from, to := g.sectors(at, k.Offset)
		switch k.Type {
		case ondisk.TypeFreeSpaceExtent:
			g.used.clear(from, to)
		case ondisk.TypeFreeSpaceBitmap:
			if err := g.readBitmap(c.Data(), from, to); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	if n := uint64(g.used.count(0, g.n)) << g.shift; n != g.usedBytes {
		return g.wrong(ondisk.FreeSpaceTree, "free space does not add up to what the group says", n, g.usedBytes)
	}
	return nil
}

func (g *Group) readBitmap(p []byte, from, to int) error {
	if len(p) != (to-from+7)/8 {
		return g.wrong(ondisk.FreeSpaceTree, "size of a free space bitmap", len(p), (to-from+7)/8)
	}
	for i, x := range p {
		for ; x != 0; x &= x - 1 {
			at := from + i*8 + bits.TrailingZeros8(x)
			if at >= to {
				return g.wrong(ondisk.FreeSpaceTree, "free space bitmap goes too far", at, to)
			}
			g.used.clear(at, at+1)
		}
	}
	return nil
}

func (s *Space) fillFromExtents(ctx context.Context, g *Group) error {
	t, err := s.cfg.Committed(ctx, ondisk.ExtentTree)
	if err != nil {
		return err
	}
	c, err := t.Seek(ctx, ondisk.Key{Objectid: uint64(g.Start)})
	for ; err == nil && c.Valid() && c.Key().Objectid < uint64(g.End()); err = c.Next(ctx) {
		k := c.Key()
		n := k.Offset
		switch k.Type {
		case ondisk.TypeMetadataItem:
			n = uint64(s.cfg.Nodesize)
		case ondisk.TypeExtentItem:
		default:
			continue
		}
		at := ondisk.Bytenr(k.Objectid)
		if n > uint64(g.End()-at) || (uint64(at-g.Start)|n)&(1<<g.shift-1) != 0 {
			return g.wrong(ondisk.ExtentTree, "extent crosses the group's end", k, nil)
		}
		from, to := g.sectors(at, n)
		g.used.set(from, to)
	}
	return err
}
