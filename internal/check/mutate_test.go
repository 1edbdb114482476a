package check_test

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

var le = binary.LittleEndian

// harm is one rule broken on purpose.
type harm struct {
	name  string
	image string
	tree  ondisk.TreeID
	match func(k ondisk.Key, b []byte) bool // the first such item
	edit  func(b ondisk.Block, slot int)
	want  string // part of a finding
}

func put64(off int, v uint64) func(ondisk.Block, int) {
	return func(b ondisk.Block, slot int) { le.PutUint64(b.Item(slot)[off:], v) }
}

func add64(off int, d uint64) func(ondisk.Block, int) {
	return func(b ondisk.Block, slot int) {
		p := b.Item(slot)[off:]
		le.PutUint64(p, le.Uint64(p)+d)
	}
}

func setKey(change func(k *ondisk.Key)) func(ondisk.Block, int) {
	return func(b ondisk.Block, slot int) {
		k := b.Key(slot)
		change(&k)
		b.SetKey(slot, k)
	}
}

// lastKey changes the key of the last slot, so that the order stays.
func lastKey(change func(k *ondisk.Key)) func(ondisk.Block, int) {
	return func(b ondisk.Block, _ int) { setKey(change)(b, b.NrItems()-1) }
}

func typ(t ondisk.KeyType) func(ondisk.Key, []byte) bool {
	return func(k ondisk.Key, _ []byte) bool { return k.Type == t }
}

// inodeOf matches inodes of a type, other than the root directory.
func inodeOf(mode uint32) func(ondisk.Key, []byte) bool {
	return func(k ondisk.Key, b []byte) bool {
		return k.Type == ondisk.TypeInodeItem && k.Objectid > 256 && le.Uint32(b[52:])&0o170000 == mode && le.Uint64(b[16:]) > 0
	}
}

// regular matches extents with data outside of the tree.
func regular(k ondisk.Key, b []byte) bool {
	return k.Type == ondisk.TypeExtentData && b[20] == ondisk.ExtentReg && le.Uint64(b[21:]) != 0
}

// treeBlock matches extent items of blocks with a TREE_BLOCK_REF of tree 5.
func treeBlock(k ondisk.Key, b []byte) bool {
	return k.Type == ondisk.TypeMetadataItem && len(b) == 33 && b[24] == byte(ondisk.TypeTreeBlockRef) && le.Uint64(b[25:]) == 5
}

func data(k ondisk.Key, b []byte) bool {
	return k.Type == ondisk.TypeExtentItem && le.Uint64(b[16:]) == ondisk.ExtentFlagData && b[24] == byte(ondisk.TypeExtentDataRef)
}

func shared(t ondisk.KeyType) func(ondisk.Key, []byte) bool {
	return func(k ondisk.Key, b []byte) bool {
		return (k.Type == ondisk.TypeExtentItem || k.Type == ondisk.TypeMetadataItem) && b[24] == byte(t)
	}
}

