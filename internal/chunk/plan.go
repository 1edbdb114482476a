package chunk

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ErrNoRoom: no device has room for another chunk.
var ErrNoRoom = errors.New("no room for another chunk on the devices")

const (
	mib = 1 << 20
	gib = 1 << 30

	firstByte = 1 * mib  // first byte of a device that chunks may use
	minStripe = 1 * mib  // smallest stripe of a new chunk
	capStep   = 16 * mib // the 10 % limit is rounded up to this
)

// DevSpec is a device that a new chunk may lie on.
type DevSpec struct {
	ID    ondisk.DevID
	UUID  ondisk.UUID
	Total uint64
	Used  [][2]uint64 // device extents [start, end), in order
}

// fits tells whether a new chunk makes sense, and takes nothing that chunks of the map have: the device extents, by which
// it was planned, may be damaged.
func (c *Chunk) fits(m *Map, devs []DevSpec) error {
	if err := c.check(); err != nil {
		return err
	}
	sizes := map[ondisk.DevID]uint64{}
	for _, d := range devs {
		sizes[d.ID] = d.Total
	}
	return Laid(append(slices.Clone(m.All()), c), sizes)
}

// hole is a free range of a device.
type hole struct {
	dev         *DevSpec
	start, size uint64
}

// Plan picks size and places of a new chunk of a type (kind of content and
// profile bits), as big as users of Linux expect (FORMAT: "How chunks get their
// size"). The chunk's address is the end of the highest one in the map. Nothing
// is changed.
func Plan(m *Map, devs []DevSpec, typ uint64, sectorsize uint32) (Chunk, error) {
	c := Chunk{ChunkItem: ondisk.ChunkItem{
		Owner: uint64(ondisk.ExtentTree), StripeLen: ondisk.StripeLen, Type: typ, IOAlign: ondisk.StripeLen, IOWidth: ondisk.StripeLen,
		SectorSize: sectorsize, SubStripes: 1,
	}}
	if all := m.All(); len(all) > 0 {
		c.Logical = all[len(all)-1].End()
	}
	n, perDev, data, err := shape(c.Profile(), len(devs))
	if err != nil {
		return Chunk{}, err
	}
	if c.Profile() == ondisk.BlockGroupRAID10 {
		c.SubStripes = 2
	}
	holes := bestHoles(devs)
	for ; n >= 1; n -= step(c.Profile()) {
		if n < data.min || len(holes) < n {
			if !data.flexible {
				return Chunk{}, ErrNoRoom
			}
			continue
		}
		size := stripeSize(typ, total(devs), data.of(n))
		size = min(size, holes[n-1].size/uint64(perDev))
		size -= size % ondisk.StripeLen
		if size < minStripe {
			if !data.flexible {
				return Chunk{}, ErrNoRoom
			}
			continue
		}
		c.Length = size * uint64(data.of(n))
		for _, h := range holes[:n] {
			for k := range perDev {
				c.Stripes = append(c.Stripes, ondisk.Stripe{DevID: h.dev.ID, Offset: h.start + uint64(k)*size, DevUUID: h.dev.UUID})
			}
		}
		return c, c.fits(m, devs)
	}
	return Chunk{}, ErrNoRoom
}

// columns tells how many devices' worth of a chunk hold different data.
type columns struct {
	min      int
	flexible bool // takes as many devices as have room
	of       func(n int) int
}

// shape gives the number of devices, the stripes on each, and the columns of a
// profile.
func shape(profile uint64, devs int) (n, perDev int, c columns, err error) {
	one := func(int) int { return 1 }
	switch profile {
	case 0:
		return 1, 1, columns{1, false, one}, nil
	case ondisk.BlockGroupDUP:
		return 1, 2, columns{1, false, one}, nil
	case ondisk.BlockGroupRAID1:
		return 2, 1, columns{2, false, one}, nil
	case ondisk.BlockGroupRAID1C3:
		return 3, 1, columns{3, false, one}, nil
	case ondisk.BlockGroupRAID1C4:
		return 4, 1, columns{4, false, one}, nil
	case ondisk.BlockGroupRAID0:
		return devs, 1, columns{1, true, func(n int) int { return n }}, nil
	case ondisk.BlockGroupRAID10:
		return devs &^ 1, 1, columns{2, true, func(n int) int { return n / 2 }}, nil
	case ondisk.BlockGroupRAID5:
		return devs, 1, columns{2, true, func(n int) int { return n - 1 }}, nil
	case ondisk.BlockGroupRAID6:
		return devs, 1, columns{3, true, func(n int) int { return n - 2 }}, nil
	}
	return 0, 0, columns{}, fmt.Errorf("cannot make chunks of profile %#x", profile)
}

func step(profile uint64) int {
	if profile == ondisk.BlockGroupRAID10 {
		return 2
	}
	return 1
}

func total(devs []DevSpec) (n uint64) {
	for _, d := range devs {
		n += d.Total
	}
	return n
}

// stripeSize is the size of a stripe before the room there is counts.
func stripeSize(typ, total uint64, columns int) uint64 {
	stripe, limit := uint64(gib), uint64(10*gib)
	switch {
	case typ&ondisk.BlockGroupData != 0:
	case typ&ondisk.BlockGroupMetadata != 0:
		if total <= 50*gib {
			stripe = 256 * mib
		}
		limit = stripe * uint64(columns)
	default:
		stripe, limit = 32*mib, 64*mib
	}
	limit = min(limit, total/10)
	if stripe*uint64(columns) > limit {
		stripe = limit / uint64(columns)
		stripe = (stripe + capStep - 1) / capStep * capStep
	}
	return stripe
}

// bestHoles gives the largest hole of each device, those of devices with the most
// free space first. A hole that is large enough for the biggest stripe counts as
// found at the lowest address.
func bestHoles(devs []DevSpec) []hole {
	type ranked struct {
		hole
		free uint64
	}
	var list []ranked
	for i := range devs {
		d := &devs[i]
		var best hole
		var free uint64
		at := uint64(firstByte)
		add := func(end uint64) {
			if end > at {
				free += end - at
				if end-at > best.size && best.size < gib {
					best = hole{d, at, end - at}
				}
			}
		}
		for _, u := range d.Used {
			add(min(u[0], d.Total))
			at = max(at, u[1])
		}
		add(d.Total)
		if best.size > 0 {
			list = append(list, ranked{best, free})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].free > list[j].free })
	out := make([]hole, len(list))
	for i := range list {
		out[i] = list[i].hole
	}
	return out
}
