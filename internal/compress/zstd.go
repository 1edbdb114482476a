package compress

import (
	"encoding/binary"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The kernel's limit for the window, for reader and writer.
const zstdWindow = 128 << 10

const zstdMagic = 0xfd2fb528

// zstdDecoder makes the decoder when it is first needed. Many goroutines may use it at once.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxWindow(zstdWindow),
		zstd.WithDecoderMaxMemory(MaxExtent+Slack), zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true))
})

// decodeZstd decodes the first frame of src.
func decodeZstd(dst, src []byte) (int, error) {
	size, err := zstdFrame(src)
	if err != nil {
		return 0, err
	}
	dec, err := zstdDecoder()
	if err != nil {
		return 0, err
	}
	out, err := dec.DecodeAll(src[:size], dst[:0:min(cap(dst), len(dst)+Slack)])
	if err != nil {
		return 0, corrupt("zstd extent", err.Error(), nil, nil)
	}
	if len(out) > len(dst) {
		return 0, corrupt("zstd extent", "longer than ram_bytes", len(out), len(dst))
	}
	return copy(dst, out), nil // onto itself, unless the decoder moved
}

// zstdFrame returns the length of the frame that src begins with, by walking over its blocks (RFC 8878, 3.1.1). The decoder
// would take the padding behind it for another frame.
//
// A block's three bytes are, from the lowest bit: last (1), type (2: raw, run, compressed, reserved), size (21).
func zstdFrame(src []byte) (int, error) {
	if len(src) < 4 || binary.LittleEndian.Uint32(src) != zstdMagic {
		return 0, corrupt("zstd extent", "no frame", nil, nil)
	}
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return 0, corrupt("zstd extent", err.Error(), nil, nil)
	}
	for at := h.HeaderSize; len(src)-at >= 3; {
		block := int(src[at]) | int(src[at+1])<<8 | int(src[at+2])<<16
		size := block >> 3
		if block>>1&3 == 1 {
			size = 1 // one byte, repeated
		}
		at += 3
		if size > len(src)-at {
			break
		}
		at += size
		if block&1 == 0 {
			continue
		}
		if h.HasCheckSum {
			at += 4
		}
		if at > len(src) {
			break
		}
		return at, nil
	}
	return 0, corrupt("zstd extent", "frame has no end", nil, nil)
}

// zstdEncoders make the encoder of each level that the library has, when it is first needed.
var zstdEncoders = [...]func() *zstd.Encoder{
	zstdEncoder(zstd.SpeedFastest),
	zstdEncoder(zstd.SpeedDefault),
	zstdEncoder(zstd.SpeedBetterCompression),
	zstdEncoder(zstd.SpeedBestCompression),
}

func zstdEncoder(level zstd.EncoderLevel) func() *zstd.Encoder {
	return sync.OnceValue(func() *zstd.Encoder {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(zstdWindow),
			zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil // the options are constants: tests would have shown it
		}
		return enc
	})
}

func encodeZstd(dst, src []byte, level int) ([]byte, bool) {
	if level == 0 {
		level = 3
	}
	speed := min(max(zstd.EncoderLevelFromZstd(level), zstd.SpeedFastest), zstd.SpeedBestCompression)
	enc := zstdEncoders[speed-zstd.SpeedFastest]()
	if enc == nil {
		return nil, false
	}
	return enc.EncodeAll(src, dst), true
}
