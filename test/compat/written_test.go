package compat

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// writes are the types of items that gobtrfs makes. Quota items it only marks, and items of received subvolumes it makes
// only for their snapshots: TestKept.
var writes = []ondisk.KeyType{
	ondisk.TypeInodeItem, ondisk.TypeInodeRef, ondisk.TypeInodeExtref, ondisk.TypeXattrItem, ondisk.TypeOrphanItem, ondisk.TypeDirItem, ondisk.TypeDirIndex,
	ondisk.TypeExtentData, ondisk.TypeExtentCsum, ondisk.TypeRootItem, ondisk.TypeRootBackref, ondisk.TypeRootRef, ondisk.TypeExtentItem,
	ondisk.TypeMetadataItem, ondisk.TypeTreeBlockRef, ondisk.TypeExtentDataRef, ondisk.TypeSharedBlockRef, ondisk.TypeSharedDataRef,
	ondisk.TypeBlockGroupItem, ondisk.TypeFreeSpaceInfo, ondisk.TypeFreeSpaceExtent, ondisk.TypeFreeSpaceBitmap, ondisk.TypeDevExtent, ondisk.TypeDevItem,
	ondisk.TypeChunkItem, ondisk.TypePersistentItem, ondisk.TypeUUIDSubvol,
}

// TestItemTypes makes a volume in which gobtrfs has written an item of every type that it writes; btrfs check has
// nothing to say about it.
func TestItemTypes(t *testing.T) {
	image := filepath.Join(testenv.Scratch(t), "types.img")
	f, err := os.Create(image)
	must(t, err)
	must(t, f.Truncate(256*mib))
	must(t, f.Close())
	d, err := device.OpenFile(image, device.Options{})
	must(t, err)
	_, err = mkfs.Make(ctx, []device.Device{d}, mkfs.Options{Nodesize: 4096})
	must(t, err)
	must(t, d.Close())
	v, err := btrfs.Open(ctx, image, btrfs.Options{})
	must(t, err)
	manyFiles(t, v)
	manyClones(t, v)
	manyTrees(t, v)
	must(t, v.Close())
	counts := countAll(t, []string{image})
	for _, want := range writes {
		if counts[want.String()] == 0 {
			t.Errorf("no %v was written", want)
		}
	}
	if extra := len(counts) - len(writes); extra > 0 {
		t.Errorf("%d types that are not listed: %v", extra, counts)
	}
	testenv.Check(t, image)
}

// manyFiles makes names, attributes, and free space in many pieces.
func manyFiles(t *testing.T, v *btrfs.Volume) {
	t.Helper()
	top := v.Top()
	must(t, top.Mkdir("dir", 0o755))
	for i := range 400 {
		must(t, top.WriteFile(fmt.Sprintf("dir/%d", i), make([]byte, 4096), 0o644))
	}
	must(t, top.SetXattr("dir", "user.name", []byte("value")))
	for i := range 200 {
		must(t, top.Link("dir/0", fmt.Sprintf("dir/another-rather-long-name-of-it-%d", i)))
	}
	must(t, v.Commit(ctx))
	for i := 1; i < 400; i += 2 {
		must(t, top.Remove(fmt.Sprintf("dir/%d", i)))
	}
}

// manyClones makes more references to an extent than its item holds.
func manyClones(t *testing.T, v *btrfs.Volume) {
	t.Helper()
	must(t, v.Top().WriteFile("source", bytes.Repeat([]byte("gobtrfs "), 8192), 0o644))
	src, err := v.Top().OpenFile("source", os.O_RDONLY, 0)
	must(t, err)
	for i := range 80 {
		f, err := v.Top().Create(fmt.Sprintf("clone%d", i))
		must(t, err)
		must(t, f.CloneRange(0, src, 0, 65536))
		must(t, f.Close())
	}
	must(t, src.Close())
}

// manyTrees makes snapshots of snapshots, and drops those in the middle, so that blocks and extents get shared
// references, more than their items hold. One is left dead.
func manyTrees(t *testing.T, v *btrfs.Volume) {
	t.Helper()
	s, err := v.CreateSubvolume(ctx, "/s")
	must(t, err)
	for i := range 1500 { // three levels of nodes
		data := []byte("small")
		if i == 50 {
			data = make([]byte, 4096)
		}
		must(t, s.WriteFile(fmt.Sprintf("file-%03d", i), data, 0o644))
	}
	dead := []string{"/s"}
	for i := range 80 {
		middle := fmt.Sprintf("/middle%d", i)
		m, err := v.Snapshot(ctx, "/s", middle, false)
		must(t, err)
		must(t, m.Chmod("file-050", 0o600))
		must(t, v.Commit(ctx))
		_, err = v.Snapshot(ctx, middle, fmt.Sprintf("/kept%d", i), true)
		must(t, err)
		dead = append(dead, middle)
	}
	must(t, v.Commit(ctx))
	must(t, v.DeleteSubvolumes(ctx, dead))
	_, err = v.Drop(ctx, btrfs.DropOptions{})
	must(t, err)
	must(t, v.DeleteSubvolumes(ctx, []string{"/kept0"}))
}

