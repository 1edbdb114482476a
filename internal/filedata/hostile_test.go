package filedata_test

import (
	"bytes"
	"context"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// readEverything reads all that a subvolume shows, errors or not: it must come
// to an end, without a panic.
func readEverything(ctx context.Context, v *volume.Volume, id ondisk.TreeID) (read int) {
	t, err := v.Tree(ctx, id)
	if err != nil {
		return 0
	}
	csums, err := v.Tree(ctx, ondisk.CsumTree)
	if err != nil {
		return 0
	}
	c, err := t.Seek(ctx, ondisk.Key{})
	for last := uint64(0); err == nil && c.Valid(); err = c.Next(ctx) {
		if ino := c.Key().Objectid; ino != last {
			last = ino
			read += readInode(ctx, v, t, csums, ino)
		}
	}
	return read
}

func readInode(ctx context.Context, v *volume.Volume, t, csums *btree.Tree, ino uint64) int {
	_, _ = fstree.Links(ctx, t, ino)
	_, _ = fstree.Readlink(ctx, t, ino)
	_ = fstree.ListXattr(ctx, t, ino, func(name string, _ []byte) error {
		_, err := fstree.Xattr(ctx, t, ino, name)
		return err
	})
	_ = fstree.ReadDir(ctx, t, ino, 0, func(e fstree.Entry) error {
		_, err := fstree.Lookup(ctx, t, ino, e.Name)
		return err
	})
	r, err := filedata.NewReader(ctx, v, t, csums, ino)
	if err != nil {
		return 0
	}
	n, ranges := 0, 0
	b := make([]byte, 1<<20)
	_ = r.DataRanges(ctx, 0, ^uint64(0), func(start, end uint64) error {
		got, _ := r.ReadAt(ctx, b[:min(uint64(len(b)), end-start)], int64(start))
		n += got
		if ranges++; ranges > 50 {
			return fs.SkipAll
		}
		return nil
	})
	for _, off := range []int64{0, 1, 4095, 1 << 40} {
		got, _ := r.ReadAt(ctx, b[:10_000], off)
		n += got
	}
	_, _ = r.SeekHole(ctx, 0)
	return n
}

// TestHostileLeaves changes bytes of items in leaves of file trees, with right
// checksums, as somebody with bad intentions would.
func TestHostileLeaves(t *testing.T) {
	for i, image := range []string{"extents", "comp-mixed", "attrs"} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			seed := testenv.Seed(t, int64(i)+1)
			rng := rand.New(rand.NewPCG(uint64(seed), 5))
			paths := testenv.Images(t, image)
			v := openVolume(t, paths, volume.Options{})
			defer v.Close()
			leaves := leavesOf(t, v)
			for range testenv.Rounds(25) {
				good := leaves[rng.IntN(len(leaves))]
				bad := ondisk.Block(bytes.Clone(good))
				for range 1 + rng.IntN(3) {
					spoil(rng, bad)
				}
				checksum.Sum(v.CsumType(), bad[:32], bad[32:])
				write(t, v, bad)
				again, err := tryOpen(paths)
				if err == nil {
					readEverything(t.Context(), again, ondisk.FSTree)
					again.Close()
				}
				write(t, v, good)
			}
		})
	}
}

func leavesOf(t *testing.T, v *volume.Volume) (out []ondisk.Block) {
	t.Helper()
	tree, err := v.Tree(t.Context(), ondisk.FSTree)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tree.Seek(t.Context(), ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.NextLeaf(t.Context()) {
		out = append(out, bytes.Clone(c.Leaf().Data()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// spoil changes some bytes of one item's body, or of its key.
func spoil(rng *rand.Rand, b ondisk.Block) {
	i := rng.IntN(b.NrItems())
	body := b.Item(i)
	if len(body) == 0 {
		return
	}
	at := rng.IntN(min(len(body), 60))
	switch rng.IntN(4) {
	case 0:
		body[at] = byte(rng.Uint32())
	case 1:
		for j := at; j < min(at+8, len(body)); j++ {
			body[j] = 0xff
		}
	case 2:
		body[at] ^= 1 << rng.IntN(8)
	case 3:
		k := b.Key(i)
		k.Offset += 4096 * uint64(rng.IntN(5))
		b.SetItemHead(i, k, uint32(b.ItemOffset(i)), uint32(len(body)))
	}
}

func write(t *testing.T, v *volume.Volume, b ondisk.Block) {
	t.Helper()
	if err := v.IO().Write(t.Context(), b.Bytenr(), b); err != nil {
		t.Fatal(err)
	}
}

func tryOpen(paths []string) (*volume.Volume, error) {
	var devs []device.Device
	for _, p := range paths {
		data, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		fi, err := data.Stat()
		if err != nil {
			return nil, err
		}
		devs = append(devs, shared{data, fi.Size()})
	}
	return volume.Open(context.Background(), devs, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
}

// shared is a device that is read while another has the file open.
type shared struct {
	*os.File
	size int64
}

func (s shared) Flush() error               { return nil }
func (s shared) Discard(off, n int64) error { return nil }
func (s shared) Size() int64                { return s.size }

// TestDamagedVolumes reads everything of the damaged volumes that come with
// btrfs-progs.
func TestDamagedVolumes(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob(filepath.Join(testenv.Shared(t), "corpus", "corrupt", "*.img.zst"))
	if len(files) == 0 {
		t.Fatal("no damaged volumes in the shared corpus")
	}
	dir := testenv.Scratch(t)
	opened := 0
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".zst")
		image := filepath.Join(dir, name)
		if err := testenv.Unpack(f, image, 3<<40); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if v, err := tryOpen([]string{image}); err == nil {
			opened++
			ids := []ondisk.TreeID{ondisk.FSTree}
			_ = roots.All(ctx, v.RootTree(), func(k ondisk.Key, _ ondisk.RootItem) error {
				ids = append(ids, ondisk.TreeID(k.Objectid))
				return nil
			})
			for _, id := range ids {
				readEverything(ctx, v, id)
			}
			v.Close()
		}
		if ctx.Err() != nil {
			t.Errorf("%s: reading did not end", name)
		}
		cancel()
		os.Remove(image)
	}
	if opened < 10 {
		t.Errorf("only %d of %d volumes could be opened", opened, len(files))
	}
}
