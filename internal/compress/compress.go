// Package compress encodes and decodes file data as Btrfs frames it: zlib, LZO and zstd.
//
// What is decoded comes from a device: nothing is allocated by a length found in it, no input makes a decoder read or write
// outside its slices, and what is wrong comes back as *ondisk.CorruptError. What is encoded is what the kernel reads; three of
// its habits are not obvious and kept here:
//
//  1. The length of an extent is rounded up to sectors, its stream may end sooner (at the end of the file). The rest is zero.
//  2. The payload is followed by zeros up to the next sector. zlib and zstd must stop at the end of their stream.
//  3. The total length in an LZO payload counts its paddings, and must fill the extent up to the last sector.
package compress

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// The algorithms, numbered as in the compression field of EXTENT_DATA items.
const (
	None uint8 = 0
	Zlib uint8 = 1
	LZO  uint8 = 2
	Zstd uint8 = 3
)

// MaxExtent is the most uncompressed bytes that one compressed extent holds. Callers check lengths from a device against it
// before they allocate.
const MaxExtent = 128 << 10

// Slack is how many bytes of capacity behind dst make Decode faster: there the zstd decoder may copy more than it must.
const Slack = 16

// Decode decodes an extent's payload src into dst, whose length is the extent's ram_bytes; what the stream does not fill is
// zeroed. What lies behind dst, within its capacity and at most Slack bytes, is undefined afterwards. A stream that holds more
// than dst is corrupt. Inline payloads are exact, others are padded to sectors.
func Decode(algo uint8, dst, src []byte, sectorsize int, inline bool) error {
	var n int
	var err error
	switch algo {
	case Zlib:
		n, err = decodeZlib(dst, src)
	case LZO:
		n, err = decodeLZO(dst, src, sectorsize, inline)
	case Zstd:
		n, err = decodeZstd(dst, src)
	default:
		err = corrupt("compressed extent", "unknown algorithm", algo, nil)
	}
	if err != nil {
		return err
	}
	clear(dst[n:])
	return nil
}

// Encode encodes src, at most MaxExtent bytes, using the room of dst when there is enough. Level 0 is the algorithm's default;
// others are clamped to what it has.
//
// ok tells whether it pays: whether the payload, padded to sectors, takes at least one sector less than src. Up to one sector
// only an inline extent can gain, so there any byte less counts. The payload is out, without padding; behind it out's memory
// holds zeros up to the next sector, so it may be resliced to a whole number of sectors.
func Encode(algo uint8, level int, dst, src []byte, sectorsize int) (out []byte, ok bool) {
	limit := budget(len(src), sectorsize)
	if limit <= 0 || len(src) > MaxExtent {
		return nil, false
	}
	switch algo {
	case Zlib:
		out, ok = encodeZlib(dst[:0], src, level, limit)
	case LZO:
		out, ok = encodeLZO(dst[:0], src, sectorsize, limit)
	case Zstd:
		out, ok = encodeZstd(dst[:0], src, level)
	}
	if !ok || len(out) > limit {
		return nil, false
	}
	return zeroPad(out, sectorsize), true
}

// budget returns the most bytes that a payload for n bytes may have.
func budget(n, sectorsize int) int {
	if n <= sectorsize {
		return n - 1
	}
	return roundUp(n, sectorsize) - sectorsize
}

// zeroPad zeroes the memory behind b up to the next sector, growing it where needed.
func zeroPad(b []byte, sectorsize int) []byte {
	n, padded := len(b), roundUp(len(b), sectorsize)
	if cap(b) < padded {
		b = append(make([]byte, 0, padded), b...)
	}
	clear(b[n:padded])
	return b
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// Name returns what the algorithm is called in mount options and properties.
func Name(algo uint8) string {
	switch algo {
	case None:
		return "none"
	case Zlib:
		return "zlib"
	case LZO:
		return "lzo"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compression(%d)", algo)
}

// Parse reads "ALGO" or "ALGO:LEVEL" as mount options have it; "no", "none" and "" are None. Level 0 stands for the default.
func Parse(s string) (algo uint8, level int, err error) {
	name, digits, leveled := strings.Cut(s, ":")
	lowest, highest := 0, 0
	switch name {
	case "", "no", "none":
		return None, 0, nil
	case "zlib":
		algo, highest = Zlib, 9
	case "lzo":
		algo = LZO
	case "zstd":
		algo, lowest, highest = Zstd, -15, 15
	default:
		return 0, 0, fmt.Errorf("unknown compression %q (want zlib, lzo, zstd or no)", s)
	}
	if !leveled {
		return algo, 0, nil
	}
	level, err = strconv.Atoi(digits)
	if err != nil || level < lowest || level > highest || highest == 0 {
		return 0, 0, fmt.Errorf("compression %q: no such level", s)
	}
	return algo, level, nil
}

func corrupt(what, reason string, got, want any) error {
	return &ondisk.CorruptError{What: what, Slot: -1, Reason: reason, Got: got, Want: want}
}
