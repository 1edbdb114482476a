package treecheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

type item struct {
	key  ondisk.Key
	body []byte
}

const (
	incompat = ondisk.IncompatSkinnyMetadata | ondisk.IncompatNoHoles
	superGen = 100
)

func context() Context {
	return Context{Nodesize: 4096, Sectorsize: 4096, SuperGeneration: superGen, Incompat: incompat, CsumSize: 4}
}

func leafOf(owner ondisk.TreeID, items ...item) ondisk.Block {
	b := ondisk.Block(make([]byte, 4096))
	b.SetBytenr(1 << 20)
	b.SetOwner(owner)
	b.SetFlags(ondisk.HeaderFlagsNew | ondisk.FlagWritten)
	end := ondisk.LeafData(4096)
	for i, it := range items {
		end -= len(it.body)
		b.SetItemHead(i, it.key, uint32(end), uint32(len(it.body)))
		copy(b[ondisk.HeaderSize+end:], it.body)
	}
	b.SetNrItems(len(items))
	return b
}

func key(o uint64, t ondisk.KeyType, f uint64) ondisk.Key {
	return ondisk.Key{Objectid: o, Type: t, Offset: f}
}

func inode() item {
	return item{key(257, ondisk.TypeInodeItem, 0), ondisk.InodeItem{Generation: 5, Mode: 0o100644, Nlink: 1}.Append(nil)}
}

func extentItem(t ondisk.KeyType, off uint64, flags, refs uint64, in ...ondisk.InlineRef) item {
	k := key(1<<22, t, off)
	e := ondisk.Extent{Key: k, ExtentItem: ondisk.ExtentItem{Refs: refs, Generation: 5, Flags: flags}, Refs: in}
	return item{k, e.Append(nil)}
}

func fileExtent(off uint64) item {
	e := ondisk.FileExtent{Type: ondisk.ExtentReg, DiskBytenr: 1 << 22, DiskNumBytes: 8192, RAMBytes: 8192, NumBytes: 8192}
	return item{key(257, ondisk.TypeExtentData, off), e.Append(nil)}
}

func dirItem(name string) item {
	e := ondisk.DirEntry{Location: key(258, ondisk.TypeInodeItem, 0), Type: ondisk.FTFile, Name: []byte(name)}
	return item{key(257, ondisk.TypeDirItem, uint64(checksum.NameHash([]byte(name)))), ondisk.AppendDirEntry(nil, e)}
}

func chunk() item {
	c := ondisk.ChunkItem{
		Length: 1 << 23, Owner: 2, StripeLen: ondisk.StripeLen, Type: ondisk.BlockGroupSystem | ondisk.BlockGroupDUP, SectorSize: 4096,
		SubStripes: 1, Stripes: make([]ondisk.Stripe, 2),
	}
	return item{key(256, ondisk.TypeChunkItem, 1<<22), c.Append(nil)}
}

var tbr = func(root uint64) ondisk.InlineRef {
	return ondisk.InlineRef{Type: ondisk.TypeTreeBlockRef, Root: ondisk.TreeID(root), Count: 1}
}

func put64(off int, v uint64) func(b ondisk.Block) {
	return func(b ondisk.Block) { binary.LittleEndian.PutUint64(b.Item(b.NrItems() - 1)[off:], v) }
}

func put8(off int, v byte) func(b ondisk.Block) {
	return func(b ondisk.Block) { b.Item(b.NrItems() - 1)[off] = v }
}