var harms = []harm{
	{"refs", "default", 2, treeBlock, add64(0, 1), "says 2 references, has 1 back references, 1 found"},
	{"owner", "default", 2, treeBlock, put64(25, 300), "recorded 1, found 0"},
	{"level", "default", 2, treeBlock, setKey(func(k *ondisk.Key) { k.Offset = 3 }), "extent item says level 3"},
	{"full", "default", 2, treeBlock, add64(16, 0x100), "full back references in a block made after the last snapshot"},
	{"not full", "full-backrefs", 2, shared(ondisk.TypeSharedDataRef), add64(25, 65536), "SHARED_DATA_REF parent"},
	{"data inode", "default", 2, data, add64(33, 1), "EXTENT_DATA_REF root 5 inode"},
	{"data count", "default", 2, data, func(b ondisk.Block, s int) { b.Item(s)[49]++; b.Item(s)[0]++ }, " 4 back references, 3 found"},
	{"used", "default", 11, typ(ondisk.TypeBlockGroupItem), add64(0, ^uint64(4095)), "block group says"},
	{"group type", "default", 11, typ(ondisk.TypeBlockGroupItem), put64(16, 4), "has no block group like it"},
	{"index", "default", 5, typ(ondisk.TypeDirIndex), func(b ondisk.Block, s int) {
		for b.Key(s+1).Type == ondisk.TypeDirIndex {
			s++
		}
		k := b.Key(s)
		k.Offset += 100
		b.SetKey(s, k)
	}, "entry and inode tell different indexes"},
	{"entry type", "default", 5, typ(ondisk.TypeDirIndex), func(b ondisk.Block, s int) { b.Item(s)[29] ^= 4 }, "tell different types"},
	{"entry inode", "default", 5, typ(ondisk.TypeDirIndex), add64(0, 1000), "lead to different inodes"},
	{"nlink", "default", 5, inodeOf(0o100000), func(b ondisk.Block, s int) { b.Item(s)[40]++ }, "links, has"},
	{"nbytes", "default", 5, inodeOf(0o100000), add64(24, 4096), "nbytes"},
	{"symlink", "default", 5, inodeOf(0o120000), add64(16, 5), "symlink of"},
	{"directory size", "default", 5, inodeOf(0o040000), add64(16, 2), "directory size"},
	{"type of inode", "default", 5, inodeOf(0o100000), func(b ondisk.Block, s int) { b.Item(s)[53] = 0x10 | b.Item(s)[53]&0xf }, "entry and inode tell different types"},
	{"nodatasum", "default", 5, func(k ondisk.Key, b []byte) bool { return inodeOf(0o100000)(k, b) && le.Uint64(b[24:]) > 4096 }, add64(64, 1), "marked nodatasum"},
	{"file extent place", "default", 5, regular, add64(21, 4096), "recorded 0, found 1"},
	{"file extent nowhere", "default", 5, regular, add64(21, 1<<30), "the extent tree does not know it"},
	{"file extent length", "default", 5, regular, add64(45, 4096), "file extent of"},
	{"checksums", "default", 7, typ(ondisk.TypeExtentCsum), setKey(func(k *ondisk.Key) { k.Offset += 1 << 20 }), "without checksums"},
	{"stray checksums", "default", 7, typ(ondisk.TypeExtentCsum), lastKey(func(k *ondisk.Key) { k.Offset += 1 << 30 }), "checksums of bytes that are no data"},
	{"checksum", "default", 7, typ(ondisk.TypeExtentCsum), add64(0, 1), "copy 1 of the data does not match"},
	{"free extent", "default", 10, typ(ondisk.TypeFreeSpaceExtent), setKey(func(k *ondisk.Key) { k.Offset -= 4096 }), "the tree says"},
	{"free count", "default", 10, typ(ondisk.TypeFreeSpaceInfo), func(b ondisk.Block, s int) { b.Item(s)[0]++ }, "free extents, has"},
	{"bitmap", "fst-bitmaps", 10, typ(ondisk.TypeFreeSpaceBitmap), func(b ondisk.Block, s int) { b.Item(s)[100] ^= 8 }, "the tree says"},
	{"device extent", "default", 4, typ(ondisk.TypeDevExtent), add64(16, 65536), "belongs to no stripe"},
	{"device used", "default", 3, typ(ondisk.TypeDevItem), add64(16, ^uint64(65535)), "its extents add up to"},
	{"root refs", "subvolumes", 1, func(k ondisk.Key, b []byte) bool {
		return k.Type == ondisk.TypeRootItem && k.Objectid > 255 && k.Objectid < 1<<40
	},
		func(b ondisk.Block, s int) { b.Item(s)[216] = 0 }, "no orphan item"},
	{"root ref", "subvolumes", 1, typ(ondisk.TypeRootRef), add64(8, 1), "no ROOT_BACKREF"},
	{"root name", "subvolumes", 1, typ(ondisk.TypeRootBackref), func(b ondisk.Block, s int) { b.Item(s)[18] ^= 1 }, "no ROOT_REF"},
	{"orphan", "orphans", 5, typ(ondisk.TypeOrphanItem), lastKey(func(k *ondisk.Key) { k.Offset += 1 << 20 }), "no orphan item"},
	{"quota", "quota", 8, func(k ondisk.Key, b []byte) bool {
		return k.Type == ondisk.TypeQgroupInfo && k.Offset>>48 == 0 && le.Uint64(b[8:]) > 0
	},
		add64(24, 4096), "exclusive; counted"},
	{"hole", "holes-items", 5, func(k ondisk.Key, b []byte) bool { return regular(k, b) && k.Offset == 0 }, add64(45, ^uint64(4095)), "ranges of the file have no extent"},
}

