package cleaner

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/extent"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/share"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Plan tells exactly what dropping these subvolumes would give back, without changing anything. Metadata that the drop saves or needs in the trees of
// references, checksums and free space is not counted.
func Plan(ctx context.Context, v *volume.Volume, ids []ondisk.TreeID) (drop.Plan, error) {
	set, c, err := outlook(ctx, v, ids)
	if err != nil {
		return drop.Plan{}, err
	}
	disk := uint64(0)
	data := func(at ondisk.Bytenr, n uint64) error {
		d, _, err := c.Data(ctx, at, n)
		disk += d
		return err
	}
	block := func(at ondisk.Bytenr) { disk += c.Block(at) }
	blocks := newBlocks(v)
	defer blocks.stop()
	p, err := drop.Foresee(ctx, blocks, &planRefs{counts(v), v}, set, drop.Options{Nodesize: v.Nodesize(), Workers: 4}, drop.Visitor{Data: data, Block: block})
	p.ChecksumBytes, p.DiskBytes = c.sums.bytes, disk
	return p, err
}

// Shares tells with one walk what dropping any set of these subvolumes would give back, none of which may be half dropped. It changes nothing.
func Shares(ctx context.Context, v *volume.Volume, ids []ondisk.TreeID) (*share.Account, error) {
	set, c, err := outlook(ctx, v, ids)
	if err != nil {
		return nil, err
	}
	blocks := newBlocks(v)
	defer blocks.stop()
	return share.Count(ctx, blocks, counts(v), c, set, share.Options{Nodesize: v.Nodesize(), Workers: 4})
}

// outlook finds trees, and what tells how much extents take.
func outlook(ctx context.Context, v *volume.Volume, ids []ondisk.TreeID) ([]drop.Root, *costs, error) {
	set := make([]drop.Root, 0, len(ids))
	for _, id := range ids {
		k, item, err := roots.Find(ctx, v.RootTree(), id)
		if err != nil {
			return nil, nil, err
		}
		set = append(set, deadRoot(k, item))
	}
	csum, err := v.Tree(ctx, ondisk.CsumTree)
	if err != nil {
		return nil, nil, err
	}
	return set, &costs{v: v, sums: sumCounter{tree: csum, size: uint64(v.CsumType().Size()), sector: uint64(v.Sectorsize())}}, nil
}

// counts is the account of references without a running transaction: the extent tree.
func counts(v *volume.Volume) *extent.Extents {
	return extent.New(extent.Config{Store: v.Store(), Tree: v.Tree})
}

// costs tells what extents take on disk and in the checksum tree.
type costs struct {
	v    *volume.Volume
	sums sumCounter
}

func (c *costs) Block(at ondisk.Bytenr) uint64 { return onDisk(c.v, at, uint64(c.v.Nodesize())) }

func (c *costs) Data(ctx context.Context, at ondisk.Bytenr, n uint64) (disk, checksums uint64, err error) {
	before := c.sums.bytes
	err = c.sums.add(ctx, at, n)
	return onDisk(c.v, at, n), c.sums.bytes - before, err
}

// onDisk is what n logical bytes take on all devices.
func onDisk(v *volume.Volume, at ondisk.Bytenr, n uint64) uint64 {
	c, ok := v.Chunks().Find(at)
	if !ok || c.Length == 0 {
		return n
	}
	// A chunk takes the same on each of its stripes.
	return n * (c.DevExtentLen() * uint64(len(c.Stripes)) >> 12) / (c.Length >> 12)
}

// sumCounter counts the checksums of data extents that come sorted by address.
type sumCounter struct {
	tree         *btree.Tree
	cur          *btree.Cursor
	size, sector uint64
	bytes        uint64
}

func (s *sumCounter) add(ctx context.Context, at ondisk.Bytenr, n uint64) (err error) {
	key := ondisk.Key{Objectid: ondisk.CsumObjectid, Type: ondisk.TypeExtentCsum, Offset: uint64(at)}
	if s.cur == nil || !s.cur.Valid() || !s.covers(uint64(at)) {
		if s.cur, err = s.tree.SeekLast(ctx, key); err != nil {
			return err
		}
		if !s.cur.Valid() {
			if s.cur, err = s.tree.Seek(ctx, key); err != nil {
				return err
			}
		}
	}
	end := uint64(at) + n
	for s.cur.Valid() {
		k := s.cur.Key()
		if k.Objectid == ondisk.CsumObjectid && k.Type == ondisk.TypeExtentCsum {
			if k.Offset >= end {
				return nil
			}
			from, to := max(k.Offset, uint64(at)), min(s.itemEnd(), end)
			if from < to {
				s.bytes += (to - from) / s.sector * s.size
			}
			if to >= end {
				return nil
			}
		}
		if err := s.cur.Next(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *sumCounter) itemEnd() uint64 {
	return s.cur.Key().Offset + uint64(len(s.cur.Data()))/s.size*s.sector
}

// covers reports whether the item under the cursor holds the checksum of an address.
func (s *sumCounter) covers(at uint64) bool {
	k := s.cur.Key()
	return k.Objectid == ondisk.CsumObjectid && k.Type == ondisk.TypeExtentCsum && k.Offset <= at && at < s.itemEnd()
}
