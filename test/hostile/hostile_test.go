// Package hostile lets every part that reads or changes a volume loose on damaged ones. Bytes from a device are
// hostile: whatever they are, the answer is an error, never a panic and never an endless loop.
package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/dump"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// most is how long one round may take.
const most = 60 * time.Second

func load(t testing.TB, image string) *device.Mem {
	t.Helper()
	f, err := os.Open(testenv.ReadImages(t, image)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m := device.NewMem(info.Size())
	zero, p := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < info.Size(); off += int64(len(p)) {
		n, err := f.ReadAt(p, off)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if bytes.Equal(p[:n], zero[:n]) {
			continue // most of it is nothing
		}
		if _, err := m.WriteAt(p[:n], off); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func open(ctx context.Context, d device.Device, readonly bool) (*volume.Volume, error) {
	return volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: readonly, SuperCopy: -1, BackupRoot: -1})
}

// blocksOf lists the addresses of a sound volume's tree blocks.
func blocksOf(ctx context.Context, v *volume.Volume) (all []ondisk.Bytenr, err error) {
	t, err := v.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		return nil, err
	}
	c, err := t.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		switch k := c.Key(); k.Type {
		case ondisk.TypeMetadataItem:
			all = append(all, ondisk.Bytenr(k.Objectid))
		case ondisk.TypeExtentItem:
			if i, err := ondisk.DecodeExtentItem(c.Data()); err == nil && i.Flags&ondisk.ExtentFlagTreeBlock != 0 {
				all = append(all, ondisk.Bytenr(k.Objectid))
			}
		}
	}
	return all, err
}

