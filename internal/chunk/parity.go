package chunk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// writeParity writes p at offset off of a RAID5 or RAID6 chunk, row by row, with
// its parity.
//
// Parity is computed anew from all data of the row, never by difference: so rows
// that a power loss left with a wrong parity become right again. As with every
// other writer of these profiles, a row is not written in one instant: after a
// power loss its old data is safe while all devices are there, but may not be
// rebuilt right if one is lost before the row is written again.
//
// A write of a part of a row makes what it reads of the rest its own: the new
// parity fits that, right or wrong. So the rest is believed only while the old
// parity fits it. Else it must keep what the last commit knows of it (Claims); what
// does not is rebuilt from the old parity, and put back where it belongs, before
// anything else is written; and where that fails too, so does the write.
func (io *IO) writeParity(ctx context.Context, c *Chunk, off uint64, p []byte) error {
	rowLen := c.rowLen()
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		in := off % rowLen
		n := min(rowLen-in, uint64(len(p)))
		if err := io.writeRow(ctx, c, off/rowLen, in, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// part is what a write does to a row: in each unit it concerns bytes [from, to), of which it covers those of units first to last that p reaches.
type part struct {
	p           []byte
	first, last int
	at          int // where p starts in unit first
	from, to    int
}

func newPart(in uint64, p []byte) part {
	first, so := split(in)
	last, end := split(in + uint64(len(p)) - 1)
	w := part{p: p, first: int(first), last: int(last), at: int(so), from: int(so), to: int(end) + 1}
	if first != last {
		w.from, w.to = 0, ondisk.StripeLen
	}
	return w
}

// covers tells whether the write covers bytes [from, to) of a unit.
func (w *part) covers(unit, from, to int) bool {
	start := (unit-w.first)*ondisk.StripeLen - w.at // of the unit in p
	return start+from >= 0 && start+to <= len(w.p)
}

// put lays p over bytes [w.from, w.to) of the data units.
func (w *part) put(data [][]byte) {
	for k := w.first; k <= w.last; k++ {
		if pos := (k-w.first)*ondisk.StripeLen - w.at + w.from; pos < 0 {
			copy(data[k][-pos:], w.p)
		} else {
			copy(data[k], w.p[pos:])
		}
	}
}

// whole gives the data units of a row that the write covers all of.
func (w *part) whole(d int) ([][]byte, bool) {
	n := w.to - w.from
	if len(w.p) != d*n {
		return nil, false
	}
	data := make([][]byte, d)
	for k := range data {
		data[k] = w.p[k*n : (k+1)*n]
	}
	return data, true
}

// writeRow writes p, which starts at offset in of a row and ends in it.
func (io *IO) writeRow(ctx context.Context, c *Chunk, nr, in uint64, p []byte) error {
	w := newPart(in, p)
	unlock := io.lockRow(c, nr)
	defer func() { unlock() }()
	data, ok := w.whole(c.dataStripes())
	if !ok {
		if data, ok = io.around(c, nr, &w); !ok {
			unlock()
			claims, err := io.known(ctx, c, nr)
			unlock = io.lockRow(c, nr)
			if err != nil {
				return fmt.Errorf("find out what a row whose parity does not fit should hold: %w", err)
			}
			if data, err = io.settle(c, nr, &w, claims); err != nil {
				return err
			}
		}
		w.put(data)
	}
	units := append(data[:len(data):len(data)], parities(c.parity(), data)...)
	return io.writeUnits(c, nr, w.from, units, w.first, w.last)
}

// around gives what the data units hold in bytes [w.from, w.to). It is not ok when some unit cannot be read or the parity does not fit.
func (io *IO) around(c *Chunk, nr uint64, w *part) (data [][]byte, ok bool) {
	d := c.dataStripes()
	units, errs := io.readUnits(c, nr, w.from, w.to-w.from)
	return units[:d], errors.Join(errs...) == nil && fits(d, units)
}

// known asks for the claims about a row.
func (io *IO) known(ctx context.Context, c *Chunk, nr uint64) ([]Claim, error) {
	if io.claims == nil {
		return nil, nil
	}
	return io.claims(ctx, c.Logical+ondisk.Bytenr(nr*c.rowLen()), int(c.rowLen()))
}

// settle gives what the data units should hold in bytes [w.from, w.to), after it has put right on the devices what they hold wrong of it.
func (io *IO) settle(c *Chunk, nr uint64, w *part, claims []Claim) ([][]byte, error) {
	r := io.readRow(c, nr, claims)
	r.mend(w.from, w.to)
	for i := range r.claims {
		if cl := &r.claims[i]; !cl.ok && cl.touches(w.from, w.to) && !w.covers(cl.unit, cl.from, cl.to) {
			return nil, errors.Join(r.broken(cl), errors.Join(r.errs...))
		}
	}
	data, err := r.data(w.from, w.to)
	if err != nil { // what the write covers may be lost
		data = make([][]byte, c.dataStripes())
		for k := range data {
			if !r.trusted(k, w.from, w.to) && !w.covers(k, w.from, w.to) {
				return nil, errors.Join(fmt.Errorf("read the rest of a row to write: rebuild from parity: %w", err), errors.Join(r.errs...))
			}
			data[k] = slices.Clone(r.units[k][w.from:w.to])
		}
	}
	return data, io.putBack(r)
}

// broken tells of a claim that nothing keeps.
func (r *row) broken(c *claim) error {
	return &ondisk.CorruptError{
		What: "row with parity", Bytenr: c.At, Slot: -1, Got: fmt.Sprintf("device %d", r.c.member(r.nr, c.unit, 0).dev),
		Reason: "neither what the device holds nor what the others give is what it should be, and to write beside it would lose it for good",
	}
}

// putBack writes what was mended of units that can be read, and makes it durable: the row is about to be written, and a power loss in
// the middle of that must not find it wrong already.
func (io *IO) putBack(r *row) error {
	for i := range r.claims {
		c := &r.claims[i]
		if !c.mended || r.errs[c.unit] != nil {
			continue
		}
		at := r.c.member(r.nr, c.unit, uint64(c.from))
		if err := io.writeAt(at, r.units[c.unit][c.from:c.to]); err != nil {
			return err
		}
		d, err := io.Device(at.dev)
		if err != nil {
			return err
		}
		if err := d.Flush(); err != nil {
			return fmt.Errorf("flush device %d: %w", at.dev, err)
		}
	}
	return nil
}

// readRow reads a whole row to be judged by claims.
//
// Preconditions: the row is locked.
func (io *IO) readRow(c *Chunk, nr uint64, claims []Claim) *row {
	r := &row{c: c, nr: nr, lost: make([]bool, len(c.Stripes))}
	r.units, r.errs = io.readUnits(c, nr, 0, ondisk.StripeLen)
	for k, err := range r.errs {
		r.lost[k] = err != nil
	}
	r.claim(claims)
	return r
}

// readUnits reads n bytes at offset so of each unit of a row, side by side.
func (io *IO) readUnits(c *Chunk, nr uint64, so, n int) (units [][]byte, errs []error) {
	units, errs = make([][]byte, len(c.Stripes)), make([]error, len(c.Stripes))
	var wg sync.WaitGroup
	for k := range units {
		units[k] = make([]byte, n)
		wg.Go(func() { errs[k] = io.readAt(c.member(nr, k, uint64(so)), units[k]) })
	}
	wg.Wait()
	return units, errs
}

// writeUnits writes the data units first to last, and all parity units, of a row
// from offset so on, side by side.
func (io *IO) writeUnits(c *Chunk, nr uint64, so int, units [][]byte, first, last int) error {
	errs := make([]error, len(units))
	var wg sync.WaitGroup
	for k, b := range units {
		if k < c.dataStripes() && (k < first || k > last) {
			continue
		}
		wg.Go(func() { errs[k] = io.writeAt(c.member(nr, k, uint64(so)), b) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
