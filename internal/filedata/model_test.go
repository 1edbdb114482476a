package filedata_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// world is a volume that a test writes to, and what must be in its files.
type world struct {
	t     testing.TB
	ctx   context.Context
	rng   *rand.Rand
	paths []string
	v     *volume.Volume
	m     *transaction.Manager
	files []*file
	opt   filedata.WriterOptions
	kinds []string // what happened, for the report of a failure
}

type file struct {
	name string
	ino  uint64
	sums bool // has checksums
	w    *filedata.Writer
	data []byte
}

func newWorld(t testing.TB, image string, seed int64) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), paths: testenv.Images(t, image), rng: seeded(seed)}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	w.v = openVolume(w.t, w.paths, volume.Options{})
	m, err := transaction.Open(w.ctx, w.v, transaction.Options{})
	w.must(err)
	w.m = m
	for _, f := range w.files {
		f.w = filedata.NewWriter(m, ondisk.FSTree, f.ino, w.opt)
	}
}

func (w *world) close() {
	w.t.Helper()
	for _, f := range w.files {
		w.must(f.w.Flush(w.ctx))
	}
	w.must(w.m.Close(w.ctx))
	w.must(w.v.Close())
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err, w.kinds)
	}
}

// edit runs fn on the tree of the top subvolume.
func (w *world) edit(fn func(t *fstree.Tree) error) {
	w.t.Helper()
	tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 16})
	w.must(err)
	t, err := fstree.Open(w.ctx, tx, ondisk.FSTree)
	if err == nil {
		err = fn(t)
	}
	w.must(errors.Join(err, tx.End(w.ctx)))
}

// create makes a file with inode flags.
func (w *world) create(name string, flags uint64) *file {
	w.t.Helper()
	f := &file{name: name, sums: flags&ondisk.InodeNodatasum == 0}
	w.edit(func(t *fstree.Tree) (err error) {
		f.ino, err = t.Create(w.ctx, fstree.RootIno, []byte(name), fstree.Attr{Mode: fstree.ModeFile | 0o644})
		if err == nil && flags != 0 {
			err = t.SetAttr(w.ctx, f.ino, fstree.SetAttr{Flags: &flags})
		}
		return err
	})
	f.w = filedata.NewWriter(w.m, ondisk.FSTree, f.ino, w.opt)
	w.files = append(w.files, f)
	return f
}

