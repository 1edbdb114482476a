package mkfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ErrChanged: a file of the source changed while it was read.
var ErrChanged = errors.New("changed while it was read")

// segment is how much of a file one job reads.
const segment = 1 << 20

// job is a part of a file to read: it is made in order, done in any order, and used in order.
type job struct {
	n         *node
	off, size uint64 // what to read; size 0: the file has no data behind off
	last      bool   // of its file
	allocated uint64 // bytes that the file will occupy; in the first job of a file

	ready  chan struct{}
	err    error
	inline *ondisk.FileExtent // the whole file
	pieces []piece
	buf    []byte // memory of uncompressed pieces, to give back
}

// piece is data that follows each other on disk.
type piece struct {
	off  uint64 // in the file
	ram  uint64 // bytes of the file that it covers, whole sectors
	p    []byte // what goes to disk, whole sectors
	algo uint8
	sums []byte
}

// reader reads the files of a source, several jobs at once and in bounded memory.
type reader struct {
	src       Source
	p         *plan
	maxInline uint64
	queue     chan *job // in order
	work      chan *job // the same, for whoever has time
	buffers   sync.Pool
	cancel    context.CancelFunc
	wg        sync.WaitGroup
}

// newReader begins to read the regular files among all inodes of the subvolumes, in their order.
func newReader(ctx context.Context, p *plan, s *scan) *reader {
	workers := runtime.GOMAXPROCS(0) + 1
	r := &reader{src: s.src, p: p, queue: make(chan *job, 16*workers), work: make(chan *job, 16*workers)}
	r.maxInline = uint64(min(2048, int(p.sectorsize)-1, ondisk.LeafData(int(p.nodesize))-46))
	r.buffers.New = func() any { b := make([]byte, segment); return &b }
	ctx, r.cancel = context.WithCancel(ctx)
	r.wg.Go(func() {
		defer close(r.queue)
		defer close(r.work)
		for _, sub := range s.subvols {
			for _, n := range sub.order {
				if n.st.Mode&modeType == modeRegular && n.st.Size > 0 && !r.split(ctx, n) {
					return
				}
			}
		}
	})
	for range workers {
		r.wg.Go(func() {
			for j := range r.work {
				if j.err == nil {
					j.err = r.do(j)
				}
				close(j.ready)
			}
		})
	}
	return r
}

// stop ends reading.
func (r *reader) stop() {
	r.cancel()
	for range r.queue { // the makers of jobs must not hang
	}
	r.wg.Wait()
}

// split makes the jobs of a file and tells whether to go on.
func (r *reader) split(ctx context.Context, n *node) bool {
	ranges, err := r.ranges(n)
	first := &job{n: n, err: err, last: true, off: n.st.Size}
	jobs := []*job{first}
	if err == nil && len(ranges) > 0 {
		jobs = jobs[:0]
		allocated := uint64(0)
		for _, d := range ranges {
			allocated += d[1] - d[0]
		}
		for _, d := range ranges {
			for off := d[0]; off < d[1]; off += segment {
				if len(jobs) > 0 && !r.send(ctx, jobs[0]) {
					return false
				}
				jobs = []*job{{n: n, off: off, size: min(segment, d[1]-off), allocated: allocated}}
			}
		}
		jobs[0].last = true
	}
	return r.send(ctx, jobs[0])
}

func (r *reader) send(ctx context.Context, j *job) bool {
	j.ready = make(chan struct{})
	select {
	case r.queue <- j:
	case <-ctx.Done():
		return false
	}
	r.work <- j // workers never wait for anybody
	return true
}

