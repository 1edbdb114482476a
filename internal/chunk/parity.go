package chunk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/raid56"
)

// writeParity writes p at offset off of a RAID5 or RAID6 chunk, row by row, with
// its parity.
//
// Parity is computed anew from all data of the row, never by difference: so rows
// that a power loss left with a wrong parity become right again. As with every
// other writer of these profiles, a row is not written in one instant: after a
// power loss its old data is safe while all devices are there, but may not be
// rebuilt right if one is lost before the row is written again.
func (io *IO) writeParity(ctx context.Context, c *Chunk, off uint64, p []byte) error {
	rowLen := uint64(c.dataStripes()) * ondisk.StripeLen
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		in := off % rowLen
		n := min(rowLen-in, uint64(len(p)))
		if err := io.writeRow(c, off/rowLen, in, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// writeRow writes p, which starts at offset in of a row and ends in it.
func (io *IO) writeRow(c *Chunk, row, in uint64, p []byte) error {
	defer io.lockRow(c, row)()
	first, so := split(in)
	last, end := split(in + uint64(len(p)) - 1)
	from, to := so, end+1 // the bytes of each unit that this write concerns
	if first != last {
		from, to = 0, ondisk.StripeLen
	}
	n := int(to - from)

	data, err := io.overlay(c, row, from, n, p, so-from, int(first))
	if err != nil {
		return fmt.Errorf("read the rest of a row to write: %w", err)
	}
	units := append(data[:len(data):len(data)], make([]byte, n))
	raid56.P(units[len(data)], data...)
	if c.parity() == 2 {
		units = append(units, make([]byte, n))
		raid56.Q(units[len(data)+1], data...)
	}
	return io.writeUnits(c, row, from, units, int(first), int(last))
}

// overlay gives n bytes at offset so of every data unit of a row as they will be when p
// is there, which starts at offset at in what is given of unit first. What p does
// not cover is read.
func (io *IO) overlay(c *Chunk, row, so uint64, n int, p []byte, at uint64, first int) ([][]byte, error) {
	data := make([][]byte, c.dataStripes())
	for k := range data {
		pos := (k-first)*n - int(at) // of the unit in p
		if pos >= 0 && pos+n <= len(p) {
			data[k] = p[pos : pos+n]
			continue
		}
		data[k] = make([]byte, n)
		if err := io.readAt(c.member(row, k, so), data[k]); err != nil {
			old, err := io.readRow(c, row, so, n, func(j int) bool { return j == k })
			if err != nil {
				return nil, err
			}
			data[k] = old[k]
		}
		if pos > -n && pos < len(p) {
			copy(data[k][max(-pos, 0):], p[max(pos, 0):])
		}
	}
	return data, nil
}

// writeUnits writes the data units first to last, and all parity units, of a row
// from offset so on, side by side.
func (io *IO) writeUnits(c *Chunk, row, so uint64, units [][]byte, first, last int) error {
	errs := make([]error, len(units))
	var wg sync.WaitGroup
	for k, b := range units {
		if k < c.dataStripes() && (k < first || k > last) {
			continue
		}
		wg.Go(func() { errs[k] = io.writeAt(c.member(row, k, so), b) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