// read compares a file with the model.
func (w *world) read(f *file) {
	w.t.Helper()
	w.must(f.w.Flush(w.ctx))
	w.m.RLock()
	defer w.m.RUnlock()
	tree, err := w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	csums, err := w.m.Tree(w.ctx, ondisk.CsumTree)
	w.must(err)
	r, err := filedata.NewReader(w.ctx, w.v, tree, csums, f.ino)
	w.must(err)
	var b bytes.Buffer
	_, err = r.WriteTo(w.ctx, &b)
	w.must(err)
	if i := differ(b.Bytes(), f.data); i >= 0 {
		w.t.Fatalf("%s: %d bytes, want %d; the first different is at %d; %v", f.name, b.Len(), len(f.data), i, w.kinds)
	}
	if n := len(f.data); n > 0 { // a piece in the middle
		from := w.rng.IntN(n)
		p := make([]byte, w.rng.IntN(n-from)+1)
		got, err := r.ReadAt(w.ctx, p, int64(from))
		if err != nil && err != io.EOF || got != len(p) || differ(p, f.data[from:from+got]) >= 0 {
			w.t.Fatalf("%s: ReadAt(%d, %d) gave %d bytes, %v; %v", f.name, from, len(p), got, err, w.kinds)
		}
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}

// resize grows or cuts the model.
func (f *file) resize(n int) {
	if n > len(f.data) {
		f.data = append(f.data, make([]byte, n-len(f.data))...)
	}
	f.data = f.data[:n]
}

const maxFile = 600_000

// place gives an offset, often at or near the edge of a sector.
func (w *world) place(limit int) int {
	n := w.rng.IntN(limit + 1)
	switch w.rng.IntN(4) {
	case 0:
		n = n / 4096 * 4096
	case 1:
		n = min(n/4096*4096+w.rng.IntN(3), limit)
	case 2:
		n = min(n, w.rng.IntN(9000))
	}
	return n
}

// bytes gives something to write, half of the time easy to compress.
func (w *world) bytes(n int) []byte {
	b := make([]byte, n)
	pattern := 1 + w.rng.IntN(40)
	easy := w.rng.IntN(2) == 0
	for i := range b {
		if easy && i >= pattern {
			b[i] = b[i-pattern]
		} else {
			b[i] = byte(w.rng.Uint32())
		}
	}
	return b
}

func (w *world) note(format string, a ...any) { w.kinds = append(w.kinds, fmt.Sprintf(format, a...)) }

func (w *world) step() {
	w.t.Helper()
	f := w.files[w.rng.IntN(len(w.files))]
	switch k := w.rng.IntN(100); {
	case k < 45:
		w.write(f)
	case k < 60:
		n := w.place(maxFile)
		if w.rng.IntN(2) == 0 {
			n = w.place(len(f.data))
		}
		w.note("%s truncate %d", f.name, n)
		w.must(f.w.Truncate(w.ctx, uint64(n)))
		f.resize(n)
	case k < 72:
		w.punch(f)
	case k < 81:
		w.clone(f)
	case k < 84:
		w.allocate(f)
	case k < 92:
		w.read(f)
	case k < 97:
		w.note("%s flush", f.name)
		w.must(f.w.Flush(w.ctx))
	case k < 99:
		w.note("commit")
		w.must(w.m.Commit(w.ctx))
	default:
		w.note("reopen")
		w.close()
		w.open()
	}
}

func (w *world) write(f *file) {
	w.t.Helper()
	off := w.place(min(len(f.data)+20_000, maxFile))
	n := 1 + w.place(20_000)
	if w.rng.IntN(6) == 0 {
		n = 1 + w.rng.IntN(300_000)
	}
	b := w.bytes(n)
	w.note("%s write %d+%d", f.name, off, n)
	w.must(f.w.WriteAt(w.ctx, b, uint64(off)))
	if off+n > len(f.data) {
		f.resize(off + n)
	}
	copy(f.data[off:], b)
}

func (w *world) allocate(f *file) {
	w.t.Helper()
	off, n, keep := w.place(len(f.data)+5000), 1+w.place(60_000), w.rng.IntN(2) == 0
	w.note("%s allocate %d+%d %v", f.name, off, n, keep)
	w.must(f.w.Allocate(w.ctx, uint64(off), uint64(n), keep))
	if !keep {
		f.resize(max(len(f.data), off+n))
	}
}

func (w *world) punch(f *file) {
	w.t.Helper()
	off, n := w.place(len(f.data)+5000), 1+w.place(60_000)
	w.note("%s punch %d+%d", f.name, off, n)
	w.must(f.w.Punch(w.ctx, uint64(off), uint64(n)))
	if off < len(f.data) {
		clear(f.data[off:min(off+n, len(f.data))])
	}
}

func (w *world) clone(f *file) {
	w.t.Helper()
	ss := int(w.v.Sectorsize())
	src := w.files[w.rng.IntN(len(w.files))]
	from := w.rng.IntN(len(src.data)+1) / ss * ss
	off := w.rng.IntN(len(f.data)+40_000) / ss * ss
	n := (1 + w.rng.IntN(30)) * ss
	if from+n > len(src.data) || w.rng.IntN(4) == 0 {
		n = len(src.data) - from
	}
	bad := src.sums != f.sums || n%ss != 0 && off+n < len(f.data) ||
		src == f && off < from+n && from < off+n || n == 0
	w.note("%s clone %d from %s %d+%d", f.name, off, src.name, from, n)
	w.must(src.w.Flush(w.ctx))
	err := f.w.Clone(w.ctx, uint64(off), ondisk.FSTree, src.ino, uint64(from), uint64(n))
	if bad && n > 0 {
		if err == nil {
			w.t.Fatal("a clone that must be refused was made", w.kinds)
		}
		return
	}
	w.must(err)
	if n == 0 {
		return
	}
	b := bytes.Clone(src.data[from : from+n])
	if off+n > len(f.data) {
		f.resize(off + n)
	}
	copy(f.data[off:], b)
}

// verify closes the volume and lets btrfs check and the kernel judge.
func (w *world) verify() {
	w.t.Helper()
	w.close()
	testenv.Check(w.t, w.paths...)
	w.mounted()
}

func (w *world) mounted() {
	w.t.Helper()
	if os.Getuid() != 0 || w.v.Sectorsize() != 4096 {
		return
	}
	testenv.NeedKernel(w.t)
	dir := testenv.Mount(w.t, w.paths, "ro")
	defer testenv.Umount(w.t, dir)
	for _, f := range w.files {
		b, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil {
			w.t.Fatal(err)
		}
		if i := differ(b, f.data); i >= 0 {
			w.t.Fatalf("the kernel reads %s: %d bytes, want %d; the first different is at %d", f.name, len(b), len(f.data), i)
		}
	}
}

// TestModel does random things to files on several kinds of volumes, and compares
// with byte slices.
func TestModel(t *testing.T) {
	for i, image := range []string{"empty", "empty-old", "node-4k", "holes-items", "legacy", "mixed", "csum-sha256", "comp-zstd", "prof-raid10", "sector-16k", "sector-64k"} {
		t.Run(image, func(t *testing.T) {
			seed := testenv.Seed(t, int64(i)+1)
			w := newWorld(t, image, seed)
			w.opt.Compression = uint8(i % 4)
			for n := range 6 {
				flags := uint64(0)
				if n == 4 {
					flags = ondisk.InodeNodatasum | ondisk.InodeNodatacow
				}
				w.create(fmt.Sprintf("model-%d", n), flags)
			}
			for range testenv.Rounds(200) {
				w.step()
			}
			for _, f := range w.files {
				w.read(f)
			}
			w.verify()
		})
	}
}

func seeded(seed int64) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 7)) }
