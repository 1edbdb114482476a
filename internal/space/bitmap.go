package space

import "math/bits"

// bitmap holds one bit per sector of a block group. Ranges are half open.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

// mask returns the bits of word w that lie in from..to-1.
func mask(w, from, to int) uint64 {
	m := ^uint64(0)
	if from > w*64 {
		m <<= from - w*64
	}
	if to < w*64+64 {
		m &= 1<<(to-w*64) - 1
	}
	return m
}

func (b bitmap) set(from, to int) {
	for w := from / 64; w*64 < to; w++ {
		b[w] |= mask(w, from, to)
	}
}

func (b bitmap) clear(from, to int) {
	for w := from / 64; w*64 < to; w++ {
		b[w] &^= mask(w, from, to)
	}
}

// count returns how many bits of the range are set.
func (b bitmap) count(from, to int) int {
	n := 0
	for w := from / 64; w*64 < to; w++ {
		n += bits.OnesCount64(b[w] & mask(w, from, to))
	}
	return n
}

// next returns the first bit at or behind i, before n, that is set or clear as flip says: 0 looks for a set bit,
// all ones for a clear one. It returns n if there is none.
func (b bitmap) next(i, n int, flip uint64) int {
	if i >= n {
		return n
	}
	w := i / 64
	x := (b[w] ^ flip) & (^uint64(0) << (i % 64))
	for x == 0 {
		if w++; w*64 >= n {
			return n
		}
		x = b[w] ^ flip
	}
	return min(n, w*64+bits.TrailingZeros64(x))
}

func (b bitmap) nextSet(i, n int) int   { return b.next(i, n, 0) }
func (b bitmap) nextClear(i, n int) int { return b.next(i, n, ^uint64(0)) }
