package chunk

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// Place is a byte on a device.
type Place struct {
	DevID  ondisk.DevID
	Offset uint64
}

// Places gives where the byte at an address of the chunk lies, one for each copy; parities are none.
func (c *Chunk) Places(at ondisk.Bytenr) []Place {
	out := make([]Place, c.Copies())
	for i := range out {
		p, _ := c.at(uint64(at-c.Logical), i)
		out[i] = Place{p.dev, p.physical}
	}
	return out
}
