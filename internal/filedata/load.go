package filedata

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// unit is what one piece needs from disk: whole sectors.
type unit struct {
	p       *Piece
	at, end ondisk.Bytenr
}

// Load reads the pieces. Every piece has its bytes or its error afterwards. What
// is wrong when read together is read again by itself, from all mirrors.
func (b *Batch) Load(ctx context.Context, csums *btree.Tree) {
	spare := b.Room()
	for units := b.units(); len(units) > 0; {
		n, end, gaps := b.run(units, spare)
		spare -= gaps
		b.loadRun(ctx, csums, units[:n], end)
		units = units[n:]
	}
	for _, p := range b.pieces {
		if p.Data == nil {
			b.alone(ctx, csums, p)
		}
	}
}

// units lists what the pieces need by address.
func (b *Batch) units() []unit {
	ss := uint64(b.layout.Sectorsize)
	units := make([]unit, 0, len(b.pieces))
	for _, p := range b.pieces {
		from, to := uint64(p.e.DiskBytenr), uint64(p.e.DiskBytenr)+p.e.DiskNumBytes
		if p.e.Compression == ondisk.CompressNone {
			from, to = p.address()/ss*ss, (p.address()+p.N+ss-1)/ss*ss
		}
		units = append(units, unit{p, ondisk.Bytenr(from), ondisk.Bytenr(to)})
	}
	slices.SortStableFunc(units, func(x, y unit) int { return cmp.Compare(x.at, y.at) })
	return units
}

// run tells how many units, from the first on, are read at once, where they end
// and how many bytes lie between them: at most spare. A run stays in its chunk.
func (b *Batch) run(units []unit, spare int) (n int, end ondisk.Bytenr, gaps int) {
	at := units[0].at
	limit := at + maxRun
	if c, ok := b.v.Chunks().Find(at); ok {
		limit = min(limit, c.End())
	}
	end = units[0].end
	for n = 1; n < len(units); n++ {
		u := units[n]
		gap := 0
		if u.at > end {
			gap = int(min(u.at-end, maxRun))
		}
		if u.end > limit || gap > maxGap || gaps+gap > spare {
			break
		}
		gaps += gap
		end = max(end, u.end)
	}
	return n, end, gaps
}

// take deals out memory; nil when there is none, which the units' lengths
// exclude.
func (b *Batch) take(n uint64) []byte {
	if n > uint64(b.tail-b.front) {
		return nil
	}
	p := b.buf[b.front : b.front+int(n) : b.front+int(n)]
	b.front += int(n)
	return p
}

// loadRun reads one run and gives its pieces what they ask for. Pieces get
// nothing when something is wrong.
func (b *Batch) loadRun(ctx context.Context, csums *btree.Tree, units []unit, end ondisk.Bytenr) {
	at, ss := units[0].at, ondisk.Bytenr(b.layout.Sectorsize)
	p := b.take(uint64(end - at))
	if p == nil || at%ss != 0 || end%ss != 0 {
		return
	}
	b.stats.Reads++
	b.stats.Bytes += int64(len(p))
	if err := b.v.IO().Read(ctx, at, 0, p); err != nil {
		return
	}
	var sums *csumtree.Sums
	if slices.ContainsFunc(units, func(u unit) bool { return u.p.summed() }) {
		if csums == nil {
			return
		}
		var err error
		b.stats.Lookups++
		if sums, err = csumtree.Lookup(ctx, csums, b.layout, at, int((end-at)/ss)); err != nil {
			return
		}
	}
	var last unpacked
	for _, u := range units {
		data := p[u.at-at : u.end-at]
		switch {
		case u.p.e.Compression != ondisk.CompressNone && last.p != nil && last.p.sharesWith(u.p) && last.p.summed() == u.p.summed():
		case u.p.summed() && !b.good(data, sums, int((u.at-at)/ss)):
			continue
		case u.p.e.Compression != ondisk.CompressNone:
			last = unpacked{u.p, b.unpack(u.p, data)}
		default:
			lead := u.p.address() % uint64(ss)
			u.p.Data = data[lead : lead+u.p.N]
			continue
		}
		if last.data != nil {
			from := u.p.e.Offset + u.p.skip
			u.p.Data = last.data[from : from+u.p.N]
		}
	}
}

// unpacked is the contents of the extent that was unpacked last; data is nil when
// it could not be.
type unpacked struct {
	p    *Piece
	data []byte
}

// summed tells whether the bytes have checksums.
func (p *Piece) summed() bool { return p.it.Flags&ondisk.InodeNodatasum == 0 }

// good compares sectors with their checksums, from the i-th of sums on.
func (b *Batch) good(data []byte, sums *csumtree.Sums, i int) bool {
	for ss := int(b.layout.Sectorsize); len(data) > 0; i, data = i+1, data[ss:] {
		sum, ok := sums.At(i)
		if !ok || !checksum.Verify(b.v.CsumType(), sum, data[:ss]) {
			return false
		}
	}
	return true
}

func (b *Batch) unpack(p *Piece, src []byte) []byte {
	dst := b.take(p.e.RAMBytes + compress.Slack)
	if dst == nil {
		return nil
	}
	dst = dst[:p.e.RAMBytes]
	b.stats.Unpacks++
	if compress.Decode(p.e.Compression, dst, src, int(b.layout.Sectorsize), false) != nil {
		return nil
	}
	return dst
}

// alone reads a piece as a Reader does.
func (b *Batch) alone(ctx context.Context, csums *btree.Tree, p *Piece) {
	b.stats.Alone++
	data := make([]byte, p.N)
	r := newReader(b.v, p.ino, readTrees{p.tree, csums})
	if err := r.piece(ctx, p.it, data, p.skip, p.e); err != nil {
		p.Err = p.wrap(err)
		return
	}
	p.Data, p.Unproven = data, r.unproven.Load()
}
