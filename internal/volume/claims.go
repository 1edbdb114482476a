package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Claims tells what the last commit knows of [at, at+n), which is in one chunk: sectors of data by their checksums, tree blocks by their headers. It is
// what the volume's IO asks; nothing that the last commit leads to is overwritten before the next one (I3).
func (v *Volume) Claims(ctx context.Context, at ondisk.Bytenr, n int) ([]chunk.Claim, error) {
	c, ok := v.chunks.Find(at)
	if !ok {
		return nil, fmt.Errorf("no chunk holds %d", at)
	}
	var out []chunk.Claim
	if c.Type&ondisk.BlockGroupData != 0 {
		more, err := v.dataClaims(ctx, at, n)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	if c.Type&(ondisk.BlockGroupMetadata|ondisk.BlockGroupSystem) != 0 {
		more, err := v.blockClaims(ctx, at, n)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func (v *Volume) dataClaims(ctx context.Context, at ondisk.Bytenr, n int) ([]chunk.Claim, error) {
	t, err := v.Tree(ctx, ondisk.CsumTree)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	size := int(v.sectorsize)
	l := csumtree.Layout{Size: v.csum.Size(), Sectorsize: v.sectorsize, Nodesize: v.nodesize}
	sums, err := csumtree.Lookup(ctx, t, l, at, n/size)
	if err != nil {
		return nil, err
	}
	var out []chunk.Claim
	for i := range sums.Len() {
		if want, ok := sums.At(i); ok {
			out = append(out, chunk.Claim{At: at + ondisk.Bytenr(i*size), Len: size, Good: func(p []byte) bool { return checksum.Verify(v.csum, want, p) }})
		}
	}
	return out, nil
}

// blockClaims looks up tree blocks. What they must be like is not their checksum alone: a write that got lost leaves an older block with a right one.
func (v *Volume) blockClaims(ctx context.Context, at ondisk.Bytenr, n int) ([]chunk.Claim, error) {
	t, err := v.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		return nil, err
	}
	var out []chunk.Claim
	c, err := t.Seek(ctx, ondisk.Key{Objectid: uint64(at)})
	for ; err == nil && c.Valid() && c.Key().Objectid < uint64(at)+uint64(n); err = c.Next(ctx) {
		k := c.Key()
		if k.Type != ondisk.TypeExtentItem && k.Type != ondisk.TypeMetadataItem {
			continue
		}
		x, err := ondisk.DecodeExtent(k, c.Data())
		if err != nil {
			return nil, err
		}
		if x.Flags&ondisk.ExtentFlagTreeBlock == 0 {
			continue
		}
		out = append(out, chunk.Claim{At: ondisk.Bytenr(k.Objectid), Len: int(v.nodesize), Good: func(p []byte) bool {
			b := ondisk.Block(p)
			return b.Bytenr() == ondisk.Bytenr(k.Objectid) && b.Generation() >= x.Generation && checksum.Verify(v.csum, b[:32], b[32:])
		}})
	}
	return out, err
}
