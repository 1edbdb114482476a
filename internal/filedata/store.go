package filedata

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const (
	compressedPiece = 128 << 10 // plain bytes of a compressed extent
	maxExtent       = 128 << 20
)

// algorithm tells how the file is compressed: its flags and its property come
// before the writer's options.
func (c *change) algorithm(ctx context.Context) (algo uint8, level int) {
	const no = ondisk.InodeNodatasum | ondisk.InodeNodatacow | ondisk.InodeNocompress
	switch {
	case c.inode.Flags&no != 0:
		return ondisk.CompressNone, 0
	case c.inode.Flags&ondisk.InodeCompress == 0:
		return c.opt.Compression, c.opt.Level
	}
	v, err := fstree.Xattr(ctx, c.t.Items(), c.ino, "btrfs.compression")
	if algo = fstree.CompressionOf(string(v)); err != nil || algo == ondisk.CompressNone {
		return ondisk.CompressZlib, 0 // the flag alone
	}
	if _, s, ok := strings.Cut(string(v), ":"); ok {
		level, _ = strconv.Atoi(s)
	}
	return algo, level
}

// encodeInline compresses what lies in the tree, where no sector need be saved.
func encodeInline(algo uint8, level int, p []byte, sectorsize int) ([]byte, bool) {
	return compress.Encode(algo, level, nil, p, sectorsize)
}

// blob is what one extent will have on disk.
type blob struct {
	plain []byte // the bytes of the file
	disk  []byte // the bytes to store: the same, or compressed and padded
	algo  uint8
}

