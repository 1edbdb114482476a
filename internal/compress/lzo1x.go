package compress

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync"
)

// LZO1X is a byte stream of instructions. Each copies earlier output (a match), fresh input (literals), or the first and then up
// to three of the second. What the smallest instructions mean depends on how many literals the one before ended with ("state":
// 0 none, 1 to 3, 4 for a long run).
//
//	first byte       bytes that follow   meaning
//	0000LLLL         [run]               state 0: 3+L literals, L = 0: 18 + run; then state 4
//	0000DDSS         H                   state 1-3: match of 2, distance H·4 + D + 1
//	0000DDSS         H                   state 4: match of 3, distance H·4 + D + 2049
//	0001HLLL         [run] u16 D·4+S     match of 2+L, L = 0: 9 + run, distance 16384 + H·16384 + D; distance 16384 is the end
//	001LLLLL         [run] u16 D·4+S     match of 2+L, L = 0: 33 + run, distance D + 1
//	01LDDDSS         H                   match of 3+L, distance H·8 + D + 1
//	1LLDDDSS         H                   match of 5+L, distance H·8 + D + 1
//
// S literals follow each match. A run is any number of zero bytes, 255 each, and a byte that is not zero. Only the very first
// byte of a stream is different: from 18 on it stands for byte-17 literals.

var (
	errLZOInput  = errors.New("input ends early")
	errLZOOutput = errors.New("longer than its sector or ram_bytes")
	errLZOMatch  = errors.New("match before the beginning")
	errLZOTail   = errors.New("bytes behind the end mark")
)

const (
	lzoNear   = 2048  // farthest match of the two-byte instructions
	lzoMiddle = 16384 // farthest of 001LLLLL
	lzoFar    = 49151 // farthest of 0001HLLL
)

// lzoReader decodes one stream: src from ip on into dst from op on.
type lzoReader struct {
	dst, src []byte
	op, ip   int
}

// decodeLZO1X decodes all of src and returns how much of dst it filled.
func decodeLZO1X(dst, src []byte) (int, error) {
	r := lzoReader{dst: dst, src: src}
	state := 0
	if len(src) > 0 && src[0] > 17 {
		n := int(src[0]) - 17
		r.ip = 1
		if err := r.literals(n); err != nil {
			return 0, err
		}
		state = min(n, 4)
	}
	for {
		if r.ip >= len(src) {
			return 0, errLZOInput
		}
		inst := src[r.ip]
		r.ip++
		if inst < 16 && state == 0 {
			n, err := r.count(int(inst), 15)
			if err == nil {
				err = r.literals(n + 3)
			}
			if err != nil {
				return 0, err
			}
			state = 4
			continue
		}
		length, distance, next, err := r.decodeMatch(inst, state)
		if err != nil {
			return 0, err
		}
		if distance == 0 {
			if r.ip != len(src) {
				return 0, errLZOTail
			}
			return r.op, nil
		}
		if err := r.match(length, distance); err != nil {
			return 0, err
		}
		if err := r.literals(next); err != nil {
			return 0, err
		}
		state = next
	}
}

// decodeMatch reads the rest of a match instruction; distance 0 stands for the end mark.
func (r *lzoReader) decodeMatch(inst byte, state int) (length, distance, next int, err error) {
	if inst >= 64 || inst < 16 {
		if r.ip >= len(r.src) {
			return 0, 0, 0, errLZOInput
		}
		high := int(r.src[r.ip])
		r.ip++
		switch {
		case inst >= 64:
			return int(inst>>5) + 1, high<<3 + int(inst>>2&7) + 1, int(inst & 3), nil
		case state == 4:
			return 3, high<<2 + int(inst>>2) + lzoNear + 1, int(inst & 3), nil
		}
		return 2, high<<2 + int(inst>>2) + 1, int(inst & 3), nil
	}
	mask, base := 7, lzoMiddle+int(inst&8)<<11
	if inst >= 32 {
		mask, base = 31, 1
	}
	length, err = r.count(int(inst)&mask, mask)
	if err != nil {
		return 0, 0, 0, err
	}
	if len(r.src)-r.ip < 2 {
		return 0, 0, 0, errLZOInput
	}
	word := int(binary.LittleEndian.Uint16(r.src[r.ip:]))
	r.ip += 2
	distance = base + word>>2
	if distance == lzoMiddle && inst < 32 {
		distance = 0
	}
	return length + 2, distance, word & 3, nil
}

// count returns n, or what the run behind says when n is 0.
func (r *lzoReader) count(n, base int) (int, error) {
	if n > 0 {
		return n, nil
	}
	for r.ip < len(r.src) {
		b := int(r.src[r.ip])
		r.ip++
		if b > 0 {
			return n + base + b, nil
		}
		n += 255
	}
	return 0, errLZOInput
}

