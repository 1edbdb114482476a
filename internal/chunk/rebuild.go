package chunk

import (
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/raid56"
)

// rebuild computes the bytes at offset off of a parity chunk, which lie within
// one unit, from the rest of their row. Way 1 prefers P, way 2 does without P,
// way 3+i without the i-th other data stripe.
func (io *IO) rebuild(c *Chunk, off uint64, way int, p []byte) error {
	nr, so := split(off)
	d := c.dataStripes()
	row, want := nr/uint64(d), int(nr%uint64(d))
	also := -1 // unit that this way takes for bad too
	switch {
	case way == 2:
		also = d
	case way > 2:
		also = way - 3
		if also >= want {
			also++
		}
	}
	defer io.lockRow(c, row)() // a row half written fits no parity
	data, err := io.dataUnits(c, row, so, len(p), func(k int) bool { return k == want || k == also })
	if err != nil {
		return err
	}
	copy(p, data[want])
	return nil
}

// dataUnits gives n bytes at offset so of every data unit of a row. Units to skip, and those
// that cannot be read, are rebuilt from parity.
//
// Preconditions: the row is locked.
func (io *IO) dataUnits(c *Chunk, row, so uint64, n int, skip func(unit int) bool) ([][]byte, error) {
	d := c.dataStripes()
	units := make([][]byte, d+2) // data, P, Q; nil when lost
	have := 0
	var lost error
	for k := 0; k < d+c.parity() && have < d; k++ { // d units of any kind are enough
		if skip(k) {
			continue
		}
		b := make([]byte, n)
		if err := io.readAt(c.member(row, k, so), b); err != nil {
			lost = errors.Join(lost, err)
			continue
		}
		units[k] = b
		have++
	}
	data, err := raid56.Recover(units[:d], units[d], units[d+1])
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rebuild from parity: %w", err), lost)
	}
	return data, nil
}

// lockRow lets one call at a time work on a row of a parity chunk, and returns
// what ends its turn. Rows may share a lock; nobody holds two.
func (io *IO) lockRow(c *Chunk, row uint64) (unlock func()) {
	nr := uint64(c.Logical)/ondisk.StripeLen + row
	mu := &io.rows[nr%uint64(len(io.rows))]
	mu.Lock()
	return mu.Unlock
}
