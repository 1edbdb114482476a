package transaction_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/crashdev"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// loadMem reads an image into memory.
func loadMem(t testing.TB, image string) *device.Mem {
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
	if _, err := io.Copy(io.NewOffsetWriter(m, 0), f); err != nil {
		t.Fatal(err)
	}
	return m
}

// saveMem writes a device to a file.
func saveMem(t testing.TB, d device.Device, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(d.Size())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const piece = 1 << 20
	p, zero := make([]byte, piece), make([]byte, piece)
	for off := int64(0); off < d.Size(); off += piece {
		n, _ := d.ReadAt(p, off)
		if bytes.Equal(p[:n], zero[:n]) {
			continue
		}
		if _, err := f.WriteAt(p[:n], off); err != nil {
			t.Fatal(err)
		}
	}
}

// newWorldOn is newWorld on a device instead of a file.
func newWorldOn(t testing.TB, d device.Device, seed int64, opt transaction.Options) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), rng: rand.New(rand.NewPCG(uint64(seed), 1)), opt: opt,
		subs: []ondisk.TreeID{ondisk.FSTree}, files: map[ondisk.TreeID]map[uint64]string{ondisk.FSTree: {}}, nextID: 1000}
	var err error
	w.v, err = volume.Open(w.ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	w.must(err)
	w.m, err = transaction.Open(w.ctx, w.v, opt)
	w.must(err)
	return w
}

// state is what a volume must hold after a commit.
type state map[ondisk.TreeID]map[uint64]string

func (w *world) state() state {
	s := state{}
	for id, files := range w.files {
		s[id] = maps.Clone(files)
	}
	return s
}

// verify opens a device and compares it with the state of its generation.
func verify(d device.Device, states map[ondisk.Generation]state) error {
	ctx := context.Background()
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		return err
	}
	defer v.Close()
	gen := v.Super().Generation
	want, ok := states[gen]
	if !ok {
		return fmt.Errorf("generation %d is not one that may be found", gen)
	}
	for id, files := range want {
		t, err := v.Tree(ctx, id)
		if err != nil {
			return fmt.Errorf("generation %d: subvolume %d: %w", gen, id, err)
		}
		got := 0
		c, err := t.Seek(ctx, ondisk.Key{})
		for ; err == nil && c.Valid(); err = c.Next(ctx) {
			k := c.Key()
			if k.Type != ondisk.TypeInodeRef || files[k.Objectid] == "" {
				continue
			}
			refs, err := ondisk.DecodeInodeRefs(c.Data())
			if err != nil || string(refs[0].Name) != files[k.Objectid] {
				return fmt.Errorf("generation %d: subvolume %d: inode %d is not %q: %v", gen, id, k.Objectid, files[k.Objectid], err)
			}
			got++
		}
		if err != nil {
			return err
		}
		if got != len(files) {
			return fmt.Errorf("generation %d: subvolume %d has %d files, want %d", gen, id, got, len(files))
		}
	}
	return nil
}

// change does n random things that do not commit.
func (w *world) change(n int) {
	for range n {
		sub := w.subs[w.rng.IntN(len(w.subs))]
		switch r := w.rng.IntN(100); {
		case r < 50:
			w.addFile(sub, 1+w.rng.IntN(4), 1+w.rng.IntN(16))
		case r < 92:
			if ino := w.pick(sub); ino != 0 {
				w.removeFile(sub, ino)
			}
		case len(w.subs) < 10:
			w.snapshot(sub)
		}
	}
}

// Power is lost at every flush of many commits, and between them. What is found is always the last commit that was
// reported as done, or the one under way, whole; btrfs check agrees.
func TestCrash(t *testing.T) {
	seed := testenv.Seed(t, 3)
	for _, image := range []string{"default", "node-4k"} {
		t.Run(image, func(t *testing.T) {
			dev := crashdev.FromMem(loadMem(t, image))
			crash := rand.New(rand.NewPCG(uint64(seed), 2))
			w := newWorldOn(t, dev, seed, transaction.Options{DirtyBytes: 1 << 40})
			states := map[ondisk.Generation]state{w.v.Super().Generation: w.state()}
			var found []*device.Mem
			try := func(when string) {
				m := dev.Crash(crash)
				if err := verify(m, states); err != nil {
					t.Errorf("crash %s: %v", when, err)
				}
				if crash.IntN(10) == 0 {
					found = append(found, m)
				}
			}
			dev.BeforeFlush = func() { try("at a flush") }
			for range testenv.Rounds(12) {
				w.change(10)
				try("while data is written")
				states[w.v.Super().Generation+1] = w.state()
				w.must(w.m.Commit(w.ctx))
				maps.DeleteFunc(states, func(g ondisk.Generation, _ state) bool { return g < w.v.Super().Generation })
				try("after a commit")
			}
			dev.BeforeFlush = nil
			w.close()
			if err := verify(dev.Durable(), states); err != nil {
				t.Error(err)
			}
			dir := testenv.Scratch(t)
			for i, m := range append(found, dev.Durable()) {
				// btrfs check gives up on a torn first superblock; volume.Open takes the second.
				if _, err := volume.Open(w.ctx, []device.Device{m}, volume.Options{ReadOnly: true, SuperCopy: 0, BackupRoot: -1}); err != nil {
					continue
				}
				path := filepath.Join(dir, fmt.Sprint(i, ".img"))
				saveMem(t, m, path)
				testenv.Check(t, path)
				os.Remove(path)
			}
		})
	}
}

// Each write and each flush of a commit fails once. The commit reports it, nothing more is changed, and the volume
// opens again with the last commit.
func TestWriteFailure(t *testing.T) {
	seed := testenv.Seed(t, 4)
	start := loadMem(t, "node-4k")
	for _, op := range []faultdev.Op{faultdev.Write, faultdev.Flush} {
		for n := 1; ; n += 1 + n/4 {
			mem := start.Clone()
			dev := faultdev.New(mem)
			w := newWorldOn(t, dev, seed, transaction.Options{DirtyBytes: 1 << 40})
			states := map[ondisk.Generation]state{w.v.Super().Generation: w.state()}
			w.change(12)
			states[w.v.Super().Generation+1] = w.state()
			dev.Add(faultdev.Rule{Op: op, After: n - 1, Times: 1})
			err := w.m.Commit(w.ctx)
			if err == nil {
				w.must(w.m.Close(w.ctx))
				if n == 1 {
					t.Fatalf("failing %v was not noticed", op)
				}
				break
			}
			if _, err := w.m.Begin(w.ctx, transaction.Need{Items: 1}); err == nil {
				t.Fatalf("%v %d: changes go on after a failed commit", op, n)
			}
			if err := verify(mem, states); err != nil {
				t.Fatalf("%v %d: %v", op, n, err)
			}
		}
	}
}
