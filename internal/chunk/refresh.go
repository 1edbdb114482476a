package chunk

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Rows gives the rows of a parity chunk that hold [at, at+n), which lies in the chunk: from the first to before the second.
func (c *Chunk) Rows(at ondisk.Bytenr, n uint64) (from, to uint64) {
	off := uint64(at - c.Logical)
	return off / c.rowLen(), (off + n + c.rowLen() - 1) / c.rowLen()
}

// HasParity tells whether the chunk is one of rows with parity.
func (c *Chunk) HasParity() bool { return c.parity() > 0 }

// Refresh brings what a device holds of a row of a parity chunk up to date. The device may hold anything: what counts are the other units, as far as
// claims do not speak against them, and of its own bytes those that keep their claim. Where it cannot be told what belongs there the device is
// left as it is.
func (io *IO) Refresh(ctx context.Context, c *Chunk, nr uint64, id ondisk.DevID) error {
	unit := -1
	for k := range c.Stripes {
		if c.member(nr, k, 0).dev == id {
			unit = k
		}
	}
	if unit < 0 {
		return nil
	}
	claims, err := io.known(ctx, c, nr)
	if err != nil {
		return fmt.Errorf("find out what a row should hold: %w", err)
	}
	defer io.lockRow(c, nr)()
	r := io.readRow(c, nr, claims)
	old := slices.Clone(r.units[unit])
	r.doubt(unit)
	const step = 4096 // claims do not break within
	for from := 0; from < ondisk.StripeLen; from += step {
		p, ok := r.fresh(unit, from, from+step)
		if !ok || r.errs[unit] == nil && bytes.Equal(p, old[from:from+step]) {
			continue
		}
		if err := io.writeAt(c.member(nr, unit, uint64(from)), p); err != nil {
			return err
		}
	}
	return nil
}

// doubt mends a row without a unit that may be out of date; only what cannot be mended so may be mended with it, for what comes of that
// keeps a claim.
func (r *row) doubt(unit int) {
	r.lost[unit] = true
	r.mend(0, ondisk.StripeLen)
	if r.errs[unit] == nil {
		r.lost[unit] = false
		r.mend(0, ondisk.StripeLen)
		r.lost[unit] = true
	}
}

// fresh gives what bytes [from, to) of a doubted unit should be.
func (r *row) fresh(unit, from, to int) ([]byte, bool) {
	if r.proven(unit, from, to) {
		return r.units[unit][from:to], true
	}
	if slices.ContainsFunc(r.claims, func(c claim) bool { return !c.ok && c.touches(from, to) }) {
		return nil, false
	}
	data, err := r.data(from, to)
	if err != nil {
		return nil, false
	}
	return append(data, parities(r.c.parity(), data)...)[unit], true
}