// blobs cuts a group into extents, compressed where that saves a sector.
func (c *change) blobs(ctx context.Context, g group) ([]blob, error) {
	algo, level := c.algorithm(ctx)
	if algo == ondisk.CompressNone || len(g.data) <= int(c.ss) {
		return []blob{{plain: g.data, disk: g.data}}, nil
	}
	n := (len(g.data) + compressedPiece - 1) / compressedPiece
	packed := make([]blob, n)
	var eg errgroup.Group
	eg.SetLimit(parallel())
	for i := range n {
		p := g.data[i*compressedPiece : min((i+1)*compressedPiece, len(g.data))]
		eg.Go(func() error {
			packed[i] = c.pack(algo, level, p)
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	return c.joinPlain(packed, g.data), ctx.Err()
}

// pack compresses one piece if that saves at least a sector.
func (c *change) pack(algo uint8, level int, p []byte) blob {
	out, ok := compress.Encode(algo, level, nil, p, int(c.ss))
	padded := int(c.ceil(uint64(len(out))))
	if !ok || padded+int(c.ss) > len(p) {
		return blob{plain: p, disk: p}
	}
	disk := make([]byte, padded)
	copy(disk, out)
	return blob{plain: p, disk: disk, algo: algo}
}

// joinPlain makes one blob of neighbours that were not compressed. They are
// consecutive pieces of data.
func (c *change) joinPlain(in []blob, data []byte) []blob {
	var out []blob
	at := 0
	for _, b := range in {
		next := at + len(b.plain)
		if n := len(out); n > 0 && b.algo == ondisk.CompressNone && out[n-1].algo == ondisk.CompressNone {
			start := at - len(out[n-1].plain)
			out[n-1] = blob{plain: data[start:next], disk: data[start:next]}
		} else {
			out = append(out, b)
		}
		at = next
	}
	return out
}

// extent is a blob with its place.
type extent struct {
	blob
	at  ondisk.Bytenr
	off uint64 // in the file
}

// store writes the data of all groups to new places, with their checksums, and
// gives the pieces of each group. Until all data have a place nothing is
// changed, so that a full volume only gives an error.
func (c *change) store(ctx context.Context, groups []group) ([][]fstree.Piece, error) {
	all := make([][]extent, len(groups))
	for i, g := range groups {
		blobs, err := c.blobs(ctx, g)
		if err == nil {
			all[i], err = c.alloc(ctx, g.off, blobs)
		}
		if err != nil {
			return nil, errors.Join(err, c.giveBack(ctx, all))
		}
	}
	runs := joinExtents(all, c.r.v.Chunks())
	for _, r := range runs {
		if err := c.tx.WriteData(ctx, r.at, r.data); err != nil {
			return nil, errors.Join(err, c.giveBack(ctx, all))
		}
	}
	for _, r := range runs {
		if err := c.addSums(ctx, r); err != nil {
			return nil, c.tx.Fail(err)
		}
	}
	out := make([][]fstree.Piece, len(groups))
	for i, list := range all {
		for _, x := range list {
			out[i] = append(out[i], fstree.Piece{Off: x.off, Extent: c.item(x)})
		}
	}
	return out, nil
}

// diskRun is the data of extents that lie side by side on disk.
type diskRun struct {
	at   ondisk.Bytenr
	data []byte
}

// joinExtents makes runs of extents, so that many small ones are written, and
// get their checksums, together. A run ends with its chunk.
func joinExtents(all [][]extent, chunks *chunk.Map) (out []diskRun) {
	border := func(at ondisk.Bytenr) bool {
		c, ok := chunks.Find(at)
		return !ok || c.Logical == at
	}
	for list := slices.Concat(all...); len(list) > 0; {
		n, size := 1, len(list[0].disk)
		for n < len(list) && list[n].at == list[0].at+ondisk.Bytenr(size) && !border(list[n].at) {
			size += len(list[n].disk)
			n++
		}
		run := diskRun{at: list[0].at, data: list[0].disk}
		if n > 1 {
			run.data = make([]byte, 0, size)
			for _, x := range list[:n] {
				run.data = append(run.data, x.disk...)
			}
		}
		out, list = append(out, run), list[n:]
	}
	return out
}

func (c *change) item(x extent) ondisk.FileExtent {
	if x.algo != ondisk.CompressNone {
		c.used = x.algo
	}
	return ondisk.FileExtent{
		Generation: c.tx.Generation(), Type: ondisk.ExtentReg, Compression: x.algo, RAMBytes: uint64(len(x.plain)),
		DiskBytenr: x.at, DiskNumBytes: uint64(len(x.disk)), NumBytes: uint64(len(x.plain)),
	}
}

// alloc finds places for blobs. A plain blob may be cut in several extents; a
// compressed one that does not fit anywhere in one piece is stored plain.
func (c *change) alloc(ctx context.Context, off uint64, blobs []blob) ([]extent, error) {
	var out []extent
	for _, b := range blobs {
		for len(b.plain) > 0 {
			at, n, err := c.tx.AllocData(ctx, uint64(min(len(b.disk), maxExtent)))
			if err != nil {
				return out, err
			}
			if b.algo != ondisk.CompressNone && n < uint64(len(b.disk)) {
				if err := c.tx.FreeData(ctx, at, n); err != nil {
					return out, err
				}
				b = blob{plain: b.plain, disk: b.plain}
				continue
			}
			one := b
			if b.algo == ondisk.CompressNone {
				one = blob{plain: b.plain[:n], disk: b.disk[:n]}
			}
			out = append(out, extent{one, at, off})
			off += uint64(len(one.plain))
			b.plain, b.disk = b.plain[len(one.plain):], b.disk[len(one.disk):]
		}
	}
	return out, nil
}

func (c *change) giveBack(ctx context.Context, all [][]extent) (err error) {
	for _, list := range all {
		for _, x := range list {
			err = errors.Join(err, c.tx.FreeData(ctx, x.at, uint64(len(x.disk))))
		}
	}
	return err
}

// addSums stores the checksums of data, unless the file has none.
func (c *change) addSums(ctx context.Context, r diskRun) error {
	if c.inode.Flags&ondisk.InodeNodatasum != 0 {
		return nil
	}
	l := c.r.layout
	return csumtree.Insert(ctx, c.r.trees.csums, l, r.at, sumsOf(c.r.v.CsumType(), l, r.data))
}

// sumsOf computes the checksums of sectors, in parallel when there are many.
func sumsOf(t checksum.Type, l csumtree.Layout, p []byte) []byte {
	const share = 256 // sectors for one goroutine
	ss := int(l.Sectorsize)
	n := len(p) / ss
	out := make([]byte, n*l.Size)
	var eg errgroup.Group
	eg.SetLimit(parallel())
	for from := 0; from < n; from += share {
		eg.Go(func() error {
			for i := from; i < min(from+share, n); i++ {
				checksum.Sum(t, out[i*l.Size:(i+1)*l.Size], p[i*ss:(i+1)*ss])
			}
			return nil
		})
	}
	_ = eg.Wait() // no error is possible
	return out
}
