package filedata_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

func benchWorld(b *testing.B, compression uint8) *world {
	b.Helper()
	image := filepath.Join(testenv.Scratch(b), "bench.img")
	testenv.MakeVolume(b, image, 2<<30)
	w := &world{t: b, ctx: context.Background(), paths: []string{image}, rng: seeded(1)}
	w.opt = filedata.WriterOptions{Compression: compression}
	w.open()
	b.Cleanup(w.close)
	return w
}

var compressions = map[string]uint8{"plain": ondisk.CompressNone, "zstd": ondisk.CompressZstd}

// BenchmarkWrite writes files of 64 MiB in steps of 128 KiB.
func BenchmarkWrite(b *testing.B) {
	for name, c := range compressions {
		b.Run(name, func(b *testing.B) {
			w := benchWorld(b, c)
			data := w.bytes(64 << 20)
			b.SetBytes(int64(len(data)))
			i := 0
			once := func() {
				f := w.create(fmt.Sprint("f", i), 0)
				i++
				for off := 0; off < len(data); off += 128 << 10 {
					w.must(f.w.WriteAt(w.ctx, data[off:off+128<<10], uint64(off)))
				}
				w.must(f.w.Flush(w.ctx))
				w.must(w.m.Commit(w.ctx))
				w.must(f.w.Truncate(w.ctx, 0))
				w.must(w.m.Commit(w.ctx))
			}
			once() // makes the chunks, and the pages of the image
			once()
			for b.Loop() {
				once()
			}
		})
	}
}

// BenchmarkRead reads a file of 256 MiB, whole and in steps.
func BenchmarkRead(b *testing.B) {
	for name, c := range compressions {
		w := benchWorld(b, c)
		f := w.create("file", 0)
		w.must(f.w.WriteAt(w.ctx, w.bytes(256<<20), 0))
		w.must(f.w.Flush(w.ctx))
		t, err := w.m.Tree(w.ctx, ondisk.FSTree)
		w.must(err)
		csums, err := w.m.Tree(w.ctx, ondisk.CsumTree)
		w.must(err)
		r, err := filedata.NewReader(w.ctx, w.v, t, csums, f.ino)
		w.must(err)
		b.Run(name+"/whole", func(b *testing.B) {
			b.SetBytes(256 << 20)
			for b.Loop() {
				_, err := r.WriteTo(w.ctx, io.Discard)
				w.must(err)
			}
		})
		b.Run(name+"/steps", func(b *testing.B) {
			b.SetBytes(256 << 20)
			p := make([]byte, 128<<10)
			for b.Loop() {
				for off := int64(0); off < 256<<20; off += int64(len(p)) {
					_, err := r.ReadAt(w.ctx, p, off)
					w.must(err)
				}
			}
		})
	}
}

// BenchmarkCreate makes small files in one directory.
func BenchmarkCreate(b *testing.B) {
	w := benchWorld(b, 0)
	i := 0
	for b.Loop() {
		i++
		w.edit(func(t *fstree.Tree) error {
			_, err := t.Create(w.ctx, fstree.RootIno, fmt.Appendf(nil, "file-%d", i), fstree.Attr{Mode: fstree.ModeFile | 0o644})
			return err
		})
	}
}

// BenchmarkOverwrite writes 4096 sectors at random places of a file of 64 MiB.
func BenchmarkOverwrite(b *testing.B) {
	w := benchWorld(b, 0)
	f := w.create("file", 0)
	data := w.bytes(64 << 20)
	w.must(f.w.WriteAt(w.ctx, data, 0))
	w.must(f.w.Flush(w.ctx))
	const n = 4096
	b.SetBytes(n * 4096)
	for b.Loop() {
		for range n {
			w.must(f.w.WriteAt(w.ctx, data[:4096], uint64(w.rng.IntN(len(data)/4096))*4096))
		}
		w.must(f.w.Flush(w.ctx))
		w.must(w.m.Commit(w.ctx))
	}
}
