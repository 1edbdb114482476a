package compat

import (
	"os"
	"slices"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// shorten cuts the root items of all subvolumes but the top-level one to what they were before Linux 3.6, and tells how
// many.
func shorten(t *testing.T, image string) (n int) {
	t.Helper()
	v, err := volume.Open(ctx, openFiles(t, []string{image}, false), volume.Options{SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	m, err := transaction.Open(ctx, v, transaction.Options{})
	must(t, err)
	tx, err := m.Begin(ctx, transaction.Need{Items: 1000})
	must(t, err)
	var keys []ondisk.Key
	must(t, roots.All(ctx, tx.RootTree(), func(k ondisk.Key, _ ondisk.RootItem) error {
		if k.Objectid >= ondisk.FirstFreeObjectid && ondisk.TreeID(k.Objectid).IsSubvolume() {
			keys = append(keys, k)
		}
		return nil
	}))
	for _, k := range keys {
		b, err := tx.RootTree().Get(ctx, k)
		must(t, err)
		must(t, tx.RootTree().Put(ctx, k, append([]byte(nil), b[:ondisk.RootItemSizeLegacy]...)))
	}
	must(t, tx.End(ctx))
	must(t, m.Close(ctx))
	must(t, v.Close())
	return len(keys)
}

// sizes counts the root items of subvolumes by their size.
func sizes(t *testing.T, image string) map[int]int {
	t.Helper()
	out := map[int]int{}
	for k, b := range allItems(t, []string{image}) {
		if k.Type == ondisk.TypeRootItem && k.Objectid >= ondisk.FirstFreeObjectid && ondisk.TreeID(k.Objectid).IsSubvolume() {
			out[len(b)]++
		}
	}
	return out
}

// TestOldRootItems: root items of 239 bytes, as Linux wrote them before 3.6, are read, and grow when their trees are
// changed; the kernel goes on with both.
func TestOldRootItems(t *testing.T) {
	image := testenv.Image(t, "legacy")
	n := shorten(t, image)
	if got := sizes(t, image); n < 3 || got[ondisk.RootItemSizeLegacy] != n {
		t.Fatalf("%d items shortened: %v", n, got)
	}
	v, err := btrfs.Open(ctx, image, btrfs.Options{})
	must(t, err)
	same(t, v, testenv.ReadManifest(t, "legacy", ""))
	list, err := v.Subvolumes(ctx)
	must(t, err)
	list = slices.DeleteFunc(list, func(s btrfs.SubvolumeInfo) bool { return s.ID < ondisk.FirstFreeObjectid })
	changed, source, gone := list[0].Path, list[1].Path, list[2].Path
	sub, err := v.Subvolume(ctx, changed)
	must(t, err)
	must(t, sub.WriteFile("by-gobtrfs", []byte("text"), 0o644))
	_, err = v.Snapshot(ctx, source, "/of-an-old-one", false)
	must(t, err)
	must(t, v.DeleteSubvolumes(ctx, []string{gone}))
	_, err = v.Drop(ctx, btrfs.DropOptions{})
	must(t, err)
	must(t, v.Close())
	if got := sizes(t, image); got[ondisk.RootItemSizeLegacy] == 0 || got[ondisk.RootItemSize] < 2 {
		t.Errorf("items by size: %v", got)
	}
	if r := verdictOf(t, image); len(r) > 0 {
		t.Errorf("check: %q", r)
	}
	dir := testenv.Mount(t, []string{image}, "subvolid=5")
	if b, err := os.ReadFile(dir + "/" + changed + "/by-gobtrfs"); string(b) != "text" {
		t.Errorf("the kernel reads %q: %v", b, err)
	}
	testenv.Umount(t, dir)
	testenv.Check(t, image)
}

func verdictOf(t *testing.T, image string) []string {
	t.Helper()
	v, err := btrfs.Open(ctx, image, btrfs.Options{ReadOnly: true})
	must(t, err)
	defer v.Close()
	return verdict(t, v)
}
