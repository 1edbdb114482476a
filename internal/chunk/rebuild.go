package chunk

import (
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/raid56"
)

// rebuild computes the bytes at offset off of a parity chunk, which lie within
// one unit, from the rest of their row. Way 1 prefers P, way 2 does without P.
func (io *IO) rebuild(c *Chunk, off uint64, way int, p []byte) error {
	nr, so := split(off)
	d := c.dataStripes()
	row, want := nr/uint64(d), int(nr%uint64(d))
	units := make([][]byte, d+c.parity()) // data, P, Q; nil when lost
	var lost error
	for k := range units {
		if k == want || way == 2 && k == d {
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
