package compress

import (
	"encoding/binary"
	"fmt"
)

// An LZO payload is a sequence of segments, each one sector of data compressed for itself:
//
//	u32 total length: this field, all segments and all paddings
//	per segment: u32 length, then LZO1X data
//
// A segment's length field never crosses a sector of the payload: where fewer than four bytes are left in one, they are zero
// and the next segment begins at the next sector. That padding stands, and is counted, behind the last segment as well.

const lzoField = 4 // bytes of a length field

// lzoWorst is the length of the longest segment that any encoder makes of n bytes.
func lzoWorst(n int) int { return n + n/16 + 64 + 3 }

// lzoPad returns how many bytes are left over in the sector of the payload that at is in.
func lzoPad(at, sectorsize int) int {
	if left := sectorsize - at%sectorsize; left < lzoField {
		return left
	}
	return 0
}

func decodeLZO(dst, src []byte, sectorsize int, inline bool) (int, error) {
	if len(src) < lzoField {
		return 0, corrupt("lzo extent", "too short", len(src), lzoField)
	}
	total := int64(binary.LittleEndian.Uint32(src))
	if total < lzoField || total > int64(len(src)) {
		return 0, corrupt("lzo extent", "wrong total length", total, len(src))
	}
	if !inline && roundUp(int(total), sectorsize) != len(src) {
		return 0, corrupt("lzo extent", "total length does not fill the extent", total, len(src))
	}
	src = src[:total]
	n := 0
	for at := lzoField; len(src)-at >= lzoField; {
		size := int64(binary.LittleEndian.Uint32(src[at:]))
		at += lzoField
		if size > int64(len(src)-at) || size > int64(lzoWorst(sectorsize)) {
			return 0, corrupt("lzo extent", fmt.Sprintf("wrong segment length at %d", at-lzoField), size, len(src)-at)
		}
		room := dst[n:min(n+sectorsize, len(dst))]
		got, err := decodeLZO1X(room, src[at:at+int(size)])
		if err != nil {
			return 0, corrupt("lzo extent", fmt.Sprintf("segment at %d: %v", at, err), nil, nil)
		}
		n += got
		at += int(size)
		at += lzoPad(at, sectorsize)
	}
	return n, nil
}

func encodeLZO(dst, src []byte, sectorsize, limit int) ([]byte, bool) {
	w := lzoTables.Get().(*lzoTable)
	defer lzoTables.Put(w)
	out := append(dst, 0, 0, 0, 0)
	for len(src) > 0 {
		segment := src[:min(len(src), sectorsize)]
		src = src[len(segment):]
		head := len(out)
		out = append(out, 0, 0, 0, 0)
		out = w.encode(out, segment)
		binary.LittleEndian.PutUint32(out[head:], uint32(len(out)-head-lzoField))
		for range lzoPad(len(out), sectorsize) {
			out = append(out, 0)
		}
		if len(out) > limit {
			return nil, false
		}
	}
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out, true
}
