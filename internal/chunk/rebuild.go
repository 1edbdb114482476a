package chunk

import (
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/raid56"
)

// rebuild computes the bytes at offset off of a parity chunk, which lie within
// one unit, from the rest of their row. Way 1 prefers P, way 2 does without P,
// way 3+i without the i-th other data stripe.
func (io *IO) rebuild(c *Chunk, off uint64, way int, p []byte) error {
	nr, so := split(off)
	d := c.dataStripes()
	row, want := nr/uint64(d), int(nr%uint64(d))
	units := make([][]byte, d+c.parity()) // data, P, Q; nil when lost
	also := -1                            // data stripe that this way takes for bad too
	if way > 2 {
		also = way - 3
		if also >= want {
			also++
		}
	}
	var lost error
	for k := range units {
		if k == want || k == also || way == 2 && k == d {
			continue
		}
		b := make([]byte, len(p))
		if err := io.readAt(c.member(row, k, so), b); err != nil {
			lost = errors.Join(lost, err)
			continue
		}
		units[k] = b
	}
	var q []byte
	if c.parity() == 2 {
		q = units[d+1]
	}
	data, err := raid56.Recover(units[:d], units[d], q)
	if err != nil {
		return errors.Join(fmt.Errorf("rebuild from parity: %w", err), lost)
	}
	copy(p, data[want])
	return nil
}
