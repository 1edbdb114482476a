package transaction_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// world is a volume with files that the test made itself, item by item: no package above transaction is needed.
type world struct {
	t      testing.TB
	ctx    context.Context
	paths  []string
	v      *volume.Volume
	m      *transaction.Manager
	rng    *rand.Rand
	subs   []ondisk.TreeID
	files  map[ondisk.TreeID]map[uint64]string // of each subvolume, made here: inode to name
	opt    transaction.Options
	nextID ondisk.TreeID
	names  int
	last   uint64 // inode of the newest file
}

func newWorld(t testing.TB, image string, seed int64) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), paths: testenv.Images(t, image), rng: rand.New(rand.NewPCG(uint64(seed), 1)),
		subs: []ondisk.TreeID{ondisk.FSTree}, files: map[ondisk.TreeID]map[uint64]string{ondisk.FSTree: {}}}
	w.open()
	id, err := roots.HighestID(w.ctx, w.v.RootTree())
	w.must(err)
	w.nextID = max(id, 255) + 1
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open() {
	w.t.Helper()
	var devs []device.Device
	for _, p := range w.paths {
		d, err := device.OpenFile(p, device.Options{})
		w.must(err)
		devs = append(devs, d)
	}
	var err error
	w.v, err = volume.Open(w.ctx, devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
	w.must(err)
	w.m, err = transaction.Open(w.ctx, w.v, w.opt)
	w.must(err)
}

func (w *world) close() {
	w.t.Helper()
	w.must(w.m.Close(w.ctx))
	w.must(w.v.Close())
}

func (w *world) begin(n transaction.Need) *transaction.Tx {
	w.t.Helper()
	tx, err := w.m.Begin(w.ctx, n)
	w.must(err)
	return tx
}

// edit gives fn the transaction, and ends it.
func (w *world) edit(n transaction.Need, fn func(tx *transaction.Tx) error) {
	w.t.Helper()
	tx := w.begin(n)
	if err := fn(tx); err != nil {
		w.t.Fatal(tx.Fail(err))
	}
	w.must(tx.End(w.ctx))
}

const rootDir = 256

func inodeKey(ino uint64) ondisk.Key { return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeItem} }

// grow changes the size of the subvolume's root directory by one name.
func (w *world) grow(t *btree.Tree, tx *transaction.Tx, name string, sign int) error {
	b, err := t.Edit(w.ctx, inodeKey(rootDir))
	if err != nil {
		return err
	}
	i, err := ondisk.DecodeInodeItem(b)
	if err != nil {
		return err
	}
	i.Size += uint64(int64(sign * 2 * len(name)))
	i.Transid = tx.Generation()
	i.Append(b[:0])
	return nil
}

// nextIndex returns an unused index of the root directory.
func (w *world) nextIndex(t *btree.Tree) (uint64, error) {
	c, err := t.SeekLast(w.ctx, ondisk.Key{Objectid: rootDir, Type: ondisk.TypeDirIndex, Offset: ^uint64(0)})
	if err != nil {
		return 0, err
	}
	if c.Valid() && c.Key().Objectid == rootDir && c.Key().Type == ondisk.TypeDirIndex {
		return c.Key().Offset + 1, nil
	}
	return 2, nil
}

func (w *world) addName(tx *transaction.Tx, t *btree.Tree, name string, loc ondisk.Key, typ uint8) (uint64, error) {
	index, err := w.nextIndex(t)
	if err != nil {
		return 0, err
	}
	e := ondisk.AppendDirEntry(nil, ondisk.DirEntry{Location: loc, Transid: tx.Generation(), Type: typ, Name: []byte(name)})
	hash := ondisk.Key{Objectid: rootDir, Type: ondisk.TypeDirItem, Offset: uint64(checksum.NameHash([]byte(name)))}
	if err := t.Insert(w.ctx, hash, e); err != nil {
		return 0, err
	}
	if err := t.Insert(w.ctx, ondisk.Key{Objectid: rootDir, Type: ondisk.TypeDirIndex, Offset: index}, e); err != nil {
		return 0, err
	}
	return index, w.grow(t, tx, name, 1)
}

