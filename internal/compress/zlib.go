package compress

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
)

const zlibDefault = 3 // the kernel's

// zlibReaders and zlibWriters keep idle coders, whose tables are costly to make. Pools hold no state that a result depends on.
var (
	zlibReaders sync.Pool
	zlibWriters [10]sync.Pool // by level
)

// zlibReader is a decoder and the source it was made for.
type zlibReader struct {
	src bytes.Reader
	r   io.ReadCloser
}

func (z *zlibReader) reset(src []byte) (err error) {
	z.src.Reset(src)
	if z.r == nil {
		z.r, err = zlib.NewReader(&z.src)
		return err
	}
	return z.r.(zlib.Resetter).Reset(&z.src, nil)
}

// decodeZlib decodes one stream and verifies its checksum; what follows the stream is ignored.
func decodeZlib(dst, src []byte) (n int, err error) {
	z, _ := zlibReaders.Get().(*zlibReader)
	if z == nil {
		z = new(zlibReader)
	}
	if err := z.reset(src); err != nil {
		return 0, corrupt("zlib extent", err.Error(), nil, nil)
	}
	defer func() {
		z.src.Reset(nil)
		zlibReaders.Put(z)
	}()
	for n < len(dst) && err == nil {
		var got int
		got, err = z.r.Read(dst[n:])
		n += got
	}
	for err == nil {
		var more [1]byte
		var got int
		if got, err = z.r.Read(more[:]); got > 0 {
			return 0, corrupt("zlib extent", "longer than ram_bytes", nil, len(dst))
		}
	}
	if err != io.EOF {
		return 0, corrupt("zlib extent", err.Error(), nil, nil)
	}
	return n, nil
}

// errLimit stops an encoder whose output does not pay any more.
var errLimit = errors.New("output limit reached")

// limitWriter appends to b, up to limit bytes.
type limitWriter struct {
	b     []byte
	limit int
}

func (w *limitWriter) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > w.limit {
		return 0, errLimit
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

func encodeZlib(dst, src []byte, level, limit int) ([]byte, bool) {
	if level == 0 {
		level = zlibDefault
	}
	level = min(max(level, 1), 9)
	out := &limitWriter{dst, limit}
	w, _ := zlibWriters[level].Get().(*zlib.Writer)
	if w == nil {
		w, _ = zlib.NewWriterLevel(out, level) // fails for levels that do not exist only
	} else {
		w.Reset(out)
	}
	_, err := w.Write(src)
	if err == nil {
		err = w.Close()
	}
	w.Reset(nil)
	zlibWriters[level].Put(w)
	return out.b, err == nil
}
