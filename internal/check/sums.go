package check

import (
	"context"
	"sort"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ranges are disjoint ranges of addresses, ascending; neighbours are joined.
type ranges struct {
	start, end []uint64
}

// add appends a range that does not start before the end of the last one.
func (r *ranges) add(start, end uint64) {
	if n := len(r.end); n > 0 && r.end[n-1] == start {
		r.end[n-1] = end
		return
	}
	r.start, r.end = append(r.start, start), append(r.end, end)
}

// covered gives how many of the n bytes from at are in the ranges.
func (r *ranges) covered(at, n uint64) (sum uint64) {
	to := at + n
	i := sort.Search(len(r.end), func(i int) bool { return r.end[i] > at })
	for ; i < len(r.start) && r.start[i] < to; i++ {
		sum += min(to, r.end[i]) - max(at, r.start[i])
	}
	return sum
}

// readSums learns which bytes have checksums, and judges the items.
func (c *checker) readSums(ctx context.Context) {
	t := c.tree(ctx, ondisk.CsumTree)
	if t == nil {
		return
	}
	size := uint64(c.v.CsumType().Size())
	most := (c.node-ondisk.HeaderSize-2*ondisk.ItemSize)/size - 1
	var end uint64
	c.each(ctx, t, func(it item) {
		at := it.place(ondisk.CsumTree)
		if it.key.Type != ondisk.TypeExtentCsum {
			c.rep.warn(at, "", "item of a type that does not belong here")
			return
		}
		n := uint64(len(it.data)) / size
		start := it.key.Offset
		if n > most {
			c.rep.bad(at, "Linux can not extend it", "%d checksums in one item, %d are allowed", n, most)
		}
		if start < end {
			c.rep.bad(at, "data may look damaged", "checksums overlap those before, which end at %d", end)
			return
		}
		end = start + n*c.sector
		c.sums.add(start, end)
	})
	c.judgeSums()
}

// judgeSums looks for checksums of bytes that no data extent covers.
func (c *checker) judgeSums() {
	if !c.extentOK {
		return
	}
	for i, at := range c.sums.start {
		end := c.sums.end[i]
		j := c.ext.from(at)
		if j > 0 && c.ext.at[j-1]+c.ext.ext[j-1].length > at {
			j--
		}
		for ; at < end; j++ {
			if j >= len(c.ext.at) || c.ext.at[j] > at || c.ext.ext[j].block() {
				c.rep.bad(Place{Tree: ondisk.CsumTree, Bytenr: ondisk.Bytenr(at), Slot: -1}, "data written there later may look damaged",
					"checksums of bytes that are no data, up to %d", end)
				break
			}
			at = c.ext.at[j] + c.ext.ext[j].length
		}
	}
}

// data reads every copy of all bytes that have checksums.
func (c *checker) data(ctx context.Context) {
	if !c.opt.Data {
		return
	}
	t := c.tree(ctx, ondisk.CsumTree)
	if t == nil {
		return
	}
	size := c.v.CsumType().Size()
	const piece = 1 << 20
	pool := sync.Pool{New: func() any { return new([]byte) }}
	slots := make(chan struct{}, c.opt.Workers)
	var wg sync.WaitGroup
	var done uint64
	c.each(ctx, t, func(it item) {
		if it.key.Type != ondisk.TypeExtentCsum {
			return
		}
		at, data := ondisk.Bytenr(it.key.Offset), it.data
		for len(data) >= size && ctx.Err() == nil {
			n := min(len(data)/size, int(piece/c.sector))
			sums := append([]byte(nil), data[:n*size]...)
			slots <- struct{}{}
			wg.Add(1)
			go func(at ondisk.Bytenr) {
				defer func() { <-slots; wg.Done() }()
				buf := pool.Get().(*[]byte)
				c.dataPiece(ctx, at, sums, buf)
				pool.Put(buf)
			}(at)
			data, at = data[n*size:], at+ondisk.Bytenr(n)*ondisk.Bytenr(c.sector)
			if done += uint64(n) * c.sector; c.opt.Progress != nil {
				c.opt.Progress("data", done)
			}
		}
	})
	wg.Wait()
}

// dataPiece reads all copies of the sectors from at, one for each sum.
func (c *checker) dataPiece(ctx context.Context, at ondisk.Bytenr, sums []byte, buf *[]byte) {
	n := uint64(len(sums)/c.v.CsumType().Size()) * c.sector
	if uint64(cap(*buf)) < n {
		*buf = make([]byte, n)
	}
	for n > 0 {
		ch, ok := c.v.Chunks().Find(at)
		if !ok {
			c.rep.bad(Place{Bytenr: at, Slot: -1}, "", "data outside of all chunks")
			return
		}
		part := min(n, uint64(ch.End()-at))
		k := int(part/c.sector) * c.v.CsumType().Size()
		copies := c.v.IO().Mirrors(at)
		parity := ch.Type&ondisk.BlockGroupRAID56Mask != 0
		if parity {
			copies = 1 // what is rebuilt from parity is no copy of its own
		}
		for m := range copies {
			c.dataCopy(ctx, at, m, parity, sums[:k], (*buf)[:part])
		}
		sums, at, n = sums[k:], at+ondisk.Bytenr(part), n-part
	}
}

func (c *checker) dataCopy(ctx context.Context, at ondisk.Bytenr, mirror int, parity bool, sums, p []byte) {
	typ := c.v.CsumType()
	size := typ.Size()
	whole := c.v.IO().Read(ctx, at, mirror, p) == nil
	for i := 0; i*size < len(sums) && ctx.Err() == nil; i++ {
		s := p[uint64(i)*c.sector : uint64(i+1)*c.sector]
		where := at + ondisk.Bytenr(uint64(i)*c.sector)
		if !whole {
			if err := c.v.IO().Read(ctx, where, mirror, s); err != nil {
				if len(c.v.Missing()) > 0 {
					continue // told already
				}
				c.rep.bad(Place{Bytenr: where, Slot: -1}, "", "copy %d of the data can not be read: %v", mirror+1, err)
				continue
			}
		}
		if checksum.Verify(typ, sums[i*size:(i+1)*size], s) {
			continue
		}
		if parity && c.rebuilt(ctx, where, sums[i*size:(i+1)*size], s) {
			c.rep.warn(Place{Bytenr: where, Slot: -1}, "parity still mends it", "data does not match its checksum")
			continue
		}
		c.rep.bad(Place{Bytenr: where, Slot: -1}, "", "copy %d of the data does not match its checksum", mirror+1)
	}
}

// rebuilt tells whether parity gives back a damaged sector.
func (c *checker) rebuilt(ctx context.Context, at ondisk.Bytenr, sum, p []byte) bool {
	for m := 1; m < c.v.IO().Mirrors(at); m++ {
		if c.v.IO().Read(ctx, at, m, p) == nil && checksum.Verify(c.v.CsumType(), sum, p) {
			return true
		}
	}
	return false
}
