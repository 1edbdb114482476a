package cleaner

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// TestYield: a drop of low priority waits while somebody waits for the volume, but not for ever; others do not wait.
func TestYield(t *testing.T) {
	ctx := context.Background()
	d, err := device.OpenFile(testenv.Image(t, "empty"), device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m, err := transaction.Open(ctx, v, transaction.Options{})
	if err != nil {
		t.Fatal(err)
	}
	low := &cleaner{m: m, opt: Options{Low: true}}
	if err := low.yield(ctx, time.Hour); err != nil { // nobody is there
		t.Fatal(err)
	}
	tx, err := m.Begin(ctx, transaction.Need{Items: 1})
	if err != nil {
		t.Fatal(err)
	}
	const writers = 5
	var did atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			tx, err := m.Begin(ctx, transaction.Need{Items: 1})
			if err == nil {
				did.Add(1)
				err = tx.End(ctx)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	for m.Waiting() < writers {
		time.Sleep(time.Millisecond)
	}
	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := low.yield(soon, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it went on while others waited: %v", err)
	}
	if err := low.yield(ctx, 0); err != nil { // others had their share
		t.Error(err)
	}
	if err := (&cleaner{m: m}).yield(ctx, time.Hour); err != nil { // not of low priority
		t.Error(err)
	}
	if n := did.Load(); n != 0 {
		t.Fatalf("%d writers had the volume already", n)
	}
	if err := tx.End(ctx); err != nil {
		t.Fatal(err)
	}
	if err := low.yield(ctx, time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := did.Load(); n != writers {
		t.Errorf("it went on when %d of %d writers had had the volume", n, writers)
	}
	wg.Wait()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}
