package cleaner_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// change runs fn in a transaction.
func change(m *transaction.Manager, fn func(ctx context.Context, tx *transaction.Tx) error) error {
	ctx := context.Background()
	tx, err := m.Begin(ctx, transaction.Need{Items: 100})
	if err != nil {
		return err
	}
	if err := fn(ctx, tx); err != nil {
		return tx.Fail(err)
	}
	return tx.End(ctx)
}

// listed lists all subvolumes, deleted ones too.
func listed(t testing.TB, m *transaction.Manager) []subvol.Info {
	t.Helper()
	m.RLock()
	defer m.RUnlock()
	list, err := subvol.List(context.Background(), m.Tree)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// subvolumes lists what can be deleted.
func subvolumes(t testing.TB, m *transaction.Manager) (ids []ondisk.TreeID) {
	t.Helper()
	list := listed(t, m)
	m.RLock()
	defer m.RUnlock()
	for _, s := range list {
		if s.ID != ondisk.FSTree && !s.Deleted && subvol.Deletable(context.Background(), m.Tree, []ondisk.TreeID{s.ID}) == nil {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Others take snapshots and delete subvolumes while dead trees are dropped, and the drop is stopped again and again.
func TestBesideOthersAndStopped(t *testing.T) {
	images := testenv.Images(t, "snap30")
	v, m := open(t, images)
	ids := subvolumes(t, m)
	if len(ids) < 20 {
		t.Fatalf("only %d subvolumes", len(ids))
	}
	if err := change(m, func(ctx context.Context, tx *transaction.Tx) error { return subvol.Delete(ctx, tx, ids[:15]) }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		live := ids[15:]
		for i := range 10 {
			if err := change(m, func(ctx context.Context, tx *transaction.Tx) error {
				if i%3 == 2 {
					id := live[0]
					live = live[1:]
					return subvol.Delete(ctx, tx, []ondisk.TreeID{id})
				}
				id, err := subvol.Snapshot(ctx, tx, live[i%len(live)], ondisk.FSTree, ondisk.FirstFreeObjectid, fmt.Appendf(nil, "live-%d", i), false)
				live = append(live, id)
				return err
			}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	stopped := 0
	for range 1000 {
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		r, err := cleaner.Run(ctx, m, cleaner.Options{Budget: 20, Progress: func(cleaner.Report) {
			if n++; n == 5 {
				cancel()
			}
		}})
		cancel()
		if errors.Is(err, context.Canceled) {
			stopped++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if r.Roots == r.RootsDone {
			break
		}
	}
	wg.Wait()
	if stopped == 0 {
		t.Error("never stopped")
	}
	if _, err := cleaner.Run(context.Background(), m, cleaner.Options{}); err != nil {
		t.Fatal(err)
	}
	if n, err := cleaner.Pending(context.Background(), m); n != 0 || err != nil {
		t.Errorf("%d dead trees left, %v", n, err)
	}
	closeAll(t, v, m)
	testenv.Check(t, images...)
}

// Waits for others and merged reads are counted.
func TestCounters(t *testing.T) {
	images := testenv.Images(t, "snap30")
	v, m := open(t, images)
	ids := subvolumes(t, m)
	if err := change(m, func(ctx context.Context, tx *transaction.Tx) error { return subvol.Delete(ctx, tx, ids) }); err != nil {
		t.Fatal(err)
	}
	steps := 0
	var wg sync.WaitGroup
	r, err := cleaner.Run(context.Background(), m, cleaner.Options{Budget: 20, Progress: func(r cleaner.Report) {
		if steps++; steps != 1 {
			return
		}
		if r.LockWaits > 0 {
			t.Errorf("%d waits, but nobody is there to wait for", r.LockWaits)
		}
		tx, err := m.Begin(context.Background(), transaction.Need{Items: 1})
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() {
			for m.Waiting() == 0 {
				runtime.Gosched()
			}
			if err := tx.End(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}})
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", r)
	if r.LockWaits != 1 || r.MergedReads == 0 || r.MergedReads > r.Stats.Reads/2 || steps < 2 {
		t.Errorf("%d steps: %+v", steps, r)
	}
	closeAll(t, v, m)
}
