package filedata_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// batchReader reads files through a Batch, which it loads when it is full.
type batchReader struct {
	w     *world
	b     *filedata.Batch
	tree  *btree.Tree
	csums *btree.Tree
	open  []batchPiece
	loads int
}

type batchPiece struct {
	f *file
	p *filedata.Piece
}

func newBatchReader(w *world, memory int) *batchReader {
	r := &batchReader{w: w, b: filedata.NewBatch(w.v, memory)}
	var err error
	r.tree, err = w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	r.csums, err = w.m.Tree(w.ctx, ondisk.CsumTree)
	w.must(err)
	return r
}

// add asks for a whole file.
func (r *batchReader) add(f *file) {
	it, err := fstree.ReadInode(r.w.ctx, r.tree, f.ino)
	r.w.must(err)
	type extent struct {
		at uint64
		e  ondisk.FileExtent
	}
	var list []extent
	r.w.must(fstree.Extents(r.w.ctx, r.tree, f.ino, 0, it.Size, func(at uint64, e ondisk.FileExtent) error {
		if !filedata.IsHole(e) {
			e.Inline = bytes.Clone(e.Inline)
			list = append(list, extent{at, e})
		}
		return nil
	}))
	for _, x := range list {
		for off, to := x.at, min(x.at+fstree.Span(x.e), it.Size); off < to; {
			p := r.b.Add(r.tree, f.ino, it, x.at, x.e, off, to)
			if p == nil {
				r.load()
				continue
			}
			r.open = append(r.open, batchPiece{f, p})
			off += p.N
		}
	}
}

// load reads what was asked for and compares it.
func (r *batchReader) load() {
	if len(r.open) == 0 {
		r.w.t.Fatal("an empty batch is full")
	}
	r.loads++
	r.b.Load(r.w.ctx, r.csums)
	for _, x := range r.open {
		want := x.f.data[x.p.Off : x.p.Off+x.p.N]
		if x.p.Err != nil || !bytes.Equal(x.p.Data, want) {
			r.w.t.Fatalf("%s [%d,+%d): %d wrong: %v", x.f.name, x.p.Off, x.p.N, differ(x.p.Data, want), x.p.Err)
		}
	}
	r.open = r.open[:0]
	r.b.Reset()
}

// TestBatch reads files that were changed at random, plain and compressed, shared
// and with holes, through batches with little memory and with much.
func TestBatch(t *testing.T) {
	for seed, image := range []string{"empty", "node-4k", "sector-64k", "prof-raid10", "csum-sha256", "holes-items"} {
		t.Run(image, func(t *testing.T) {
			w := newWorld(t, image, testenv.Seed(t, int64(seed)))
			w.opt.Compression = uint8(seed % 4)
			for i := range 6 {
				w.create(fmt.Sprint("file-", i), uint64(i%2)*(ondisk.InodeNodatasum|ondisk.InodeNodatacow))
			}
			for range 60 {
				w.step()
			}
			for _, f := range w.files {
				w.must(f.w.Flush(w.ctx))
			}
			w.must(w.m.Commit(w.ctx))
			for _, memory := range []int{0, 16 << 20} {
				r := newBatchReader(w, memory)
				for _, f := range w.files {
					r.add(f)
				}
				if len(r.open) > 0 {
					r.load()
				}
				if s := r.b.Stats(); s.Alone > 0 {
					t.Errorf("pieces are read by themselves on a sound volume: %+v", s)
				}
			}
		})
	}
}

// TestBatchWork: many small files that lie side by side are few reads and few
// look-ups of checksums, whatever the order they are asked for in.
func TestBatchWork(t *testing.T) {
	w := newWorld(t, "empty", 1)
	const files, size = 300, 9000
	for i := range files {
		f := w.create(fmt.Sprint("file-", i), 0)
		f.resize(size)
		for k := range f.data {
			f.data[k] = byte(i + k)
		}
		w.must(f.w.WriteAt(w.ctx, f.data, 0))
		w.must(f.w.Flush(w.ctx))
	}
	w.must(w.m.Commit(w.ctx))
	r := newBatchReader(w, 8<<20)
	for i := range files {
		r.add(w.files[(i*7)%files])
	}
	r.load()
	s := r.b.Stats()
	if r.loads != 1 || s.Pieces != files || s.Alone != 0 {
		t.Errorf("%d loads: %+v", r.loads, s)
	}
	if s.Reads > 8 || s.Lookups != s.Reads || s.Bytes > files*3*4096*5/4 {
		t.Errorf("too much work: %+v", s)
	}
}

// TestBatchShared: a compressed extent that many pieces use is unpacked once.
func TestBatchShared(t *testing.T) {
	w := newWorld(t, "empty", 1)
	w.opt.Compression = ondisk.CompressZstd
	f := w.create("file", 0)
	f.resize(128 << 10)
	copy(f.data, bytes.Repeat([]byte("some text to be packed "), 6000))
	w.must(f.w.WriteAt(w.ctx, f.data, 0))
	w.must(f.w.Flush(w.ctx))
	w.opt.Compression = ondisk.CompressNone
	f.w = filedata.NewWriter(w.m, ondisk.FSTree, f.ino, w.opt)
	for off := 8192; off < len(f.data); off += 16384 {
		copy(f.data[off:], bytes.Repeat([]byte{1}, 4096))
		w.must(f.w.WriteAt(w.ctx, f.data[off:off+4096], uint64(off)))
	}
	w.must(f.w.Flush(w.ctx))
	r := newBatchReader(w, 0)
	r.add(f)
	if n := len(r.open); n < 8 {
		t.Fatalf("%d pieces", n)
	}
	r.load()
	if s := r.b.Stats(); s.Unpacks != 1 || s.Alone != 0 {
		t.Errorf("%+v", s)
	}
}

// TestBatchCancelled: nothing is read any more, and every piece says so.
func TestBatchCancelled(t *testing.T) {
	w := newWorld(t, "empty", 1)
	f := w.create("file", 0)
	f.resize(1 << 20)
	w.must(f.w.WriteAt(w.ctx, f.data, 0))
	w.must(f.w.Flush(w.ctx))
	r := newBatchReader(w, 0)
	r.add(f)
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	r.b.Load(ctx, r.csums)
	for _, x := range r.open {
		if !errors.Is(x.p.Err, context.Canceled) || x.p.Data != nil {
			t.Errorf("piece at %d: %v", x.p.Off, x.p.Err)
		}
	}
}