func (r *lzoReader) literals(n int) error {
	switch {
	case n > len(r.src)-r.ip:
		return errLZOInput
	case n > len(r.dst)-r.op:
		return errLZOOutput
	}
	if n <= 8 && len(r.src)-r.ip >= 8 && len(r.dst)-r.op >= 8 {
		copy8(r.dst[r.op:], r.src[r.ip:])
	} else {
		copy(r.dst[r.op:], r.src[r.ip:r.ip+n])
	}
	r.op, r.ip = r.op+n, r.ip+n
	return nil
}

// copy8 copies eight bytes, of which the caller may want fewer: most copies are short, and a call of copy costs more. What is
// written too much lies before the end of dst and is overwritten, or cleared by Decode.
func copy8(dst, src []byte) {
	binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src))
}

func (r *lzoReader) match(n, distance int) error {
	op := r.op
	switch {
	case distance > op:
		return errLZOMatch
	case n > len(r.dst)-op:
		return errLZOOutput
	}
	from := op - distance
	r.op += n
	if distance >= 8 && n <= 32 && len(r.dst)-op >= n+8 {
		dst := r.dst
		for end := op + n; op < end; op, from = op+8, from+8 {
			copy8(dst[op:], dst[from:])
		}
		return nil
	}
	// A match may reach into what it writes, which repeats it; so copy what is there, doubling.
	for op < r.op {
		op += copy(r.dst[op:r.op], r.dst[from:op])
	}
	return nil
}

// The encoder: the latest place of each four bytes, by hash, and the first match found is taken.

const lzoHashBits = 12

// lzoTable remembers places of the running segment as base+offset. Raising base forgets all earlier segments without clearing.
type lzoTable struct {
	base  uint32
	place [1 << lzoHashBits]uint32
}

// lzoTables keeps idle tables.
var lzoTables = sync.Pool{New: func() any { return &lzoTable{base: 1} }}

// encode appends the LZO1X stream of src, which is at most 64 KiB.
func (t *lzoTable) encode(out, src []byte) []byte {
	if t.base > 1<<31 {
		*t = lzoTable{base: 1}
	}
	base := t.base
	t.base += uint32(len(src)) + 1
	start, anchor := len(out), 0 // of the stream; of the literals not written yet
	for at := 0; at+4 <= len(src); {
		word := binary.LittleEndian.Uint32(src[at:])
		slot := &t.place[word*2654435761>>(32-lzoHashBits)]
		before := *slot
		*slot = base + uint32(at)
		from := int(before) - int(base)
		if before < base || at-from > lzoFar || binary.LittleEndian.Uint32(src[from:]) != word {
			at += 1 + (at-anchor)>>5 // hurry through what does not compress
			continue
		}
		length := 4 + lzoCommon(src[from+4:], src[at+4:])
		out = lzoLiterals(out, start, src[anchor:at])
		out = lzoMatch(out, length, at-from)
		at += length
		anchor = at
	}
	out = lzoLiterals(out, start, src[anchor:])
	return append(out, 0x11, 0, 0)
}

// lzoCommon returns how many bytes a and b, the shorter, begin with in common.
func lzoCommon(a, b []byte) int {
	n := 0
	for len(b)-n >= 8 {
		if diff := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); diff != 0 {
			return n + bits.TrailingZeros64(diff)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// lzoLiterals appends the instruction for a run of literals, and the literals. The stream began at start.
func lzoLiterals(out []byte, start int, p []byte) []byte {
	n := len(p)
	switch {
	case n == 0:
		return out
	case len(out) == start && n <= 255-17:
		out = append(out, byte(17+n))
	case n <= 3:
		out[len(out)-2] |= byte(n) // the S bits of the match before
	case n <= 18:
		out = append(out, byte(n-3))
	default:
		out = lzoRun(append(out, 0), n-18)
	}
	return append(out, p...)
}

// lzoMatch appends a match of at least three bytes. Its S bits are in the byte before the last, and zero.
func lzoMatch(out []byte, length, distance int) []byte {
	if length <= 8 && distance <= lzoNear {
		d := distance - 1
		return append(out, byte((length-1)<<5|d&7<<2), byte(d>>3))
	}
	inst, longest, d := 0x20, 31, distance-1
	if distance > lzoMiddle {
		d = distance - lzoMiddle
		inst, longest = 0x10|d>>14<<3, 7
	}
	if length-2 <= longest {
		out = append(out, byte(inst|(length-2)))
	} else {
		out = lzoRun(append(out, byte(inst)), length-2-longest)
	}
	return append(out, byte(d<<2), byte(d>>6))
}

// lzoRun appends a count from 1 on.
func lzoRun(out []byte, n int) []byte {
	for ; n > 255; n -= 255 {
		out = append(out, 0)
	}
	return append(out, byte(n))
}
