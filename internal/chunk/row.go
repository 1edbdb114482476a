package chunk

import (
	"bytes"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/raid56"
)

// Claim is what the last commit knows of some bytes.
type Claim struct {
	At   ondisk.Bytenr
	Len  int
	Good func(p []byte) bool // tells whether p is what is there by right
}

// Claims lists what is known of [at, at+n). Bytes without a claim may be anything. It is called while no row is locked.
type Claims func(ctx context.Context, at ondisk.Bytenr, n int) ([]Claim, error)

// row is a row of a parity chunk in memory, whole, while it is found out what of it can be trusted.
type row struct {
	c      *Chunk
	nr     uint64
	units  [][]byte // data, then parities
	errs   []error  // why they could not be read
	lost   []bool   // units of whose bytes only those of good claims count
	claims []claim
}

type claim struct {
	Claim
	unit, from, to int
	ok             bool // the bytes in units keep it
	mended         bool // they are not those that were read
}

// logical is the address of the row.
func (r *row) logical() ondisk.Bytenr { return r.c.Logical + ondisk.Bytenr(r.nr*r.c.rowLen()) }

func (c *Chunk) rowLen() uint64 { return uint64(c.dataStripes()) * ondisk.StripeLen }

// claim takes over the claims that lie within one unit and judges what was read by them.
func (r *row) claim(list []Claim) {
	for _, c := range list {
		off := uint64(c.At - r.logical())
		unit, from := split(off)
		if c.At < r.logical() || c.Len <= 0 || off+uint64(c.Len) > r.c.rowLen() || from+uint64(c.Len) > ondisk.StripeLen {
			continue // of a block that lies across units, which can be of old volumes only: it stays unknown
		}
		r.claims = append(r.claims, claim{Claim: c, unit: int(unit), from: int(from), to: int(from) + c.Len})
	}
	r.judge()
}

// judge looks anew at what is not known to be good.
func (r *row) judge() {
	for i := range r.claims {
		c := &r.claims[i]
		if !c.ok && !r.lost[c.unit] {
			c.ok = c.Good(r.units[c.unit][c.from:c.to])
		}
	}
}

// mend rebuilds what breaks a claim and touches bytes [from, to) of the units; what it finds keeps the claim. It goes on while it
// gets anywhere: what was mended helps to rebuild more.
func (r *row) mend(from, to int) {
	for again := true; again; {
		again = false
		for i := range r.claims {
			c := &r.claims[i]
			if !c.ok && c.touches(from, to) && r.rebuild(c) {
				c.ok, c.mended, again = true, true, true
			}
		}
	}
}

func (c *claim) touches(from, to int) bool { return c.from < to && from < c.to }

// rebuild tries the ways to get at the bytes of a claim: without what is known to be bad, then also without each unit that is not
// known to be good.
func (r *row) rebuild(c *claim) bool {
	for also := -1; also < len(r.units); also++ {
		if also >= 0 && !r.trusted(also, c.from, c.to) || also >= 0 && r.proven(also, c.from, c.to) {
			continue
		}
		data, err := r.recover(c.from, c.to, also)
		if err == nil && c.Good(data[c.unit]) {
			copy(r.units[c.unit][c.from:c.to], data[c.unit])
			return true
		}
	}
	return false
}

// recover gives bytes [from, to) of the data units, made without those that are not trusted, and without unit also.
func (r *row) recover(from, to, also int) ([][]byte, error) {
	d := r.c.dataStripes()
	cols := make([][]byte, d+2)
	for k := range r.units {
		if k != also && r.trusted(k, from, to) {
			cols[k] = r.units[k][from:to]
		}
	}
	return raid56.Recover(cols[:d], cols[d], cols[d+1])
}

// trusted tells whether nothing speaks against bytes [from, to) of a unit; proven, whether a claim speaks for them.
func (r *row) trusted(unit, from, to int) bool {
	if r.lost[unit] {
		return r.proven(unit, from, to)
	}
	return !slices.ContainsFunc(r.claims, func(c claim) bool { return c.unit == unit && !c.ok && c.touches(from, to) })
}

func (r *row) proven(unit, from, to int) bool {
	return slices.ContainsFunc(r.claims, func(c claim) bool { return c.unit == unit && c.ok && c.from <= from && to <= c.to })
}

// data gives bytes [from, to) of the data units, those of lost units rebuilt.
func (r *row) data(from, to int) ([][]byte, error) {
	cols, err := r.recover(from, to, -1)
	if err != nil {
		return nil, err
	}
	for _, c := range r.claims {
		if a, b := max(c.from, from), min(c.to, to); c.ok && r.lost[c.unit] && a < b {
			copy(cols[c.unit][a-from:b-from], r.units[c.unit][a:b])
		}
	}
	return cols, nil
}

// parities computes the parities of data units.
func parities(n int, data [][]byte) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, len(data[0]))
	}
	raid56.P(out[0], data...)
	if n == 2 {
		raid56.Q(out[1], data...)
	}
	return out
}

// fits tells whether the parities of units are those of their data.
func fits(d int, units [][]byte) bool {
	for i, p := range parities(len(units)-d, units[:d]) {
		if !bytes.Equal(p, units[d+i]) {
			return false
		}
	}
	return true
}
