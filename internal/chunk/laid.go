package chunk

import (
	"cmp"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// piece is what a stripe of a chunk takes of its device.
type piece struct {
	dev      ondisk.DevID
	from, to uint64
	chunk    *Chunk
}

// Laid tells whether chunks can be written without harm: whether each lies within its devices, whose sizes are given, and
// no two stripes share bytes. A device that is not given has no end.
func Laid(chunks []*Chunk, sizes map[ondisk.DevID]uint64) error {
	var all []piece
	for _, c := range chunks {
		for _, s := range c.Stripes {
			p := piece{s.DevID, s.Offset, s.Offset + c.DevExtentLen(), c}
			if size, ok := sizes[p.dev]; ok && p.to > size {
				return p.wrong("stripe beyond the end of its device", p.to, size)
			}
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.dev, b.dev), cmp.Compare(a.from, b.from), cmp.Compare(a.chunk.Logical, b.chunk.Logical))
	})
	for i, p := range all {
		if i > 0 && all[i-1].dev == p.dev && all[i-1].to > p.from {
			return p.wrong("stripe lies over another", p.from, all[i-1].to)
		}
	}
	return nil
}

func (p piece) wrong(reason string, got, want any) error {
	return &ondisk.CorruptError{What: "chunk", Tree: ondisk.ChunkTree, Bytenr: p.chunk.Logical, Slot: -1, Reason: reason, Got: got, Want: want}
}
