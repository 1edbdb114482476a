// Package crash cuts the power while files are written, snapshots taken and sets of them dropped. Whatever is found
// afterwards is a sound volume, and what was half dropped can be dropped to the end.
package crash

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/crashdev"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// world is a volume at work.
type world struct {
	t     *testing.T
	ctx   context.Context
	rng   *rand.Rand
	m     *transaction.Manager
	snaps []ondisk.TreeID
	names int
	files []string
}

func open(d device.Device) (*volume.Volume, *transaction.Manager, error) {
	ctx := context.Background()
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		return nil, nil, err
	}
	m, err := transaction.Open(ctx, v, transaction.Options{DirtyBytes: 128 << 10}) // little, so that leaves are written early
	return v, m, err
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) in(fn func(tx *transaction.Tx) error) {
	w.t.Helper()
	tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 30})
	w.must(err)
	if err := fn(tx); err != nil {
		w.t.Fatal(tx.Fail(err))
	}
	w.must(tx.End(w.ctx))
}

// write makes a file, or writes into one.
func (w *world) write() {
	name := fmt.Sprintf("file-%d", w.names)
	if len(w.files) > 0 && w.rng.IntN(2) == 0 {
		name = w.files[w.rng.IntN(len(w.files))]
	} else {
		w.names++
		w.files = append(w.files, name)
	}
	var ino uint64
	w.in(func(tx *transaction.Tx) error {
		f, err := fstree.Open(w.ctx, tx, ondisk.FSTree)
		if err != nil {
			return err
		}
		if e, err := fstree.Lookup(w.ctx, f.Items(), 256, []byte(name)); err == nil {
			ino = e.Location.Objectid
			return nil
		}
		ino, err = f.Create(w.ctx, 256, []byte(name), fstree.Attr{Mode: fstree.ModeFile | 0o644})
		return err
	})
	data := make([]byte, 1+w.rng.IntN(40000))
	for i := range data {
		data[i] = byte(w.rng.Uint32())
	}
	f := filedata.NewWriter(w.m, ondisk.FSTree, ino, filedata.WriterOptions{Compression: uint8(w.rng.IntN(4))})
	w.must(f.WriteAt(w.ctx, data, uint64(w.rng.IntN(60000))))
	w.must(f.Flush(w.ctx))
}

func (w *world) unlink() {
	if len(w.files) == 0 {
		return
	}
	i := w.rng.IntN(len(w.files))
	name := w.files[i]
	w.files = append(w.files[:i], w.files[i+1:]...)
	w.in(func(tx *transaction.Tx) error {
		f, err := fstree.Open(w.ctx, tx, ondisk.FSTree)
		if err != nil {
			return err
		}
		return f.Unlink(w.ctx, 256, []byte(name))
	})
}

func (w *world) snapshot() {
	w.names++
	w.in(func(tx *transaction.Tx) error {
		id, err := subvol.Snapshot(w.ctx, tx, ondisk.FSTree, ondisk.FSTree, 256, fmt.Appendf(nil, "snap-%d", w.names), true)
		w.snaps = append(w.snaps, id)
		return err
	})
}

// drop deletes half of the snapshots, and takes them apart in small steps with a commit after each.
func (w *world) drop() {
	n := (len(w.snaps) + 1) / 2
	w.rng.Shuffle(len(w.snaps), func(i, j int) { w.snaps[i], w.snaps[j] = w.snaps[j], w.snaps[i] })
	ids := append([]ondisk.TreeID(nil), w.snaps[:n]...)
	w.snaps = w.snaps[n:]
	if n == 0 {
		return
	}
	w.in(func(tx *transaction.Tx) error { return subvol.Delete(w.ctx, tx, ids) })
	_, err := cleaner.Run(w.ctx, w.m, cleaner.Options{Budget: 1 + w.rng.IntN(8), Commit: true})
	w.must(err)
}

// verify checks a volume as found after a crash, finishes what was half dropped, and checks it again.
func verify(d *device.Mem, finish bool) error {
	ctx := context.Background()
	v, m, err := open(d)
	if err != nil {
		return err
	}
	defer v.Close()
	for range 2 {
		r, err := check.Check(ctx, v, check.Options{Data: true})
		if err != nil {
			return err
		}
		if !r.OK() {
			return fmt.Errorf("generation %d: %d findings: %v", v.Super().Generation, len(r.Findings), r.Findings[:min(3, len(r.Findings))])
		}
		if !finish {
			return m.Close(ctx)
		}
		if _, err := cleaner.Run(ctx, m, cleaner.Options{}); err != nil {
			return err
		}
		if n, err := cleaner.Pending(ctx, m); n > 0 || err != nil {
			return fmt.Errorf("%d roots are still dead: %v", n, err)
		}
	}
	return m.Close(ctx)
}

func TestCrash(t *testing.T) {
	seed := testenv.Seed(t, 40)
	for _, nodesize := range []uint32{4096, 16384} {
		t.Run(fmt.Sprint(nodesize), func(t *testing.T) {
			ctx := context.Background()
			mem := device.NewMem(1 << 30)
			if _, err := mkfs.Make(ctx, []device.Device{mem}, mkfs.Options{Nodesize: nodesize}); err != nil {
				t.Fatal(err)
			}
			dev := crashdev.FromMem(mem)
			_, m, err := open(dev)
			if err != nil {
				t.Fatal(err)
			}
			w := &world{t: t, ctx: ctx, rng: rand.New(rand.NewPCG(uint64(seed), 1)), m: m}
			crash := rand.New(rand.NewPCG(uint64(seed), 2))
			tries := 0
			dev.BeforeFlush = func() {
				if crash.IntN(4) > 0 {
					return
				}
				tries++
				if err := verify(dev.Crash(crash), crash.IntN(2) == 0); err != nil {
					t.Errorf("crash %d: %v", tries, err)
				}
			}
			for range testenv.Rounds(150) {
				switch r := w.rng.IntN(100); {
				case r < 55:
					w.write()
				case r < 75:
					w.unlink()
				case r < 85 && len(w.snaps) < 12:
					w.snapshot()
				case r < 90:
					w.must(m.Commit(ctx))
				case r < 95:
					w.drop()
				}
			}
			dev.BeforeFlush = nil
			w.must(m.Close(ctx))
			t.Logf("%d crashes, %d commits", tries, m.Commits())
			if err := verify(dev.Durable(), true); err != nil {
				t.Error(err)
			}
			judge(t, dev.Durable())
		})
	}
}

// judge lets btrfs check have the last word.
func judge(t *testing.T, m *device.Mem) {
	t.Helper()
	path := testenv.Scratch(t) + "/volume.img"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(m, 0, m.Size())); err != nil {
		t.Fatal(err)
	}
	testenv.Check(t, path)
}
