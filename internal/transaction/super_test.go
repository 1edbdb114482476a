package transaction_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// TestSuper: each commit is one generation, the label and new features arrive, backup roots go round.
func TestSuper(t *testing.T) {
	w := newWorld(t, "default", 1)
	before := *w.v.Super()
	for range 6 {
		w.addFile(ondisk.FSTree, 1, 1)
		w.must(w.m.Commit(w.ctx))
	}
	w.must(w.m.Commit(w.ctx)) // nothing to do
	w.edit(transaction.Need{}, func(tx *transaction.Tx) error {
		tx.SetLabel("new label")
		tx.AddIncompat(ondisk.IncompatCompressZstd)
		return nil
	})
	w.close()
	w.open()
	sb := w.v.Super()
	if got := sb.Generation - before.Generation; got != 7 {
		t.Errorf("%d generations for 7 commits", got)
	}
	if sb.Label != "new label" || sb.Incompat&ondisk.IncompatCompressZstd == 0 {
		t.Errorf("label %q, features %v", sb.Label, ondisk.IncompatNames(sb.Incompat))
	}
	if before.UUIDTreeGeneration == before.Generation && sb.UUIDTreeGeneration != sb.Generation {
		t.Errorf("uuid tree counts as outdated: %d of %d", sb.UUIDTreeGeneration, sb.Generation)
	}
	seen := map[ondisk.Generation]bool{}
	for _, b := range sb.Backups {
		seen[b.Root.Generation] = true
		if b.Root.Generation == sb.Generation && (b.Root.Bytenr != sb.Root || b.BytesUsed != sb.BytesUsed) {
			t.Errorf("newest backup root differs from the superblock: %+v", b)
		}
	}
	for g := sb.Generation - 3; g <= sb.Generation; g++ {
		if !seen[g] {
			t.Errorf("generation %d is in no backup root", g)
		}
	}
	w.close()
	testenv.Check(t, w.paths...)
}

// TestAbort: after a failure half-way nothing can be changed, readers see the last commit, and so does who opens again.
func TestAbort(t *testing.T) {
	w := newWorld(t, "default", 1)
	w.addFile(ondisk.FSTree, 1, 4)
	w.must(w.m.Commit(w.ctx))
	kept := w.last
	w.addFile(ondisk.FSTree, 1, 4) // ended, not committed
	boom := errors.New("boom")
	tx := w.begin(transaction.Need{Items: 3})
	tree, err := tx.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	w.must(tree.Delete(w.ctx, inodeKey(kept)))
	if err := tx.Fail(boom); !errors.Is(err, boom) {
		t.Errorf("Fail gives %v", err)
	}
	var a *transaction.AbortError
	if err := tx.End(w.ctx); !errors.As(err, &a) || !errors.Is(err, boom) {
		t.Errorf("End gives %v", err)
	}
	if _, err := w.m.Begin(w.ctx, transaction.Need{}); !errors.As(err, &a) {
		t.Errorf("Begin gives %v", err)
	}
	if err := w.m.Commit(w.ctx); !errors.As(err, &a) {
		t.Errorf("Commit gives %v", err)
	}
	w.m.RLock()
	tree, err = w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	if _, err := tree.Get(w.ctx, inodeKey(kept)); err != nil {
		t.Errorf("a file of the last commit is gone: %v", err)
	}
	if _, err := tree.Get(w.ctx, inodeKey(w.last)); err == nil {
		t.Errorf("a file of the aborted transaction is there")
	}
	w.m.RUnlock()
	w.must(w.v.Close())
	testenv.Check(t, w.paths...)
	w.open()
	w.addFile(ondisk.FSTree, 1, 4)
	w.close()
	testenv.Check(t, w.paths...)
}

// TestFailEarly: a change that fails before it changed anything costs nobody the transaction.
func TestFailEarly(t *testing.T) {
	w := newWorld(t, "default", 1)
	w.addFile(ondisk.FSTree, 1, 4)
	tx := w.begin(transaction.Need{Items: 3})
	tree, err := tx.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	_, err = tree.Get(w.ctx, inodeKey(1<<40))
	if err := tx.Fail(err); !errors.Is(err, btree.ErrNotFound) {
		t.Errorf("Fail gives %v", err)
	}
	w.must(tx.End(w.ctx))
	w.must(w.m.Err())
	w.addFile(ondisk.FSTree, 1, 4)
	w.close()
	testenv.Check(t, w.paths...)
}

// TestCancelled: a caller whose context ends before the commit does not lose what all have written.
func TestCancelled(t *testing.T) {
	w := newWorld(t, "default", 1)
	w.addFile(ondisk.FSTree, 1, 4)
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	w.must(w.m.Commit(ctx))
	w.close()
	testenv.Check(t, w.paths...)
}

// TestReadOnly: a volume that was opened for reading is not written.
func TestReadOnly(t *testing.T) {
	ctx := context.Background()
	d, err := device.OpenFile(testenv.Image(t, "default"), device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transaction.Open(ctx, v, transaction.Options{}); err == nil {
		t.Error("opened")
	}
}