// damage changes a few bytes of a tree block in all its copies, and makes the checksum right again.
func damage(ctx context.Context, rng *rand.Rand, v *volume.Volume, m *device.Mem, at ondisk.Bytenr) error {
	b := make(ondisk.Block, v.Nodesize())
	if err := v.IO().Read(ctx, at, 0, b); err != nil {
		return err
	}
	heads := b.NrItems() * ondisk.ItemSize
	if b.Level() > 0 {
		heads = b.NrItems() * ondisk.KeyPtrSize
	}
	used := heads // where bodies begin
	if b.Level() == 0 {
		used += b.FreeBytes()
	}
	for range 1 + rng.IntN(3) {
		from, to := ondisk.HeaderSize+used, len(b)
		switch r := rng.IntN(10); {
		case r == 0:
			from, to = 48, ondisk.HeaderSize
		case r < 4 || b.Level() > 0:
			from, to = ondisk.HeaderSize, ondisk.HeaderSize+heads
		}
		if from >= to {
			continue
		}
		i := from + rng.IntN(to-from)
		switch rng.IntN(4) {
		case 0:
			b[i] = byte(rng.Uint32())
		case 1:
			b[i] = 0xff
		default:
			b[i] ^= 1 << rng.IntN(8)
		}
	}
	checksum.Sum(v.CsumType(), b[:v.CsumType().Size()], b[32:])
	c, ok := v.Chunks().Find(at)
	if !ok || len(c.Stripes) != c.Copies() {
		return errors.New("hostile: a profile with stripes")
	}
	for _, s := range c.Stripes {
		if _, err := m.WriteAt(b, int64(s.Offset+uint64(at-c.Logical))); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads names, attributes and contents of everything that can be found, has it checked, and shows it.
func readAll(ctx context.Context, v *volume.Volume, opt check.Options, shows ...dump.Options) (*check.Report, error) {
	var errs []error
	contents := make([]byte, 200000)
	note := func(err error) {
		if err != nil && !errors.Is(err, io.EOF) {
			errs = append(errs, err)
		}
	}
	subs, err := subvol.List(ctx, v.Tree)
	note(err)
	sums, err := v.Tree(ctx, ondisk.CsumTree)
	note(err)
	var ids []ondisk.TreeID
	for _, s := range subs {
		if s.Deleted {
			continue
		}
		ids = append(ids, s.ID)
		t, err := v.Tree(ctx, s.ID)
		if err != nil {
			note(err)
			continue
		}
		c, err := t.Seek(ctx, ondisk.Key{})
		for ; err == nil && c.Valid(); err = c.Next(ctx) {
			if c.Key().Type != ondisk.TypeInodeItem {
				continue
			}
			ino := c.Key().Objectid
			note(fstree.ReadDir(ctx, t, ino, 0, func(e fstree.Entry) error {
				_, err := fstree.Lookup(ctx, t, ino, e.Name)
				return err
			}))
			_, err := fstree.Links(ctx, t, ino)
			note(err)
			_, err = fstree.PathOf(ctx, t, ino)
			note(err)
			note(fstree.ListXattr(ctx, t, ino, func(string, []byte) error { return nil }))
			_, _ = fstree.Readlink(ctx, t, ino) // most are none
			if r, err := filedata.NewReader(ctx, v, t, sums, ino); err != nil {
				note(err)
			} else {
				_, err = r.ReadAt(ctx, contents, 1000)
				note(err)
				_, err = r.SeekHole(ctx, 0)
				note(err)
			}
		}
		note(err)
	}
	_, err = cleaner.Plan(ctx, v, ids)
	note(err)
	report, err := check.Check(ctx, v, opt)
	note(err)
	note(dump.Super(io.Discard, v.Super()))
	for _, o := range shows {
		err := dump.Tree(ctx, io.Discard, v, 0, o)
		if err != nil && o.Block != 0 {
			err = byAddress{err}
		}
		note(err)
	}
	return report, errors.Join(errs...)
}

// changeAll makes and deletes things until something fails.
func changeAll(ctx context.Context, rng *rand.Rand, v *volume.Volume) error {
	m, err := transaction.Open(ctx, v, transaction.Options{DropLog: true})
	if err != nil {
		return err
	}
	in := func(fn func(tx *transaction.Tx) error) error {
		tx, err := m.Begin(ctx, transaction.Need{Items: 40, Deleting: true})
		if err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return tx.Fail(err)
		}
		return tx.End(ctx)
	}
	subs, err := subvol.List(ctx, m.Tree)
	if err != nil {
		return err
	}
	for i, s := range subs {
		if i == 6 {
			break
		}
		if s.Deleted {
			continue
		}
		if s.Item.Flags&ondisk.RootFlagReadonly != 0 {
			err := in(func(tx *transaction.Tx) error { return subvol.SetReadOnly(ctx, tx, s.ID, false) })
			if err != nil {
				return err
			}
		}
		if err := changeOne(ctx, m, in, s.ID); err != nil {
			return err
		}
	}
	if err := m.Commit(ctx); err != nil {
		return err
	}
	err = in(func(tx *transaction.Tx) error {
		_, err := subvol.Snapshot(ctx, tx, ondisk.FSTree, ondisk.FSTree, 256, []byte("hostile-snapshot"), false)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range subs {
		if s.ID == ondisk.FSTree || s.Deleted || rng.IntN(2) == 0 {
			continue
		}
		if subvol.Deletable(ctx, m.Tree, []ondisk.TreeID{s.ID}) != nil {
			continue
		}
		if err := in(func(tx *transaction.Tx) error { return subvol.Delete(ctx, tx, []ondisk.TreeID{s.ID}) }); err != nil {
			return err
		}
	}
	if _, err := cleaner.Run(ctx, m, cleaner.Options{Budget: 1 + rng.IntN(50)}); err != nil {
		return err
	}
	return m.Close(ctx)
}

// changeOne writes a file in a subvolume and unlinks what lies in its root directory.
func changeOne(ctx context.Context, m *transaction.Manager, in func(func(*transaction.Tx) error) error, sub ondisk.TreeID) error {
	var ino uint64
	var names [][]byte
	err := in(func(tx *transaction.Tx) error {
		f, err := fstree.Open(ctx, tx, sub)
		if err != nil {
			return err
		}
		if ino, err = f.Create(ctx, 256, []byte("hostile"), fstree.Attr{Mode: fstree.ModeFile | 0o644}); err != nil {
			return err
		}
		return fstree.ReadDir(ctx, f.Items(), 256, 0, func(e fstree.Entry) error {
			if e.Type != ondisk.FTDir && len(names) < 20 {
				names = append(names, append([]byte(nil), e.Name...))
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	w := filedata.NewWriter(m, sub, ino, filedata.WriterOptions{})
	if err := w.WriteAt(ctx, make([]byte, 50000), 3); err != nil {
		return err
	}
	if err := w.Flush(ctx); err != nil {
		return err
	}
	for _, name := range names {
		err := in(func(tx *transaction.Tx) error {
			f, err := fstree.Open(ctx, tx, sub)
			if err != nil {
				return err
			}
			return f.Unlink(ctx, 256, name)
		})
		if err != nil {
			return err
		}
	}
	return filedata.CleanOrphans(ctx, m, sub)
}

func TestDamage(t *testing.T) {
	seed := testenv.Seed(t, 30)
	for _, image := range []string{"node-4k", "half-drop", "reflink", "no-skinny", "fst-bitmaps", "comp-mixed", "subvolumes", "mixed"} {
		t.Run(image, func(t *testing.T) {
			ctx := context.Background()
			sound := load(t, image)
			v, err := open(ctx, sound, true)
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := blocksOf(ctx, v)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			if err := attack(t, rng, sound.Clone(), "sound"); err != nil {
				t.Fatalf("the sound volume: %v", err)
			}
			for round := range testenv.Rounds(8) {
				m := sound.Clone()
				for range 1 + rng.IntN(3) {
					if err := damage(ctx, rng, v, m, blocks[rng.IntN(len(blocks))]); err != nil {
						t.Fatal(err)
					}
				}
				// Many damages cannot be noticed here; that is for package check.
				_ = attack(t, rng, m, fmt.Sprintf("seed %d round %d", seed, round))
			}
		})
	}
}

// attack reads and changes a volume. It returns what stopped it.
func attack(t *testing.T, rng *rand.Rand, m *device.Mem, name string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	v, err := open(ctx, m.Clone(), true)
	if err == nil {
		_, err = readAll(ctx, v, check.Options{}, dump.Options{})
		v.Close()
	}
	w, err2 := open(ctx, m, false)
	if err2 == nil {
		err2 = changeAll(ctx, rng, w)
		w.Close()
	}
	if ctx.Err() != nil {
		t.Errorf("%s: not done after %v", name, most)
	}
	return errors.Join(err, err2)
}