// addFile makes a file with some extents of data.
func (w *world) addFile(sub ondisk.TreeID, extents, sectors int) {
	w.t.Helper()
	size := uint64(w.v.Sectorsize())
	n := uint64(sectors) * size
	w.edit(transaction.Need{Items: 6 + 3*extents, Data: n * uint64(extents)}, func(tx *transaction.Tx) error {
		t, err := tx.Tree(w.ctx, sub)
		if err != nil {
			return err
		}
		c, err := t.SeekLast(w.ctx, ondisk.Key{Objectid: ondisk.LastFreeObjectid, Type: 255, Offset: ^uint64(0)})
		if err != nil {
			return err
		}
		ino := max(c.Key().Objectid+1, 257)
		w.names++
		name := fmt.Sprintf("file-%d-%d", w.names, w.rng.Uint32())
		index, err := w.addName(tx, t, name, inodeKey(ino), ondisk.FTFile)
		if err != nil {
			return err
		}
		item := ondisk.InodeItem{Generation: tx.Generation(), Transid: tx.Generation(), Size: n * uint64(extents), Nbytes: n * uint64(extents), Nlink: 1, Mode: 0o100644, Ctime: tx.Now()}
		if err := t.Insert(w.ctx, inodeKey(ino), item.Append(nil)); err != nil {
			return err
		}
		if err := t.Insert(w.ctx, ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeRef, Offset: rootDir}, ondisk.AppendInodeRef(nil, ondisk.InodeRef{Index: index, Name: []byte(name)})); err != nil {
			return err
		}
		for i := range extents {
			if err := w.addExtent(tx, t, ino, uint64(i)*n, n); err != nil {
				return err
			}
		}
		w.files[sub][ino], w.last = name, ino
		return nil
	})
}

// addExtent writes n bytes of data, in one or more extents.
func (w *world) addExtent(tx *transaction.Tx, t *btree.Tree, ino, off, n uint64) error {
	for n > 0 {
		at, got, err := tx.AllocData(w.ctx, n)
		if err != nil {
			return err
		}
		p := make([]byte, got)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], w.rng.Uint64())
		}
		if err := tx.WriteData(w.ctx, at, p); err != nil {
			return err
		}
		if err := w.addSums(tx, at, p); err != nil {
			return err
		}
		e := ondisk.FileExtent{Generation: tx.Generation(), RAMBytes: got, Type: ondisk.ExtentReg, DiskBytenr: at, DiskNumBytes: got, NumBytes: got}
		if err := t.Insert(w.ctx, ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData, Offset: off}, e.Append(nil)); err != nil {
			return err
		}
		err = tx.AddRef(ref.Change{Ref: ref.Ref{At: at, Len: got, Kind: ref.KindData, Root: t.ID(), Ino: ino, Offset: off}, Delta: 1})
		if err != nil {
			return err
		}
		off, n = off+got, n-got
	}
	return nil
}

func (w *world) addSums(tx *transaction.Tx, at ondisk.Bytenr, p []byte) error {
	t, err := tx.Tree(w.ctx, ondisk.CsumTree)
	if err != nil {
		return err
	}
	sector, size := int(w.v.Sectorsize()), w.v.CsumType().Size()
	const most = 100
	for len(p) > 0 {
		n := min(len(p)/sector, most)
		sums := make([]byte, n*size)
		for i := range n {
			checksum.Sum(w.v.CsumType(), sums[i*size:(i+1)*size], p[i*sector:(i+1)*sector])
		}
		key := ondisk.Key{Objectid: ondisk.CsumObjectid, Type: ondisk.TypeExtentCsum, Offset: uint64(at)}
		if err := t.Insert(w.ctx, key, sums); err != nil {
			return err
		}
		p, at = p[n*sector:], at+ondisk.Bytenr(n*sector)
	}
	return nil
}

// pick returns a file that was made here, 0 if there is none.
func (w *world) pick(sub ondisk.TreeID) uint64 {
	var inos []uint64
	for ino := range w.files[sub] {
		inos = append(inos, ino)
	}
	if len(inos) == 0 {
		return 0
	}
	sort.Slice(inos, func(i, j int) bool { return inos[i] < inos[j] })
	return inos[w.rng.IntN(len(inos))]
}

