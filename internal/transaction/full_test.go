package transaction_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// fill makes files until there is no room for another. A file has one extent of data, or a big inline one.
func (w *world) fill(sectors int) (files int) {
	w.t.Helper()
	for ; ; files++ {
		size := uint64(sectors) * uint64(w.v.Sectorsize())
		tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 9, Data: size})
		if err != nil {
			if !isNoSpace(err) {
				w.t.Fatal(err)
			}
			return files
		}
		w.must(tx.End(w.ctx))
		if sectors > 0 {
			w.addFile(ondisk.FSTree, 1, sectors)
		} else {
			w.addFile(ondisk.FSTree, 0, 0)
			w.addInline(ondisk.FSTree, 2000)
		}
	}
}

// addInline gives the newest file n bytes of inline data.
func (w *world) addInline(sub ondisk.TreeID, n int) {
	ino := w.last
	w.edit(transaction.Need{}, func(tx *transaction.Tx) error {
		t, err := tx.Tree(w.ctx, sub)
		if err != nil {
			return err
		}
		b, err := t.Edit(w.ctx, inodeKey(ino))
		if err != nil {
			return err
		}
		i, err := ondisk.DecodeInodeItem(b)
		if err != nil {
			return err
		}
		i.Size, i.Nbytes = uint64(n), uint64(n)
		i.Append(b[:0])
		e := ondisk.FileExtent{Generation: tx.Generation(), RAMBytes: uint64(n), Inline: make([]byte, n)}
		return t.Insert(w.ctx, ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData}, e.Append(nil))
	})
}

// TestFull fills volumes to the brim, with data and with metadata: ErrNoSpace comes before anything is changed, files
// can still be deleted, and their space can be used again.
func TestFull(t *testing.T) {
	seed := testenv.Seed(t, 3)
	for _, c := range []struct {
		image   string
		sectors int
	}{{"empty", 512}, {"mixed", 64}, {"node-4k", 1024}, {"node-4k", 0}, {"node-64k", 256}, {"no-skinny", 256}} {
		t.Run(c.image, func(t *testing.T) {
			w := newWorld(t, c.image, seed)
			first := w.fill(c.sectors)
			u := w.m.Usage()
			t.Logf("%d files, %d chunks, %+v", first, len(w.v.Chunks().All()), u)
			w.close()
			testenv.Check(t, w.paths...)
			w.open()
			for ino := range w.files[ondisk.FSTree] {
				w.removeFile(ondisk.FSTree, ino)
			}
			w.must(w.m.Commit(w.ctx))
			if c.sectors > 0 { // to fill it with metadata again takes long
				if again := w.fill(c.sectors); again < first*9/10 {
					t.Errorf("%d files the first time, %d after deleting all", first, again)
				}
			}
			w.close()
			testenv.Check(t, w.paths...)
		})
	}
}

// TestEmptyChunks fills a volume with data, deletes all, and fills it with metadata: chunks of data that hold nothing
// must make room.
func TestEmptyChunks(t *testing.T) {
	w := newWorld(t, "empty", testenv.Seed(t, 4))
	w.fill(512)
	full := w.m.Usage()
	for ino := range w.files[ondisk.FSTree] {
		w.removeFile(ondisk.FSTree, ino)
	}
	files := w.fill(0)
	u := w.m.Usage()
	t.Logf("%d small files; with data %+v; with metadata %+v", files, full, u)
	if u.Metadata.Total <= full.Metadata.Total || u.Data.Total >= full.Data.Total {
		t.Errorf("no chunk of data made room for metadata")
	}
	w.close()
	testenv.Check(t, w.paths...)
	w.open()
	w.removeFile(ondisk.FSTree, w.pick(ondisk.FSTree))
	w.close()
	testenv.Check(t, w.paths...)
}

// TestKernel lets Linux mount what was written, change it, and lets this package go on from there.
func TestKernel(t *testing.T) {
	testenv.NeedKernel(t)
	seed := testenv.Seed(t, 2)
	for _, name := range []string{"default", "node-4k", "mixed", "no-skinny", "prof-raid1"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, name, seed)
			for range 150 {
				w.step()
			}
			w.close()
			dir := testenv.Mount(t, w.paths)
			if err := os.WriteFile(filepath.Join(dir, "by-linux"), make([]byte, 300000), 0o600); err != nil {
				t.Fatal(err)
			}
			testenv.Run(t, "btrfs", "subvolume", "snapshot", dir, filepath.Join(dir, "linux-snap"))
			for ino, name := range w.files[ondisk.FSTree] {
				if ino%3 == 0 {
					if err := os.Remove(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
					delete(w.files[ondisk.FSTree], ino)
				}
			}
			testenv.Umount(t, dir)
			testenv.Check(t, w.paths...)
			w.open()
			w.nextID += 10
			for range 100 {
				w.step()
			}
			w.close()
			testenv.Check(t, w.paths...)
		})
	}
}
