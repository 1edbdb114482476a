package cleaner_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// scatter has the kernel write a file of 4,000 extents, so that the extent tree takes several windows.
func scatter(t *testing.T, image, sub string) {
	t.Helper()
	mnt := testenv.Mount(t, []string{image}, "max_inline=0")
	f, err := os.Create(filepath.Join(mnt, sub, "scattered"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(4000) {
		if _, err := f.WriteAt([]byte{1}, i*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	testenv.Umount(t, mnt)
}

// TestCancelSweep: a sweep tells how far it is, and can be cancelled at any window of the extent tree. Then nothing of it is kept, others go on
// working with the volume, and the next run does it all.
func TestCancelSweep(t *testing.T) {
	image, names := kernelHistory(t, testenv.Scratch(t), 77, true)
	set := names[1:]
	scatter(t, image, names[0])
	v, m := open(t, []string{image})
	weDelete(t, m, set)
	closeAll(t, v, m)
	before := account(t, image)
	cancelled := 0
	for at := 1; ; at++ {
		copied := copyOf(t, image, "cancelled.img")
		v, m := openWith(t, []string{copied}, int64(at%2)*8<<10) // every other time blocks are written early
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		calls, last := 0, 0.0
		opt := cleaner.Options{SweepFactor: 1000, Watch: func(r cleaner.Report) {
			if calls++; calls == at {
				cancel()
			}
			if r.Part < last || r.Part > 1 || r.Part == 0 {
				t.Errorf("call %d: part %f after %f", calls, r.Part, last)
			}
			last = r.Part
		}}
		r, err := cleaner.Run(ctx, m, opt)
		if err == nil { // too late to cancel
			if r.RootsDone != len(set) || r.Stats.Swept == 0 {
				t.Errorf("%+v", r)
			}
			closeAll(t, v, m)
			break
		}
		if !errors.Is(err, context.Canceled) || r.RootsDone != 0 || r.Stats.Freed != 0 || r.DataFreed != 0 || m.Err() != nil {
			t.Fatalf("cancelled at %d: %+v, %v, %v", at, r, err, m.Err())
		}
		cancelled++
		if err := change(m, func(_ context.Context, tx *transaction.Tx) error { tx.SetLabel("goes on"); return nil }); err != nil {
			t.Fatal(err)
		}
		closeAll(t, v, m)
		same(t, "cancelled", account(t, copied), before)
		v, m = open(t, []string{copied})
		if r, err = cleaner.Run(context.Background(), m, cleaner.Options{SweepFactor: 1000}); err != nil || r.RootsDone != len(set) || r.Stats.Swept == 0 {
			t.Fatalf("afterwards: %+v, %v", r, err)
		}
		closeAll(t, v, m)
		if cancelled%3 == 0 {
			testenv.Check(t, copied)
		}
	}
	t.Logf("cancelled at %d places", cancelled)
	if cancelled < 6 {
		t.Errorf("cancelled at %d places only", cancelled)
	}
}