// removeFile deletes a file and gives its references up.
func (w *world) removeFile(sub ondisk.TreeID, ino uint64) {
	w.t.Helper()
	name := w.files[sub][ino]
	w.edit(transaction.Need{Items: 10, Deleting: true}, func(tx *transaction.Tx) error {
		t, err := tx.Tree(w.ctx, sub)
		if err != nil {
			return err
		}
		b, err := t.Get(w.ctx, ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeRef, Offset: rootDir})
		if err != nil {
			return err
		}
		refs, err := ondisk.DecodeInodeRefs(b)
		if err != nil {
			return err
		}
		index := refs[0].Index
		c, err := t.Seek(w.ctx, ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData})
		for ; err == nil && c.Valid() && c.Key().Objectid == ino; err = c.Next(w.ctx) {
			e, err := ondisk.DecodeFileExtent(c.Data())
			if err != nil {
				return err
			}
			if e.Type == ondisk.ExtentInline {
				continue
			}
			r := ref.Ref{At: e.DiskBytenr, Len: e.DiskNumBytes, Kind: ref.KindData, Root: t.ID(), Ino: ino, Offset: c.Key().Offset - e.Offset}
			if err := tx.AddRef(ref.Change{Ref: r, Delta: -1}); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if _, err := t.DeleteRange(w.ctx, ondisk.Key{Objectid: ino}, ondisk.Key{Objectid: ino + 1}); err != nil {
			return err
		}
		if err := t.Delete(w.ctx, ondisk.Key{Objectid: rootDir, Type: ondisk.TypeDirItem, Offset: uint64(checksum.NameHash([]byte(name)))}); err != nil {
			return err
		}
		if err := t.Delete(w.ctx, ondisk.Key{Objectid: rootDir, Type: ondisk.TypeDirIndex, Offset: index}); err != nil {
			return err
		}
		return w.grow(t, tx, name, -1)
	})
	delete(w.files[sub], ino)
}

// snapshot makes a snapshot of a subvolume, in the root directory of the top-level one.
func (w *world) snapshot(src ondisk.TreeID) ondisk.TreeID {
	w.t.Helper()
	id := w.nextID
	w.nextID++
	name := fmt.Sprintf("snap-%d", id)
	w.edit(transaction.Need{Items: 600}, func(tx *transaction.Tx) error {
		top, err := tx.Tree(w.ctx, ondisk.FSTree)
		if err != nil {
			return err
		}
		item, _, err := tx.RootItem(w.ctx, src)
		if err != nil {
			return err
		}
		n := *item
		n.UUID = ondisk.UUID{byte(id), byte(id >> 8), 1}
		n.ParentUUID = item.UUID
		n.Otransid, n.Otime = tx.Generation(), tx.Now()
		n.Flags, n.Refs = 0, 1
		key := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem, Offset: uint64(tx.Generation())}
		if err := tx.SnapshotTree(w.ctx, src, id, key, n); err != nil {
			return err
		}
		index, err := w.addName(tx, top, name, ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem, Offset: ^uint64(0)}, ondisk.FTDir)
		if err != nil {
			return err
		}
		return roots.AddRef(w.ctx, tx.RootTree(), roots.Ref{Child: id, Parent: ondisk.FSTree, Dirid: rootDir, Sequence: index, Name: []byte(name)})
	})
	w.subs = append(w.subs, id)
	w.files[id] = map[uint64]string{}
	for ino, name := range w.files[src] {
		w.files[id][ino] = name
	}
	return id
}

// step does something random.
func (w *world) step() {
	w.t.Helper()
	sub := w.subs[w.rng.IntN(len(w.subs))]
	switch n := w.rng.IntN(100); {
	case n < 50:
		w.addFile(sub, 1+w.rng.IntN(4), 1+w.rng.IntN(16))
	case n < 85:
		if ino := w.pick(sub); ino != 0 {
			w.removeFile(sub, ino)
		}
	case n < 90 && len(w.subs) < 12:
		w.snapshot(sub)
	case n < 95:
		w.must(w.m.Commit(w.ctx))
	}
}

func isNoSpace(err error) bool { return errors.Is(err, transaction.ErrNoSpace) }
