package filedata_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// memImage gives a volume of the corpus in memory.
func memImage(t *testing.T, name string) *device.Mem {
	t.Helper()
	f, err := os.Open(testenv.ReadImages(t, name)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m := device.NewMem(fi.Size())
	b, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < fi.Size(); off += int64(len(b)) {
		n, _ := f.ReadAt(b, off)
		if bytes.Equal(b[:n], zero[:n]) {
			continue
		}
		if _, err := m.WriteAt(b[:n], off); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// job does something of everything, and stops at the first error.
func job(ctx context.Context, m *transaction.Manager) error {
	var ino [3]uint64
	names := []string{"a", "b", "c"}
	edit := func(fn func(t *fstree.Tree) error) error {
		tx, err := m.Begin(ctx, transaction.Need{Items: 12})
		if err != nil {
			return err
		}
		t, err := fstree.Open(ctx, tx, ondisk.FSTree)
		if err == nil {
			err = fn(t)
		}
		return errors.Join(err, tx.End(ctx))
	}
	for i, name := range names {
		err := edit(func(t *fstree.Tree) (err error) {
			ino[i], err = t.Create(ctx, fstree.RootIno, []byte(name), fstree.Attr{Mode: fstree.ModeFile | 0o644})
			return err
		})
		if err != nil {
			return err
		}
	}
	data := bytes.Repeat([]byte("some text to be packed "), 20_000)
	w := [3]*filedata.Writer{}
	for i := range w {
		w[i] = filedata.NewWriter(m, ondisk.FSTree, ino[i], filedata.WriterOptions{Compression: uint8(i)})
	}
	for _, step := range []func() error{
		func() error { return w[0].WriteAt(ctx, data, 100) },
		func() error { return w[1].WriteAt(ctx, data, 0) },
		func() error { return w[2].WriteAt(ctx, data[:1000], 0) },
		func() error { return errors.Join(w[0].Flush(ctx), w[1].Flush(ctx), w[2].Flush(ctx)) },
		func() error { return m.Commit(ctx) },
		func() error { return w[2].Clone(ctx, 8192, ondisk.FSTree, ino[1], 4096, 200_704) },
		func() error { return w[1].Punch(ctx, 10_000, 100_000) },
		func() error { return w[0].Truncate(ctx, 5000) },
		func() error { return w[0].Allocate(ctx, 0, 50_000, true) },
		func() error { return m.Commit(ctx) },
		func() error {
			return edit(func(t *fstree.Tree) error {
				return t.Rename(ctx, fstree.RootIno, []byte("a"), fstree.RootIno, []byte("c"))
			})
		},
		func() error {
			return edit(func(t *fstree.Tree) error { return t.Unlink(ctx, fstree.RootIno, []byte("b")) })
		},
		func() error { return m.Commit(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestEveryFault lets the n-th call to the device fail, for every n. What is on
// the device afterwards must be whole.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	fresh := memImage(t, "empty")
	for _, op := range []faultdev.Op{faultdev.Write, faultdev.Flush, faultdev.Read} {
		failures := 0
		for n, total := 1, 1; n <= total; n++ {
			failed, calls := oneFault(t, fresh.Clone(), op, n)
			if failed {
				failures++
			}
			total = max(total, calls)
		}
		if failures == 0 {
			t.Errorf("no failing %v was noticed", op)
		}
	}
}

// oneFault runs the job with a fault, and tells whether it failed and how many
// calls there were.
func oneFault(t *testing.T, mem *device.Mem, op faultdev.Op, n int) (bool, int) {
	t.Helper()
	ctx := t.Context()
	opt := volume.Options{SuperCopy: -1, BackupRoot: -1}
	dev := faultdev.New(mem)
	v, err := volume.Open(ctx, []device.Device{dev}, opt)
	if err != nil {
		t.Fatal(err)
	}
	m, err := transaction.Open(ctx, v, transaction.Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := dev.Calls(op)
	dev.Add(faultdev.Rule{Op: op, After: n - 1, Times: 1})
	failed := job(ctx, m)
	closed := errors.Join(m.Close(ctx), v.Close())
	if failed == nil && closed != nil {
		failed = closed
	}
	opt.ReadOnly = true
	again, err := volume.Open(ctx, []device.Device{mem}, opt)
	if err != nil {
		t.Fatalf("%v %d: %v", op, n, err)
	}
	defer again.Close()
	r, err := check.Check(ctx, again, check.Options{Data: true})
	if err != nil || !r.OK() {
		t.Fatalf("%v %d failed with %v; afterwards: %v %v", op, n, failed, err, r.Findings)
	}
	return failed != nil, dev.Calls(op) - before
}
