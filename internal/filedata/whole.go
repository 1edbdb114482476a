package filedata

import (
	"context"
	"io"
	"io/fs"
	"runtime"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// wholeChunk is what one goroutine of WriteTo reads at a time.
const wholeChunk = 1 << 20

// WriteTo writes the whole file to w.
func (r *Reader) WriteTo(ctx context.Context, w io.Writer) (int64, error) {
	return r.WriteFrom(ctx, w, 0)
}

// WriteFrom writes the file from offset off on to w. Reading, verifying and
// decoding go ahead of the writing, in parallel.
func (r *Reader) WriteFrom(ctx context.Context, w io.Writer, off uint64) (int64, error) {
	it, err := fstree.ReadInode(ctx, r.trees.fs, r.ino)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan part, parallel()+1)
	spare := make(chan []byte, parallel()+2)
	go r.readAhead(ctx, it, off, queue, spare)
	var done int64
	for one := range queue {
		p := <-one
		if p.err != nil {
			return done, p.err
		}
		n, err := w.Write(p.b)
		done += int64(n)
		if err != nil {
			return done, err
		}
		select {
		case spare <- p.b[:cap(p.b)]:
		default:
		}
	}
	return done, ctx.Err()
}

type part struct {
	b   []byte
	err error
}

// readAhead starts one goroutine per part, as many as the queue has room for,
// and closes the queue after the last. spare holds buffers to use again.
func (r *Reader) readAhead(ctx context.Context, it ondisk.InodeItem, off uint64, queue chan<- chan part, spare <-chan []byte) {
	defer close(queue)
	for ; off < it.Size; off += wholeChunk {
		one := make(chan part, 1)
		select {
		case queue <- one:
		case <-ctx.Done():
			return
		}
		go func(off uint64) {
			var b []byte
			n := min(wholeChunk, it.Size-off)
			select {
			case b = <-spare:
			default:
				b = make([]byte, n, max(n, min(wholeChunk, it.Size)))
			}
			b = b[:n]
			err := r.read(ctx, it, b, off)
			one <- part{b, err}
		}(off)
	}
}

// DataRanges calls fn for the ranges in [from, to) that are not holes, up to the
// size of the file; neighbours are joined. Space that was only reserved is a
// hole. fn may return fs.SkipAll to end early.
func (r *Reader) DataRanges(ctx context.Context, from, to uint64, fn func(start, end uint64) error) error {
	it, err := fstree.ReadInode(ctx, r.trees.fs, r.ino)
	if err != nil {
		return err
	}
	ss := uint64(r.layout.Sectorsize)
	to = min(to, it.Size)
	var start, end uint64 // found, not yet told
	stopped := false
	tell := func() error {
		if start >= end || stopped {
			return nil
		}
		err := fn(start, end)
		stopped = err != nil
		return err
	}
	err = fstree.Extents(ctx, r.trees.fs, r.ino, from, to, func(at uint64, e ondisk.FileExtent) error {
		if e.Type == ondisk.ExtentPrealloc || e.Type == ondisk.ExtentReg && e.DiskBytenr == 0 {
			return nil
		}
		a, b := max(at, from), min((at+fstree.Span(e)+ss-1)/ss*ss, to)
		if a >= b {
			return nil
		}
		if a == end && end > start {
			end = b
			return nil
		}
		if err := tell(); err != nil {
			return err
		}
		start, end = a, b
		return nil
	})
	if err == nil {
		err = tell()
	}
	if err == fs.SkipAll {
		return nil
	}
	return err
}

// SeekData gives the first offset from off on that is not in a hole; io.EOF if
// there is none.
func (r *Reader) SeekData(ctx context.Context, off int64) (int64, error) {
	found := int64(-1)
	err := r.DataRanges(ctx, uint64(max(off, 0)), ^uint64(0), func(start, _ uint64) error {
		found = int64(start)
		return fs.SkipAll
	})
	if err == nil && found < 0 {
		err = io.EOF
	}
	return found, err
}

// SeekHole gives the first offset from off on that is in a hole, or the size of
// the file, which counts as one; io.EOF if off is not in the file.
func (r *Reader) SeekHole(ctx context.Context, off int64) (int64, error) {
	size, err := r.Size(ctx)
	if err != nil {
		return -1, err
	}
	if off < 0 || uint64(off) >= size {
		return -1, io.EOF
	}
	hole := uint64(off)
	err = r.DataRanges(ctx, hole, size, func(start, end uint64) error {
		if start > hole {
			return fs.SkipAll
		}
		hole = end
		return nil
	})
	return int64(hole), err
}

// parallel is how many goroutines share the work of one call.
func parallel() int { return runtime.GOMAXPROCS(0) }
