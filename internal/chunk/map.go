// Package chunk maps the logical address space of a volume to its devices and
// does the I/O through that map.
//
// A chunk is a range of logical addresses with a profile (single, DUP, RAID…)
// and stripes, places on devices. Invariants:
//
//  1. Chunks of a map do not overlap.
//  2. A Chunk in a map never changes; it is replaced by removing and inserting.
//  3. IO never reads or writes outside a chunk, whatever it is asked.
//
// Map is safe for use by many goroutines; so is IO. Stripe arithmetic: FORMAT,
// "Chunks: logical to physical".
package chunk

import (
	"fmt"
	"sort"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Chunk is a range of logical addresses and where it lies.
type Chunk struct {
	Logical ondisk.Bytenr
	ondisk.ChunkItem
}

// End is the address behind the chunk.
func (c *Chunk) End() ondisk.Bytenr { return c.Logical + ondisk.Bytenr(c.Length) }

// Profile is the type without the kinds of content; 0 is single.
func (c *Chunk) Profile() uint64 { return c.Type & ondisk.BlockGroupProfileMask }

// Copies is the number of copies that each byte has; parity is not one.
func (c *Chunk) Copies() int {
	switch c.Profile() {
	case ondisk.BlockGroupDUP, ondisk.BlockGroupRAID1, ondisk.BlockGroupRAID1C3, ondisk.BlockGroupRAID1C4:
		return len(c.Stripes)
	case ondisk.BlockGroupRAID10:
		return int(c.SubStripes)
	}
	return 1
}

// parity is the number of parity stripes.
func (c *Chunk) parity() int {
	switch c.Profile() {
	case ondisk.BlockGroupRAID5:
		return 1
	case ondisk.BlockGroupRAID6:
		return 2
	}
	return 0
}

// dataStripes is the number of stripes that hold different data.
func (c *Chunk) dataStripes() int {
	switch c.Profile() {
	case ondisk.BlockGroupRAID0:
		return len(c.Stripes)
	case ondisk.BlockGroupRAID10:
		return len(c.Stripes) / int(c.SubStripes)
	case ondisk.BlockGroupRAID5, ondisk.BlockGroupRAID6:
		return len(c.Stripes) - c.parity()
	}
	return 1
}

// striped tells whether stripe units of the chunk lie on different devices in turn.
func (c *Chunk) striped() bool {
	switch c.Profile() {
	case ondisk.BlockGroupRAID0, ondisk.BlockGroupRAID10, ondisk.BlockGroupRAID5, ondisk.BlockGroupRAID6:
		return true
	}
	return false
}

// DevExtentLen is the length of the chunk's extent on each of its devices.
func (c *Chunk) DevExtentLen() uint64 { return c.Length / uint64(c.dataStripes()) }

// Tolerated is the number of devices that may be missing while every byte can
// still be read.
func (c *Chunk) Tolerated() int {
	switch c.Profile() {
	case ondisk.BlockGroupRAID1, ondisk.BlockGroupRAID1C3, ondisk.BlockGroupRAID1C4:
		return len(c.Stripes) - 1
	case ondisk.BlockGroupRAID10, ondisk.BlockGroupRAID5:
		return 1
	case ondisk.BlockGroupRAID6:
		return 2
	}
	return 0
}

// check tells whether a chunk makes sense at all, so that arithmetic on it can
// neither divide by zero nor overflow.
func (c *Chunk) check() error {
	bad := func(reason string, got any) error {
		return &ondisk.CorruptError{What: "chunk", Tree: ondisk.ChunkTree, Bytenr: c.Logical, Slot: -1, Reason: reason, Got: got}
	}
	n, p := len(c.Stripes), c.Profile()
	min, even := minStripes(p)
	switch {
	case p&(p-1) != 0:
		return bad("more than one profile", c.Type)
	case c.Type&^(ondisk.BlockGroupTypeMask|ondisk.BlockGroupProfileMask) != 0:
		return bad("unknown type", c.Type)
	case c.Type&ondisk.BlockGroupTypeMask == 0:
		return bad("neither data nor metadata nor system", c.Type)
	case n < min || p == 0 && n != 1 || even && n%2 != 0:
		return bad("wrong number of stripes", n)
	case p == ondisk.BlockGroupDUP && n != 2, p == ondisk.BlockGroupRAID1C3 && n != 3, p == ondisk.BlockGroupRAID1C4 && n != 4, p == ondisk.BlockGroupRAID1 && n != 2:
		return bad("wrong number of stripes", n)
	case p == ondisk.BlockGroupRAID10 && c.SubStripes != 2:
		return bad("wrong number of sub stripes", c.SubStripes)
	case c.StripeLen != ondisk.StripeLen:
		return bad("wrong stripe length", c.StripeLen)
	case c.Length == 0 || c.Length >= 1<<48 || uint64(c.Logical) > ^uint64(0)-c.Length:
		return bad("wrong length", c.Length)
	case c.striped() && c.Length%(uint64(c.dataStripes())*ondisk.StripeLen) != 0:
		return bad("length is no multiple of a row of stripe units", c.Length)
	}
	for _, s := range c.Stripes {
		if s.Offset > ^uint64(0)-c.Length {
			return bad("stripe beyond any device", s.Offset)
		}
	}
	return nil
}

func minStripes(profile uint64) (n int, even bool) {
	switch profile {
	case ondisk.BlockGroupDUP, ondisk.BlockGroupRAID1, ondisk.BlockGroupRAID5:
		return 2, false
	case ondisk.BlockGroupRAID10:
		return 2, true
	case ondisk.BlockGroupRAID6, ondisk.BlockGroupRAID1C3:
		return 3, false
	case ondisk.BlockGroupRAID1C4:
		return 4, false
	}
	return 1, false
}

// Map is the chunks of a volume, ordered by address.
type Map struct {
	mu  sync.RWMutex
	all []*Chunk // replaced, never changed in place
}

// NewMap makes an empty map.
func NewMap() *Map { return &Map{} }

// All lists the chunks in the order of their addresses. The slice must not be
// changed.
func (m *Map) All() []*Chunk {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.all
}

// Find gives the chunk that holds an address.
func (m *Map) Find(at ondisk.Bytenr) (*Chunk, bool) {
	all := m.All()
	i := sort.Search(len(all), func(i int) bool { return all[i].Logical > at }) - 1
	if i < 0 || at >= all[i].End() {
		return nil, false
	}
	return all[i], true
}

// Insert adds a chunk. One that is there already is accepted when it is equal.
func (m *Map) Insert(c Chunk) error {
	if err := c.check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := sort.Search(len(m.all), func(i int) bool { return m.all[i].End() > c.Logical })
	if i < len(m.all) && m.all[i].Logical < c.End() {
		if equal(m.all[i], &c) {
			return nil
		}
		return &ondisk.CorruptError{What: "chunk", Tree: ondisk.ChunkTree, Bytenr: c.Logical, Slot: -1, Reason: "overlaps another",
			Got: fmt.Sprintf("[%d, %d)", c.Logical, c.End()), Want: fmt.Sprintf("not [%d, %d)", m.all[i].Logical, m.all[i].End())}
	}
	next := make([]*Chunk, 0, len(m.all)+1)
	next = append(append(append(next, m.all[:i]...), &c), m.all[i:]...)
	m.all = next
	return nil
}

func equal(a, b *Chunk) bool {
	if a.Logical != b.Logical || a.Length != b.Length || a.Type != b.Type || len(a.Stripes) != len(b.Stripes) {
		return false
	}
	for i := range a.Stripes {
		if a.Stripes[i] != b.Stripes[i] {
			return false
		}
	}
	return true
}

// Remove takes the chunk that starts at an address out.
func (m *Map) Remove(logical ondisk.Bytenr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make([]*Chunk, 0, len(m.all))
	for _, c := range m.all {
		if c.Logical != logical {
			next = append(next, c)
		}
	}
	m.all = next
}