// TestHarm breaks one rule at a time in copies of sound volumes, checksums made
// good again, and expects to be told.
func TestHarm(t *testing.T) {
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) {
			image := testenv.Image(t, h.image)
			hurt(t, image, h)
			r := judge(t, image)
			text := ""
			for _, f := range r.Findings {
				text += f.String() + "\n"
			}
			if r.OK() || !strings.Contains(text, h.want) {
				t.Errorf("want %q, got %d errors:\n%s", h.want, r.Errors, text)
			}
		})
	}
}

// hurt changes the first matching item of a tree and writes all copies of the
// leaf.
func hurt(t *testing.T, image string, h harm) {
	t.Helper()
	ctx := context.Background()
	d, err := device.OpenFile(image, device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := v.Tree(ctx, h.tree)
	if err != nil {
		t.Fatal(err)
	}
	cur, err := tree.Seek(ctx, ondisk.Key{})
	for err == nil && cur.Valid() && !h.match(cur.Key(), cur.Data()) {
		err = cur.Next(ctx)
	}
	if err != nil || !cur.Valid() {
		t.Fatalf("no such item in the image: %v", err)
	}
	b := append(ondisk.Block(nil), cur.Leaf().Data()...)
	h.edit(b, cur.Slot())
	checksum.Sum(v.CsumType(), b[:v.CsumType().Size()], b[32:])
	if err := v.IO().Write(ctx, b.Bytenr(), b); err != nil {
		t.Fatal(err)
	}
}

// TestSuperblock: totals in the superblock are judged.
func TestSuperblock(t *testing.T) {
	for want, change := range map[string]func(sb *ondisk.Superblock){
		"bytes used": func(sb *ondisk.Superblock) { sb.BytesUsed += 4096 },
		"devices":    func(sb *ondisk.Superblock) { sb.NumDevices = 2 },
	} {
		image := testenv.Image(t, "default")
		d, err := device.OpenFile(image, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
		if err != nil {
			t.Fatal(err)
		}
		sb := *v.Super()
		change(&sb)
		if err := v.WriteSupers(ctx, &sb); err != nil {
			t.Fatal(err)
		}
		d.Close()
		r := judge(t, image)
		if r.OK() || !strings.Contains(r.Findings[0].String(), want) {
			t.Errorf("%s: %v", want, r.Findings)
		}
	}
}

// TestWork: each block is read once, however many snapshots share it.
func TestWork(t *testing.T) {
	v, err := open(t, testenv.ReadImages(t, "snap30")...)
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	r, err := check.Check(context.Background(), v, check.Options{Progress: func(string, uint64) {}})
	if err != nil || !r.OK() {
		t.Fatal(err, r.Findings)
	}
	ext, err := v.Tree(context.Background(), ondisk.ExtentTree)
	if err != nil {
		t.Fatal(err)
	}
	cur, err := ext.Seek(context.Background(), ondisk.Key{})
	for ; err == nil && cur.Valid(); err = cur.Next(context.Background()) {
		if cur.Key().Type == ondisk.TypeMetadataItem {
			blocks++
		}
	}
	if s := v.Store().Stats(); s.Misses > int64(blocks)*3/2 {
		t.Errorf("%d blocks read for a volume of %d", s.Misses, blocks)
	}
}