// countAll counts the items of all trees by type.
func countAll(t *testing.T, paths []string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for k := range allItems(t, paths) {
		counts[k.Type.String()]++
	}
	return counts
}

// item is the key of an item, and the tree it is in.
type item struct {
	ondisk.Key
	tree ondisk.TreeID
}

// allItems gives all items of the volume's trees, but for those of half-dropped ones.
func allItems(t *testing.T, paths []string) map[item]string {
	t.Helper()
	v, err := volume.Open(ctx, openFiles(t, paths, true), volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	defer v.Close()
	all := map[item]string{}
	trees := []ondisk.TreeID{ondisk.RootTree, ondisk.ChunkTree}
	must(t, roots.All(ctx, v.RootTree(), func(k ondisk.Key, r ondisk.RootItem) error {
		if r.DropProgress.IsZero() {
			trees = append(trees, ondisk.TreeID(k.Objectid))
		}
		return nil
	}))
	for _, id := range trees {
		tree := v.RootTree()
		switch id {
		case ondisk.RootTree:
		case ondisk.ChunkTree:
			tree = v.ChunkTree()
		default:
			tree, err = v.Tree(ctx, id)
			must(t, err)
		}
		c, err := tree.Seek(ctx, ondisk.Key{})
		for ; err == nil && c.Valid(); err = c.Next(ctx) {
			all[item{c.Key(), id}] = string(c.Data())
		}
		must(t, err)
	}
	return all
}

// kept are items that gobtrfs does not make, volumes of the corpus that have them, and whether they may change.
var kept = map[string]struct {
	types   []ondisk.KeyType
	changes bool
}{
	"verity":          {types: []ondisk.KeyType{ondisk.TypeVerityDesc, ondisk.TypeVerityMerkle}},
	"balance-paused":  {types: []ondisk.KeyType{ondisk.TypeTemporaryItem}},
	"device-replaced": {types: []ondisk.KeyType{ondisk.TypeDevReplace, ondisk.TypePersistentItem}},
	"space-cache-v1":  {types: []ondisk.KeyType{ondisk.TypeUntyped}},
	"received":        {types: []ondisk.KeyType{ondisk.TypeUUIDReceivedSubvol}},
	"quota":           {types: []ondisk.KeyType{ondisk.TypeQgroupStatus, ondisk.TypeQgroupInfo, ondisk.TypeQgroupLimit, ondisk.TypeQgroupRelation}, changes: true},
}

// TestKept: items that gobtrfs only knows stay as they are when the volume is written, but for quotas, which are marked
// as inconsistent.
func TestKept(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		t.Run(name, func(t *testing.T) {
			paths := testenv.Images(t, name)
			before := allItems(t, paths)
			v, err := btrfs.Open(ctx, strings.Join(paths, ","), btrfs.Options{})
			must(t, err)
			change(t, v)
			must(t, v.Close())
			after, seen := allItems(t, paths), map[ondisk.KeyType]bool{}
			for k, want := range before {
				if !slices.Contains(kept[name].types, k.Type) {
					continue
				}
				seen[k.Type] = true
				if got, ok := after[k]; !ok || got != want && k.Type != ondisk.TypeQgroupStatus {
					t.Errorf("%v in tree %v: %x, was %x", k.Key, k.tree, got, want)
				}
			}
			if len(seen) != len(kept[name].types) {
				t.Errorf("only %v were there", seen)
			}
			if kept[name].changes {
				s, err := ondisk.DecodeQgroupStatus([]byte(after[item{ondisk.Key{Type: ondisk.TypeQgroupStatus}, ondisk.QuotaTree}]))
				if err != nil || s.Flags&ondisk.QgroupInconsistent == 0 {
					t.Errorf("quotas are not marked: %+v, %v", s, err)
				}
			}
		})
	}
}

// TestReceivedSnapshot: a read-only snapshot of a received subvolume is received too, as the kernel has it; a writable
// one is not.
func TestReceivedSnapshot(t *testing.T) {
	image := testenv.Image(t, "received")
	v, err := btrfs.Open(ctx, image, btrfs.Options{})
	must(t, err)
	list, err := v.Subvolumes(ctx)
	must(t, err)
	i := slices.IndexFunc(list, func(s btrfs.SubvolumeInfo) bool { return s.ReceivedUUID != btrfs.UUID{} })
	for name, ro := range map[string]bool{"/ro": true, "/rw": false} {
		_, err := v.Snapshot(ctx, list[i].Path, name, ro)
		must(t, err)
		s, err := v.SubvolumeInfo(ctx, name)
		must(t, err)
		if (s.ReceivedUUID == list[i].ReceivedUUID) != ro {
			t.Errorf("%s: received uuid %v", name, s.ReceivedUUID)
		}
	}
	must(t, v.Close())
	testenv.Check(t, image)
}
