package filedata_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// TestReusedPlaceIsReadAgain: a step of a drop applies references in the middle of a
// transaction, after which a place that the transaction itself gave up can hold other
// bytes, with the same generation. What a Reader keeps must not be taken for them.
func TestReusedPlaceIsReadAgain(t *testing.T) {
	w := newWorld(t, "empty", 1)
	w.opt.Compression = ondisk.CompressZlib
	f := w.create("file", 0)
	var r *filedata.Reader
	seen := map[ondisk.Bytenr]bool{}
	reused := false
	for i := range 8 {
		want := bytes.Repeat(fmt.Appendf(nil, "%08d", i), 16<<10)
		w.must(f.w.WriteAt(w.ctx, want, 0))
		_, list := w.extents(f)
		at := list[0].DiskBytenr
		reused = reused || seen[at]
		seen[at] = true

		trees, err := w.m.Tree(w.ctx, ondisk.FSTree)
		w.must(err)
		csums, err := w.m.Tree(w.ctx, ondisk.CsumTree)
		w.must(err)
		if r == nil {
			r, err = filedata.NewReader(w.ctx, w.v, trees, csums, f.ino)
			w.must(err)
		}
		got := make([]byte, len(want))
		_, err = r.Rebind(trees, csums).ReadAt(w.ctx, got, 0)
		w.must(err)
		if !bytes.Equal(got, want) {
			t.Fatalf("round %d: read %q, want %q", i, got[:8], want[:8])
		}
		tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 1})
		w.must(err)
		w.must(tx.ApplyBulk(w.ctx, nil))
		w.must(tx.End(w.ctx))
	}
	if !reused || w.m.Commits() > 0 {
		t.Errorf("no place was used again in the transaction")
	}
	f.data = bytes.Repeat([]byte("00000007"), 16<<10)
	w.verify()
}
