package filedata_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// extents counts the extents of a file.
func (w *world) extents(f *file) (n int, list []ondisk.FileExtent) {
	w.t.Helper()
	w.must(f.w.Flush(w.ctx))
	t, err := w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	w.must(fstree.Extents(w.ctx, t, f.ino, 0, ^uint64(0), func(_ uint64, e ondisk.FileExtent) error {
		n++
		e.Inline = bytes.Clone(e.Inline)
		list = append(list, e)
		return nil
	}))
	return n, list
}

func (w *world) inode(ino uint64) ondisk.InodeItem {
	w.t.Helper()
	t, err := w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	it, err := fstree.ReadInode(w.ctx, t, ino)
	w.must(err)
	return it
}

// A file written in small steps has few, large extents, and the checksums fill
// their items.
func TestSequentialWritesMakeLargeExtents(t *testing.T) {
	w := newWorld(t, "empty", 1)
	f := w.create("file", 0)
	f.data = w.bytes(20 << 20)
	for off := 0; off < len(f.data); off += 8000 {
		end := min(off+8000, len(f.data))
		w.must(f.w.WriteAt(w.ctx, f.data[off:end], uint64(off)))
	}
	w.read(f)
	if n, _ := w.extents(f); n > 8 {
		t.Errorf("%d extents of 20 MiB", n)
	}
	csums, err := w.m.Tree(w.ctx, ondisk.CsumTree)
	w.must(err)
	items := 0
	c, err := csums.Seek(w.ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(w.ctx) {
		items++
	}
	w.must(err)
	if items > 6 {
		t.Errorf("%d checksum items for 20 MiB", items)
	}
	w.verify()
}

// What is stored in the tree, and when it leaves it.
func TestInline(t *testing.T) {
	w := newWorld(t, "empty", 1)
	for _, size := range []int{1, 100, 2048, 2049, 4095, 4096} {
		f := w.create(fmt.Sprint("plain-", size), 0)
		f.data = w.bytes(size)
		w.must(f.w.WriteAt(w.ctx, f.data, 0))
		_, list := w.extents(f)
		if inline := list[0].Type == ondisk.ExtentInline; len(list) != 1 || inline != (size <= 2048) {
			t.Errorf("%d bytes: %+v", size, list)
		}
		if size <= 2048 && w.inode(f.ino).Nbytes != uint64(size) {
			t.Errorf("%d bytes in the tree count as %d", size, w.inode(f.ino).Nbytes)
		}
	}
	f := w.create("grows", 0)
	w.must(f.w.WriteAt(w.ctx, []byte("hello"), 0))
	w.must(f.w.Flush(w.ctx))
	w.must(f.w.WriteAt(w.ctx, []byte("world"), 10_000))
	f.data = append([]byte("hello"), make([]byte, 9995)...)
	f.data = append(f.data, "world"...)
	w.read(f)
	if _, list := w.extents(f); list[0].Type != ondisk.ExtentReg {
		t.Errorf("a file that grew is %+v", list)
	}
	w.must(f.w.Truncate(w.ctx, 3))
	f.data = f.data[:3]
	w.read(f)
	w.opt.Compression = ondisk.CompressZlib
	g := w.create("packed", 0)
	g.data = bytes.Repeat([]byte("abc\n"), 1024)
	w.must(g.w.WriteAt(w.ctx, g.data, 0))
	if _, list := w.extents(g); len(list) != 1 || list[0].Type != ondisk.ExtentInline || list[0].Compression != ondisk.CompressZlib {
		t.Errorf("a sector that packs well is %+v", list)
	}
	w.verify()
}

// Properties and flags of files come before the option of the writer.
func TestCompressionIsChosen(t *testing.T) {
	w := newWorld(t, "empty", 1)
	w.opt.Compression = ondisk.CompressZstd
	prop := func(value string) func(ino uint64) {
		return func(ino uint64) {
			w.edit(func(t *fstree.Tree) error { return t.SetXattr(w.ctx, ino, "btrfs.compression", []byte(value)) })
		}
	}
	flag := func(flags uint64) func(ino uint64) {
		return func(ino uint64) {
			w.edit(func(t *fstree.Tree) error { return t.SetAttr(w.ctx, ino, fstree.SetAttr{Flags: &flags}) })
		}
	}
	nothing := func(uint64) {}
	for _, c := range []struct {
		name string
		set  func(ino uint64)
		data string
		want uint8
	}{
		{"option", nothing, "easy", ondisk.CompressZstd},
		{"property-lzo", prop("lzo"), "easy", ondisk.CompressLZO},
		{"property-level", prop("zstd:15"), "easy", ondisk.CompressZstd},
		{"property-no", prop("no"), "easy", ondisk.CompressNone},
		{"flag", flag(ondisk.InodeCompress), "easy", ondisk.CompressZlib},
		{"flag-no", flag(ondisk.InodeNocompress), "easy", ondisk.CompressNone},
		{"nodatasum", flag(ondisk.InodeNodatasum), "easy", ondisk.CompressNone},
		{"random", nothing, "", ondisk.CompressNone},
	} {
		f := w.create(c.name, 0)
		c.set(f.ino)
		if f.data = bytes.Repeat([]byte(c.data), 100_000); c.data == "" {
			for f.data = nil; len(f.data) < 400_000; {
				f.data = fmt.Append(f.data, w.rng.Uint64())
			}
			sum := sha256.Sum256(f.data)
			for i := range f.data {
				f.data[i] = byte(w.rng.Uint32()) ^ sum[i%32]
			}
		}
		w.must(f.w.WriteAt(w.ctx, f.data, 0))
		_, list := w.extents(f)
		for _, e := range list {
			if e.Compression != c.want {
				t.Errorf("%s: %+v", c.name, e)
			}
		}
		if c.want == ondisk.CompressNone && len(list) != 1 || c.want != ondisk.CompressNone && len(list) != 4 {
			t.Errorf("%s: %d extents", c.name, len(list))
		}
		w.read(f)
	}
	w.verify()
}

// A full volume gives an error and keeps what it had; after a removal there is
// room again.
func TestNoSpace(t *testing.T) {
	sizes := map[string]int64{"mixed": 32 << 20}
	if testenv.Rounds(0) > 0 {
		sizes["separate"] = 128 << 20 // takes a while to fill
	}
	for kind, size := range sizes {
		t.Run(kind, func(t *testing.T) {
			w := &world{t: t, ctx: context.Background(), rng: seeded(1), paths: []string{filepath.Join(testenv.Scratch(t), "full.img")}}
			args := []string{"-M"}
			if kind == "separate" {
				args = nil
			}
			testenv.MakeVolume(t, w.paths[0], size, args...)
			w.open()
			keep := w.create("keep", 0)
			keep.data = w.bytes(50_000)
			w.must(keep.w.WriteAt(w.ctx, keep.data, 0))
			w.read(keep)
			big := w.create("big", 0)
			var err error
			b := w.bytes(1 << 20)
			for off := 0; err == nil && off < 1<<30; off += len(b) {
				b[w.rng.IntN(len(b))]++
				if err = big.w.WriteAt(w.ctx, b, uint64(off)); err == nil {
					err = big.w.Flush(w.ctx)
				}
				if err == nil {
					big.data = append(big.data, b...)
				}
			}
			if !errors.Is(err, transaction.ErrNoSpace) {
				t.Fatalf("%v after %d bytes, want ErrNoSpace", err, len(big.data))
			}
			big.w.Discard()
			w.read(big)
			w.close()
			testenv.Check(t, w.paths...)
			w.open()
			w.read(keep)
			w.edit(func(t *fstree.Tree) error { return t.Unlink(w.ctx, fstree.RootIno, []byte("big")) })
			w.must(filedata.CleanOrphans(w.ctx, w.m, ondisk.FSTree))
			w.files = w.files[:1]
			again := w.create("again", 0)
			again.data = w.bytes(len(big.data) / 2)
			w.must(again.w.WriteAt(w.ctx, again.data, 0))
			w.read(again)
			w.verify()
		})
	}
}

// A file of many extents is dropped in steps: by a smaller size, and as an
// orphan.
func TestManyExtents(t *testing.T) {
	w := newWorld(t, "node-4k", 1)
	const n = 3000
	for _, name := range []string{"cut", "gone"} {
		f := w.create(name, 0)
		for i := range n {
			b := []byte(fmt.Sprintf("%04d", i))
			w.must(f.w.WriteAt(w.ctx, b, uint64(i)*8192))
			f.resize(i*8192 + 4)
			copy(f.data[i*8192:], b)
		}
		if got, _ := w.extents(f); got != n {
			t.Fatalf("%d extents, want %d", got, n)
		}
	}
	cut, gone := w.files[0], w.files[1]
	w.must(cut.w.Truncate(w.ctx, 10*8192+2))
	cut.resize(10*8192 + 2)
	w.read(cut)
	w.edit(func(t *fstree.Tree) error { return t.Unlink(w.ctx, fstree.RootIno, []byte("gone")) })
	if it := w.inode(gone.ino); it.Nlink != 0 {
		t.Fatal("the large file still has a name")
	}
	w.files = w.files[:1]
	w.close()
	testenv.Check(t, w.paths...)
	w.open()
	w.must(filedata.CleanOrphans(w.ctx, w.m, ondisk.FSTree))
	tree, err := w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	if list, err := fstree.Orphans(w.ctx, tree); err != nil || len(list) > 0 {
		t.Fatalf("orphans %v, %v", list, err)
	}
	w.verify()
}

// A time that is set after bytes were written is not changed by writing them
// out.
func TestTimesAreOfTheWrite(t *testing.T) {
	w := newWorld(t, "empty", 1)
	f := w.create("file", 0)
	before := w.inode(f.ino).Mtime
	w.must(f.w.WriteAt(w.ctx, []byte("x"), 0))
	if got := w.inode(f.ino).Mtime; got == before {
		t.Error("the write has no time")
	}
	want := ondisk.Timespec{Sec: 1234567890, Nsec: 5}
	w.edit(func(t *fstree.Tree) error { return t.SetAttr(w.ctx, f.ino, fstree.SetAttr{Mtime: &want}) })
	w.must(f.w.Flush(w.ctx))
	if it := w.inode(f.ino); it.Mtime != want || it.Size != 1 {
		t.Errorf("after the flush the time is %v, the size %d", it.Mtime, it.Size)
	}
	w.close()
}

// The kernel goes on where we stopped, and we go on after the kernel.
func TestKernelGoesOn(t *testing.T) {
	testenv.NeedKernel(t)
	w := newWorld(t, "empty", 1)
	w.opt.Compression = ondisk.CompressLZO
	for i := range 20 {
		f := w.create(fmt.Sprint("file-", i), 0)
		for range 4 {
			w.write(f)
		}
	}
	for round := range 2 {
		w.close()
		dir := testenv.Mount(t, w.paths, "rw")
		for i, f := range w.files {
			w.kernelChanges(filepath.Join(dir, f.name), f, i+round)
		}
		testenv.Umount(t, dir)
		testenv.Check(t, w.paths...)
		w.open()
		for _, f := range w.files {
			w.read(f)
			w.write(f)
			w.punch(f)
			w.read(f)
		}
	}
	w.verify()
}

func (w *world) kernelChanges(path string, f *file, i int) {
	w.t.Helper()
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	w.must(err)
	defer h.Close()
	switch i % 4 {
	case 0:
		b, off := w.bytes(30_000), len(f.data)/2
		_, err = h.WriteAt(b, int64(off))
		f.resize(max(len(f.data), off+len(b)))
		copy(f.data[off:], b)
	case 1:
		err = h.Truncate(int64(len(f.data) / 3))
		f.resize(len(f.data) / 3)
	case 2:
		err = h.Truncate(int64(len(f.data) + 12345))
		f.resize(len(f.data) + 12345)
	}
	w.must(err)
}

// Where a tree cannot be read there is an error, and only there.
func TestLostMetadata(t *testing.T) {
	v := openVolume(t, testenv.ReadImages(t, "bad-meta-both"), volume.Options{ReadOnly: true})
	defer v.Close()
	w := &corpusWalk{t: t, v: v, m: testenv.ReadManifest(t, "bad-meta-both", "")}
	good, bad := 0, 0
	for _, e := range w.m.Entries {
		if e.Error != nil {
			continue
		}
		if err := w.entry(e, unbase(e.Path, e.PathB64)); err != nil {
			t.Errorf("%s, which the kernel can read: %v", e.Path, err)
		}
		good++
	}
	for _, e := range w.m.Entries {
		if e.Error == nil {
			continue
		}
		if err := w.entry(e, unbase(e.Path, e.PathB64)); err == nil {
			t.Errorf("%s: no error", e.Path)
		}
		bad++
	}
	if good == 0 || bad == 0 {
		t.Errorf("%d good paths, %d bad", good, bad)
	}
}

// The error of bad data tells where they are.
func TestDamagedDataAreNamed(t *testing.T) {
	v := openVolume(t, testenv.ReadImages(t, "bad-data-single"), volume.Options{ReadOnly: true})
	defer v.Close()
	w := &corpusWalk{t: t, v: v, m: testenv.ReadManifest(t, "bad-data-single", "")}
	for _, e := range w.m.Entries {
		if e.ReadError == nil {
			continue
		}
		r, err := filedata.NewReader(t.Context(), v, w.tree(ondisk.TreeID(e.Subvol)), w.tree(ondisk.CsumTree), e.Ino)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.WriteTo(t.Context(), io.Discard)
		var re *filedata.ReadError
		if !errors.As(err, &re) || !errors.Is(err, filedata.ErrChecksum) || !strings.Contains(err.Error(), fmt.Sprint("inode ", e.Ino)) {
			t.Errorf("%s: %v", e.Path, err)
		}
		b := make([]byte, 4096) // the sectors around are there
		if _, err := r.ReadAt(t.Context(), b, 0); err != nil {
			t.Errorf("%s: the first sector: %v, %s", e.Path, err, hex.EncodeToString(b[:4]))
		}
	}
}
