package share

import (
	"encoding/binary"
	"math/bits"
)

// set is a set of trees, by their places in the list that was given: a bitmap.
type set []uint64

func newSet(trees int, members ...int) set {
	s := make(set, (trees+63)/64)
	for _, i := range members {
		s[i/64] |= 1 << (i % 64)
	}
	return s
}

func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }

// within reports whether all of s is in t.
func (s set) within(t set) bool {
	for i := range s {
		if s[i]&^t[i] != 0 {
			return false
		}
	}
	return true
}

func (s set) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// members lists what is in s and not in except.
func (s set) members(except set) (out []int) {
	for i, w := range s {
		for w &^= except[i]; w != 0; w &= w - 1 {
			out = append(out, i*64+bits.TrailingZeros64(w))
		}
	}
	return out
}

// span gives the first and the last of what is in s and not in except; ok: there is any.
func (s set) span(except set) (first, last int, ok bool) {
	for i := range s {
		if w := s[i] &^ except[i]; w != 0 {
			if !ok {
				first, ok = i*64+bits.TrailingZeros64(w), true
			}
			last = i*64 + bits.Len64(w) - 1
		}
	}
	return first, last, ok
}

// table gives each distinct set a number, so that it is in memory once.
type table struct {
	sets   []set
	number map[string]uint32
	unions map[[2]uint32]uint32 // found before
}

func newTable() *table {
	return &table{number: map[string]uint32{}, unions: map[[2]uint32]uint32{}}
}

// intern gives the number of s, which the table keeps.
func (t *table) intern(s set) uint32 {
	key := make([]byte, 0, 8*len(s))
	for _, w := range s {
		key = binary.LittleEndian.AppendUint64(key, w)
	}
	n, there := t.number[string(key)]
	if !there {
		n = uint32(len(t.sets))
		t.sets = append(t.sets, s)
		t.number[string(key)] = n
	}
	return n
}

// union gives the number of the union of two sets.
func (t *table) union(a, b uint32) uint32 {
	if a == b {
		return a
	}
	pair := [2]uint32{min(a, b), max(a, b)}
	if n, there := t.unions[pair]; there {
		return n
	}
	s := make(set, len(t.sets[a]))
	for i := range s {
		s[i] = t.sets[a][i] | t.sets[b][i]
	}
	n := t.intern(s)
	t.unions[pair] = n
	return n
}