// TestRules breaks one thing at a time in blocks that are right before.
func TestRules(t *testing.T) {
	dev := item{key(1, ondisk.TypeDevItem, 1), ondisk.DevItem{DevID: 1, TotalBytes: 100, BytesUsed: 50}.Append(nil)}
	group := item{
		key(1<<22, ondisk.TypeBlockGroupItem, 1<<23),
		ondisk.BlockGroupItem{Used: 4096, ChunkObjectid: 256, Flags: ondisk.BlockGroupData}.Append(nil),
	}
	root := item{key(256, ondisk.TypeRootItem, 0), ondisk.RootItem{Generation: 5, GenerationV2: 5, Bytenr: 1 << 20}.Append(nil)}
	info := item{key(1<<22, ondisk.TypeFreeSpaceInfo, 1<<23), ondisk.FreeSpaceInfo{ExtentCount: 1}.Append(nil)}
	bitmap := item{key(1<<22, ondisk.TypeFreeSpaceBitmap, 1<<23), make([]byte, 256)}
	block := extentItem(ondisk.TypeMetadataItem, 0, ondisk.ExtentFlagTreeBlock, 2, tbr(257), tbr(256))
	data := extentItem(ondisk.TypeExtentItem, 8192, ondisk.ExtentFlagData, 1,
		ondisk.InlineRef{Type: ondisk.TypeExtentDataRef, Root: 256, Objectid: 257, Count: 1})
	for _, c := range []struct {
		name  string
		owner ondisk.TreeID
		items []item
		harm  func(b ondisk.Block)
	}{
		{"level", 5, []item{inode()}, func(b ondisk.Block) { b.SetLevel(8) }},
		{"owner", 5, []item{inode()}, func(b ondisk.Block) { b.SetOwner(0) }},
		{"not written", 5, []item{inode()}, func(b ondisk.Block) { b.SetFlags(ondisk.HeaderFlagsNew) }},
		{"count", 5, []item{inode()}, func(b ondisk.Block) { b.SetNrItems(200) }},
		{"empty", 5, []item{inode()}, func(b ondisk.Block) { b.SetNrItems(0) }},
		{"order", 5, []item{inode(), fileExtent(0)}, func(b ondisk.Block) { b.SetKey(1, key(257, 1, 0)) }},
		{"gap", 5, []item{inode(), fileExtent(0)}, func(b ondisk.Block) {
			b.SetItemHead(1, b.Key(1), uint32(b.ItemOffset(1)), uint32(b.ItemLen(1)-1))
		}},
		{"inode missing", 256, []item{inode(), fileExtent(0)}, func(b ondisk.Block) { b.SetKey(1, key(258, ondisk.TypeExtentData, 0)) }},
		{"inode generation", 5, []item{inode()}, put64(0, superGen+2)},
		{"inode transid", 5, []item{inode()}, put64(8, superGen+2)},
		{"inode mode", 5, []item{inode()}, put64(52, 0o170000)},
		{"inode flags", 5, []item{inode()}, put64(64, 1<<20)},
		{"inode offset", 5, []item{inode()}, func(b ondisk.Block) { b.SetKey(0, key(257, 1, 1)) }},
		{"hash", 5, []item{inode(), dirItem("name")}, put8(30, 'N')},
		{"entry type", 5, []item{inode(), dirItem("name")}, put8(29, 9)},
		{"entry is xattr", 5, []item{inode(), dirItem("name")}, put8(29, ondisk.FTXattr)},
		{"entry name length", 5, []item{inode(), dirItem("name")}, put8(27, 5)},
		{"entry location", 5, []item{inode(), dirItem("name")}, put8(8, 7)},
		{"file offset", 5, []item{inode(), fileExtent(0)}, func(b ondisk.Block) { b.SetKey(1, key(257, ondisk.TypeExtentData, 1)) }},
		{"overlap", 5, []item{inode(), fileExtent(0), fileExtent(8192)}, func(b ondisk.Block) {
			b.SetKey(2, key(257, ondisk.TypeExtentData, 4096))
		}},
		{"raid stripe", 5, []item{inode(), fileExtent(0)}, func(b ondisk.Block) { b.SetKey(1, key(257, ondisk.TypeRaidStripe, 0)) }},
		{"extent type", 5, []item{inode(), fileExtent(0)}, put8(20, 3)},
		{"compression", 5, []item{inode(), fileExtent(0)}, put8(16, 4)},
		{"extent length", 5, []item{inode(), fileExtent(0)}, put64(45, 8191)},
		{"extent overflow", 5, []item{inode(), fileExtent(4096)}, put64(45, ^uint64(4095))},
		{"refs 0", 2, []item{block}, put64(0, 0)},
		{"refs fewer than inline", 2, []item{block}, put64(0, 1)},
		{"inline order", 2, []item{block}, put64(25, 255)},
		{"inline type", 2, []item{block}, put8(24, 180)},
		{"both kinds", 2, []item{block}, put64(16, 3)},
		{"full data", 2, []item{data}, put64(16, 0x101)},
		{"data root", 2, []item{data}, put64(25, 7)},
		{"data count", 2, []item{data}, put8(49, 0)},
		{"data offset", 2, []item{data}, put64(41, 5)},
		{"extents overlap", 2, []item{data, {key(1<<22+8192, ondisk.TypeMetadataItem, 0), block.body}}, func(b ondisk.Block) {
			b.SetKey(1, key(1<<22+4096, ondisk.TypeMetadataItem, 0))
		}},
		{"root bytenr", 1, []item{root}, put64(176, 5)},
		{"root level", 1, []item{root}, put8(238, 8)},
		{"root flags", 1, []item{root}, put64(208, 2)},
		{"root generation", 1, []item{root}, put64(160, superGen+2)},
		{"group used", 11, []item{group}, put64(0, 1<<24)},
		{"group profile", 11, []item{group}, put64(16, ondisk.BlockGroupData|ondisk.BlockGroupRAID1|ondisk.BlockGroupDUP)},
		{"group mixed", 11, []item{group}, put64(16, ondisk.BlockGroupData|ondisk.BlockGroupMetadata)},
		{"chunk stripes", 3, []item{chunk()}, put64(24, ondisk.BlockGroupSystem)},
		{"chunk stripe length", 3, []item{chunk()}, put64(16, 4096)},
		{"chunk sector", 3, []item{chunk()}, put8(41, 0)},
		{"chunk length", 3, []item{chunk()}, put64(0, 1<<52)},
		{"device id", 3, []item{dev}, put64(0, 2)},
		{"device used", 3, []item{dev}, put64(16, 101)},
		{"info flags", 10, []item{info}, put8(4, 2)},
		{"info count", 10, []item{info}, put64(0, 5000)},
		{"bitmap size", 10, []item{bitmap}, func(b ondisk.Block) { b.SetKey(0, key(1<<22, ondisk.TypeFreeSpaceBitmap, 1<<24)) }},
	} {
		b := leafOf(c.owner, c.items...)
		if err := Check(b, context()); err != nil {
			t.Errorf("%s: right block refused: %v", c.name, err)
			continue
		}
		c.harm(b)
		err := Check(b, context())
		var corrupt *ondisk.CorruptError
		if !errors.As(err, &corrupt) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestNode(t *testing.T) {
	b := ondisk.Block(make([]byte, 4096))
	b.SetBytenr(4096)
	b.SetOwner(5)
	b.SetFlags(ondisk.HeaderFlagsNew | ondisk.FlagWritten)
	b.SetLevel(1)
	b.SetNrItems(2)
	b.SetPtr(0, key(1, 1, 1), 4096, 7)
	b.SetPtr(1, key(2, 1, 1), 8192, 7)
	if err := Check(b, context()); err != nil {
		t.Error(err)
	}
	for name, harm := range map[string]func(){
		"none":       func() { b.SetNrItems(0) },
		"many":       func() { b.SetNrItems(122) },
		"unaligned":  func() { b.SetPtr(1, key(2, 1, 1), 8193, 7) },
		"zero":       func() { b.SetPtr(0, key(1, 1, 1), 0, 7) },
		"descending": func() { b.SetKey(1, key(1, 1, 1)) },
	} {
		keep := append(ondisk.Block(nil), b...)
		harm()
		if Check(b, context()) == nil {
			t.Errorf("%s: passed", name)
		}
		copy(b, keep)
	}
}

// TestNoAllocation: the gate is on every read.
func TestNoAllocation(t *testing.T) {
	b := leafOf(256, inode(), dirItem("name"), fileExtent(0), fileExtent(8192))
	if n := testing.AllocsPerRun(100, func() {
		if Check(b, context()) != nil {
			t.Fatal("refused")
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// decodes gives the error of reading an item; nil for kinds that have no reader.
func decodes(key ondisk.Key, b []byte) error {
	var err error
	switch key.Type {
	case ondisk.TypeInodeItem:
		_, err = ondisk.DecodeInodeItem(b)
	case ondisk.TypeInodeRef:
		_, err = ondisk.DecodeInodeRefs(b)
	case ondisk.TypeInodeExtref:
		_, err = ondisk.DecodeInodeExtrefs(b)
	case ondisk.TypeXattrItem, ondisk.TypeDirItem, ondisk.TypeDirIndex:
		_, err = ondisk.DecodeDirEntries(b)
	case ondisk.TypeExtentData:
		_, err = ondisk.DecodeFileExtent(b)
	case ondisk.TypeRootItem:
		_, err = ondisk.DecodeRootItem(b)
	case ondisk.TypeRootRef, ondisk.TypeRootBackref:
		_, err = ondisk.DecodeRootRef(b)
	case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
		_, err = ondisk.DecodeExtent(key, b)
	case ondisk.TypeBlockGroupItem:
		_, err = ondisk.DecodeBlockGroupItem(b)
	case ondisk.TypeFreeSpaceInfo:
		_, err = ondisk.DecodeFreeSpaceInfo(b)
	case ondisk.TypeChunkItem:
		_, err = ondisk.DecodeChunkItem(b)
	case ondisk.TypeDevItem:
		_, err = ondisk.DecodeDevItem(b)
	case ondisk.TypeDevExtent:
		_, err = ondisk.DecodeDevExtent(b)
	}
	return err
}

// FuzzCheck: a complaint tells where, and what passes needs no looking at again: keys ascend, searches find them,
// pointers lead somewhere, items can be read.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(leafOf(2, extentItem(ondisk.TypeMetadataItem, 0, ondisk.ExtentFlagTreeBlock, 2, tbr(257), tbr(256)))))
	seen := map[ondisk.KeyType]bool{}
	for _, name := range []string{"node-4k", "half-drop-quota"} { // blocks with kinds of items that were not seen before
		scan(f, "../../testdata/corpus/images/"+name+".img.zst", func(b ondisk.Block, _ Context) {
			before := len(seen)
			for i := range b.NrItems() {
				if b.Level() == 0 {
					seen[b.Key(i).Type] = true
				}
			}
			if len(seen) > before || b.Level() == 2 {
				f.Add(bytes.Clone(b))
			}
		})
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b := ondisk.Block(make([]byte, 4096))
		copy(b, p)
		c := context()
		c.SuperGeneration = 1 << 20
		if err := Check(b, c); err != nil {
			var bad *ondisk.CorruptError
			if !errors.As(err, &bad) || bad.Bytenr != b.Bytenr() || bad.What == "" || bad.Reason == "" || bad.Slot >= b.NrItems() {
				t.Errorf("%#v does not tell what is wrong where", err)
			}
			return
		}
		for i := range b.NrItems() {
			k := b.Key(i)
			if slot, exact := b.Search(k); slot != i || !exact {
				t.Errorf("key %v of slot %d is found in slot %d", k, i, slot)
			}
			if b.Level() > 0 {
				if at, _ := b.Ptr(i); at == 0 || at%4096 != 0 {
					t.Errorf("slot %d leads to %d", i, at)
				}
			} else if err := decodes(k, b.Item(i)); err != nil {
				t.Errorf("%v passed: %v", k, err)
			}
		}
	})
}
