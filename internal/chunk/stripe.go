package chunk

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// place is a byte on a device.
type place struct {
	stripe   int // index into Chunk.Stripes
	dev      ondisk.DevID
	physical uint64
}

// row splits an offset in the chunk into the number of its stripe unit and the
// offset in that.
func split(off uint64) (nr, so uint64) { return off / ondisk.StripeLen, off % ondisk.StripeLen }

// at is the place of the byte at offset off of the chunk in copy mirror, and how
// many bytes follow it without a break. Parity profiles: the data stripe.
func (c *Chunk) at(off uint64, mirror int) (place, uint64) {
	nr, so := split(off)
	left := ondisk.StripeLen - so
	switch c.Profile() {
	case ondisk.BlockGroupRAID0:
		n := uint64(len(c.Stripes))
		return c.place(int(nr%n), nr/n*ondisk.StripeLen+so), left
	case ondisk.BlockGroupRAID10:
		f := uint64(c.dataStripes())
		return c.place(int(nr%f)*int(c.SubStripes)+mirror, nr/f*ondisk.StripeLen+so), left
	case ondisk.BlockGroupRAID5, ondisk.BlockGroupRAID6:
		d := uint64(c.dataStripes())
		row := nr / d
		return c.place(int((row+nr%d)%uint64(len(c.Stripes))), row*ondisk.StripeLen+so), left
	case 0:
		return c.place(0, off), c.Length - off
	}
	return c.place(mirror, off), c.Length - off
}

func (c *Chunk) place(i int, off uint64) place {
	s := c.Stripes[i]
	return place{stripe: i, dev: s.DevID, physical: s.Offset + off}
}

// member is the place of unit k of a parity row: data units 0..d-1, then P, then
// Q.
func (c *Chunk) member(row uint64, k int, so uint64) place {
	n := uint64(len(c.Stripes))
	return c.place(int((row+uint64(k))%n), row*ondisk.StripeLen+so)
}

// SuperRanges gives the logical ranges [from, to) of the chunk that lie on
// copies of the superblock and must never be allocated (FORMAT: "Who may lie
// where").
func (c *Chunk) SuperRanges() [][2]ondisk.Bytenr {
	var out [][2]ondisk.Bytenr
	length := c.DevExtentLen()
	for i := range ondisk.SuperCopies {
		p := ondisk.SuperOffset(i)
		for k, s := range c.Stripes {
			if p+ondisk.StripeLen <= s.Offset || p >= s.Offset+length {
				continue
			}
			rel := uint64(0)
			if p > s.Offset {
				rel = (p - s.Offset) / ondisk.StripeLen
			}
			out = append(out, c.logicalOf(k, rel)...)
			// A stripe that does not start at a multiple of the stripe length has
			// the copy in two of its units.
			if p > s.Offset && (p-s.Offset)%ondisk.StripeLen != 0 && (rel+1)*ondisk.StripeLen < length {
				out = append(out, c.logicalOf(k, rel+1)...)
			}
		}
	}
	return out
}

// logicalOf gives the logical ranges that unit rel of stripe k belongs to; for
// parity profiles the whole row.
func (c *Chunk) logicalOf(k int, rel uint64) [][2]ondisk.Bytenr {
	from, n := rel*ondisk.StripeLen, uint64(ondisk.StripeLen)
	switch c.Profile() {
	case ondisk.BlockGroupRAID0:
		from = (rel*uint64(len(c.Stripes)) + uint64(k)) * ondisk.StripeLen
	case ondisk.BlockGroupRAID10:
		from = (rel*uint64(c.dataStripes()) + uint64(k/int(c.SubStripes))) * ondisk.StripeLen
	case ondisk.BlockGroupRAID5, ondisk.BlockGroupRAID6:
		d := uint64(c.dataStripes())
		from, n = rel*d*ondisk.StripeLen, d*ondisk.StripeLen
	}
	if from >= c.Length {
		return nil
	}
	n = min(n, c.Length-from)
	return [][2]ondisk.Bytenr{{c.Logical + ondisk.Bytenr(from), c.Logical + ondisk.Bytenr(from+n)}}
}