// ranges gives the ranges of a file that hold data, in whole sectors.
func (r *reader) ranges(n *node) ([][2]uint64, error) {
	sector, size := uint64(r.p.sectorsize), roundUp(n.st.Size, uint64(r.p.sectorsize))
	if !n.st.Sparse {
		return [][2]uint64{{0, size}}, nil
	}
	f, err := r.src.Open(n.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out [][2]uint64
	for off := uint64(0); off < n.st.Size; {
		from, to, err := f.Data(off)
		if err != nil {
			return nil, err
		}
		if from >= n.st.Size || to <= off {
			break
		}
		from, to = max(from, off)/sector*sector, min(roundUp(min(to, size), sector), size)
		if last := len(out) - 1; last >= 0 && out[last][1] >= from {
			out[last][1] = to
		} else {
			out = append(out, [2]uint64{from, to})
		}
		off = to
	}
	return out, nil
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }

// do reads, compresses and sums.
func (r *reader) do(j *job) error {
	if j.size == 0 {
		return nil
	}
	if err := r.read(j); err != nil {
		return err
	}
	want := min(j.size, j.n.st.Size-j.off)
	if j.off == 0 && r.inline(j, j.buf[:want]) {
		return nil
	}
	r.cut(j)
	for i := range j.pieces {
		j.pieces[i].sums = r.sum(j.pieces[i].p)
	}
	return nil
}

// read fills the job's buffer and makes sure that the file is still the one that was found.
func (r *reader) read(j *job) error {
	f, err := r.src.Open(j.n.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if j.size <= segment/16 {
		j.buf = make([]byte, j.size)
	} else {
		j.buf = (*r.buffers.Get().(*[]byte))[:j.size]
	}
	want := min(j.size, j.n.st.Size-j.off)
	n, err := f.ReadAt(j.buf[:want], int64(j.off))
	if uint64(n) < want {
		if err == nil || errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it has become shorter", ErrChanged)
		}
		return fmt.Errorf("read: %w", err)
	}
	clear(j.buf[want:])
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size != j.n.st.Size || st.Mtime != j.n.st.Mtime || st.Mode&modeType != modeRegular {
		return ErrChanged
	}
	return nil
}

// inline makes the file an inline extent if it is small enough.
func (r *reader) inline(j *job, data []byte) bool {
	if uint64(len(data)) != j.n.st.Size || len(data) > int(r.p.sectorsize) {
		return false
	}
	e := &ondisk.FileExtent{Generation: generation, RAMBytes: uint64(len(data)), Type: ondisk.ExtentInline, Inline: data}
	if r.p.algo != compress.None {
		if out, ok := compress.Encode(r.p.algo, r.p.level, nil, data, int(r.p.sectorsize)); ok && uint64(len(out)) <= r.maxInline {
			e.Compression, e.Inline = r.p.algo, out
			j.inline = e
			return true
		}
	}
	if uint64(len(data)) > r.maxInline {
		return false
	}
	j.inline = e
	return true
}

// cut makes the job's buffer into pieces, compressed where it pays.
func (r *reader) cut(j *job) {
	add := func(from, to uint64, p []byte, algo uint8) {
		if last := len(j.pieces) - 1; algo == compress.None && last >= 0 && j.pieces[last].algo == compress.None {
			start := j.pieces[last].off - j.off
			j.pieces[last].p = j.buf[start:to]
			j.pieces[last].ram = to - start
			return
		}
		j.pieces = append(j.pieces, piece{off: j.off + from, ram: to - from, p: p, algo: algo})
	}
	if r.p.algo == compress.None {
		add(0, j.size, j.buf, compress.None)
		return
	}
	sector := int(r.p.sectorsize)
	for from := uint64(0); from < j.size; from += compress.MaxExtent {
		to := min(from+compress.MaxExtent, j.size)
		part := j.buf[from:min(to, j.n.st.Size-j.off)]
		out, ok := compress.Encode(r.p.algo, r.p.level, nil, part, sector)
		padded := roundUp(uint64(len(out)), uint64(sector))
		if ok && padded < to-from {
			add(from, to, out[:padded], r.p.algo)
		} else {
			add(from, to, j.buf[from:to], compress.None)
		}
	}
}

// sum gives the checksums of all sectors of p.
func (r *reader) sum(p []byte) []byte {
	size, sector := r.p.csum.Size(), int(r.p.sectorsize)
	out := make([]byte, len(p)/sector*size)
	for i := range len(p) / sector {
		checksum.Sum(r.p.csum, out[i*size:], p[i*sector:(i+1)*sector])
	}
	return out
}

// release gives the job's memory back.
func (r *reader) release(j *job) {
	if cap(j.buf) == segment {
		buf := j.buf[:segment]
		r.buffers.Put(&buf)
	}
	j.buf, j.pieces, j.inline = nil, nil, nil
}
