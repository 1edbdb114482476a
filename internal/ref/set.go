package ref

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// Set is a set of addresses that is asked often: open addressing, without pointers. The zero Set is empty. Many may ask it while nobody adds.
type Set struct {
	slots []ondisk.Bytenr // zero: free; a power of two of them
	n     int
	zero  bool // the address 0 is in the set
}

// Len returns how many addresses there are.
func (s *Set) Len() int {
	if s.zero {
		return s.n + 1
	}
	return s.n
}

// Add puts an address into the set.
func (s *Set) Add(at ondisk.Bytenr) {
	if at == 0 {
		s.zero = true
		return
	}
	if 4*(s.n+1) > 3*len(s.slots) {
		s.grow()
	}
	if i := s.find(at); s.slots[i] == 0 {
		s.slots[i] = at
		s.n++
	}
}

// Has tells whether an address is in the set.
func (s *Set) Has(at ondisk.Bytenr) bool {
	if at == 0 {
		return s.zero
	}
	return s.n > 0 && s.slots[s.find(at)] == at
}

// find returns the slot that holds the address, or where it belongs.
func (s *Set) find(at ondisk.Bytenr) int {
	mask := len(s.slots) - 1
	// Addresses are multiples of a block; the high half of the product depends on all their bits.
	i := int(uint64(at) * 0x9e3779b97f4a7c15 >> 32)
	for i &= mask; s.slots[i] != 0 && s.slots[i] != at; i = (i + 1) & mask {
	}
	return i
}

func (s *Set) grow() {
	old := s.slots
	s.slots = make([]ondisk.Bytenr, max(64, 2*len(old)))
	for _, at := range old {
		if at != 0 {
			s.slots[s.find(at)] = at
		}
	}
}
