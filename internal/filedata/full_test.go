package filedata_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Small files fill the trees until no more fit; all of them can be removed, and
// made again.
func TestTreesFull(t *testing.T) {
	w := &world{t: t, ctx: context.Background(), rng: seeded(1), paths: []string{filepath.Join(testenv.Scratch(t), "full.img")}}
	testenv.MakeVolume(t, w.paths[0], 32<<20, "-M")
	w.open()
	data := w.bytes(2000)
	fill := func() (n int) {
		for {
			err := w.small(fmt.Sprint("small-", n), data)
			if errors.Is(err, transaction.ErrNoSpace) {
				return n
			}
			w.must(err)
			n++
		}
	}
	first := fill()
	if first < 2000 {
		t.Errorf("only %d files of 2000 bytes fit into 32 MiB", first)
	}
	w.close()
	testenv.Check(t, w.paths...)
	w.open()
	for i := range first + 1 { // the last one may be there, without bytes
		tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 12, Deleting: true})
		w.must(err)
		tree, err := fstree.Open(w.ctx, tx, ondisk.FSTree)
		w.must(err)
		err = tree.Unlink(w.ctx, fstree.RootIno, fmt.Appendf(nil, "small-%d", i))
		w.must(tx.End(w.ctx))
		if i < first {
			w.must(err)
		}
	}
	w.must(w.m.Commit(w.ctx))
	if again := fill(); again < first*9/10 {
		t.Errorf("%d files fit at first, %d afterwards", first, again)
	}
	w.close()
	testenv.Check(t, w.paths...)
}

// small makes a file with a few bytes.
func (w *world) small(name string, data []byte) error {
	tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 6})
	if err != nil {
		return err
	}
	var ino uint64
	t, err := fstree.Open(w.ctx, tx, ondisk.FSTree)
	if err == nil {
		ino, err = t.Create(w.ctx, fstree.RootIno, []byte(name), fstree.Attr{Mode: fstree.ModeFile | 0o644})
	}
	if err = errors.Join(err, tx.End(w.ctx)); err != nil {
		return err
	}
	f := filedata.NewWriter(w.m, ondisk.FSTree, ino, filedata.WriterOptions{})
	if err := f.WriteAt(w.ctx, data, 0); err != nil {
		return err
	}
	return f.Flush(w.ctx)
}
