package filedata_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Several goroutines write files and read them back while others do the same.
func TestConcurrentFiles(t *testing.T) {
	w := newWorld(t, "empty", 1)
	w.opt.Compression = ondisk.CompressLZO
	for i := range 6 {
		w.create(fmt.Sprint("file-", i), 0)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(w.files))
	for i, f := range w.files {
		wg.Go(func() { errs[i] = w.busy(f, rand.New(rand.NewPCG(uint64(i), 9))) })
	}
	for range 3 {
		w.must(w.m.Commit(w.ctx))
	}
	wg.Wait()
	for _, err := range errs {
		w.must(err)
	}
	for _, f := range w.files {
		w.read(f)
	}
	w.verify()
}

func (w *world) busy(f *file, rng *rand.Rand) error {
	for step := range 40 {
		off, b := rng.IntN(len(f.data)+10_000), make([]byte, 1+rng.IntN(60_000))
		for i := range b {
			b[i] = byte(i*step) ^ byte(i>>8)
		}
		if err := f.w.WriteAt(w.ctx, b, uint64(off)); err != nil {
			return err
		}
		f.resize(max(len(f.data), off+len(b)))
		copy(f.data[off:], b)
		if err := f.w.Flush(w.ctx); err != nil {
			return err
		}
		if err := w.readBack(f, off, b); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) readBack(f *file, off int, want []byte) error {
	w.m.RLock()
	defer w.m.RUnlock()
	tree, err := w.m.Tree(w.ctx, ondisk.FSTree)
	if err != nil {
		return err
	}
	csums, err := w.m.Tree(w.ctx, ondisk.CsumTree)
	if err != nil {
		return err
	}
	r, err := filedata.NewReader(w.ctx, w.v, tree, csums, f.ino)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := r.ReadAt(w.ctx, got, int64(off)); err != nil {
		return err
	}
	if i := differ(got, want); i >= 0 {
		return fmt.Errorf("%s: byte %d of what was just written differs", f.name, off+i)
	}
	return nil
}
