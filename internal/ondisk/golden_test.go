package ondisk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// fromHex reads hex with spaces; "*N" stands for N zero bytes.
func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for _, f := range strings.Fields(s) {
		if n, ok := strings.CutPrefix(f, "*"); ok {
			k := 0
			for _, d := range n {
				k = k*10 + int(d-'0')
			}
			out = append(out, make([]byte, k)...)
			continue
		}
		b, err := hex.DecodeString(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

// The bytes below come from volumes that Linux and btrfs-progs made.

const (
	fsidW  = "00e9cbd48a594808be469c365e096233"
	devW   = "a38ce04551a741a7b441138302a1b632"
	chunkW = "a4f3291bf1e44c2f84e19e627d7d0675"
)

func mustUUID(s string) UUID {
	u, err := ParseUUID(s)
	if err != nil {
		panic("bad UUID in a test")
	}
	return u
}

func TestGoldenHeader(t *testing.T) {
	b := Block(append(fromHex(t, "9c8e0881 *28 "+fsidW+" 0090d10100000000 0100000000000001 "+chunkW+" 0700000000000000 0001000000000000 17000000 00"), make([]byte, 4096-101)...))
	if b.FSID() != mustUUID(fsidW) || b.Bytenr() != 30511104 || b.ChunkTreeUUID() != mustUUID(chunkW) || b.Generation() != 7 ||
		b.Owner() != 256 || b.NrItems() != 23 || b.Level() != 0 || !b.IsWritten() || b.IsReloc() {
		t.Errorf("%v %d %v %d %d %d %d", b.FSID(), b.Bytenr(), b.ChunkTreeUUID(), b.Generation(), b.Owner(), b.NrItems(), b.Level())
	}
	c := Block(make([]byte, 4096))
	copy(c.Csum(), b.Csum())
	c.SetFSID(b.FSID())
	c.SetBytenr(b.Bytenr())
	c.SetFlags(HeaderFlagsNew | FlagWritten)
	c.SetChunkTreeUUID(b.ChunkTreeUUID())
	c.SetGeneration(b.Generation())
	c.SetOwner(b.Owner())
	c.SetNrItems(b.NrItems())
	c.SetLevel(0)
	if !bytes.Equal(b, c) {
		t.Errorf("written: %x", []byte(c[:HeaderSize]))
	}
}

// golden is an item: its bytes, what they mean, and the two directions.
type golden struct {
	name   string
	hex    string
	want   any
	decode func(b []byte) (any, error)
	encode func(v any) []byte
}

// of adapts a decoder and an encoder.
func of[T any](decode func([]byte) (T, error), encode func(T) []byte) (func([]byte) (any, error), func(any) []byte) {
	return func(b []byte) (any, error) { return decode(b) }, func(v any) []byte { return encode(v.(T)) }
}

func extent(k Key) (func([]byte) (any, error), func(any) []byte) {
	return of(func(b []byte) (Extent, error) { return DecodeExtent(k, b) }, func(e Extent) []byte { return e.Append(nil) })
}

func goldens() []golden {
	var gs []golden
	add := func(name, hex string, want any, decode func([]byte) (any, error), encode func(any) []byte) {
		gs = append(gs, golden{name, hex, want, decode, encode})
	}
	k := Key{30507008, TypeMetadataItem, 0}
	d, e := extent(k)
	add("shared block", "0200000000000000 0700000000000000 0200000000000000 b00101000000000000 b00001000000000000",
		Extent{Key: k, ExtentItem: ExtentItem{2, 7, ExtentFlagTreeBlock}, Refs: []InlineRef{
			{Type: TypeTreeBlockRef, Root: 257, Count: 1}, {Type: TypeTreeBlockRef, Root: 256, Count: 1},
		}}, d, e)
	k = Key{30511104, TypeMetadataItem, 0}
	d, e = extent(k)
	add("full block", "0100000000000000 0700000000000000 0201000000000000 b00101000000000000",
		Extent{Key: k, ExtentItem: ExtentItem{1, 7, ExtentFlagTreeBlock | ExtentFlagFullBackref}, Refs: []InlineRef{{Type: TypeTreeBlockRef, Root: 257, Count: 1}}}, d, e)
	k = Key{13631488, TypeExtentItem, 8192}
	d, e = extent(k)
	add("shared data", `0200000000000000 0700000000000000 0100000000000000 b2 0001000000000000 0101000000000000 0000000000000000 01000000
		b8 0090d10100000000 01000000`,
		Extent{Key: k, ExtentItem: ExtentItem{2, 7, ExtentFlagData}, Refs: []InlineRef{
			{Type: TypeExtentDataRef, Root: 256, Objectid: 257, Count: 1}, {Type: TypeSharedDataRef, Parent: 30511104, Count: 1},
		}}, d, e)
	d, e = of(DecodeDevItem, func(v DevItem) []byte { return v.Append(nil) })
	add("device", `0100000000000000 0000002000000000 0000800500000000 00100000 00100000 00100000 *8 *8 *8 00000000 00 00 `+devW+" "+fsidW,
		DevItem{DevID: 1, TotalBytes: 512 << 20, BytesUsed: 92274688, IOAlign: 4096, IOWidth: 4096, SectorSize: 4096, UUID: mustUUID(devW), FSID: mustUUID(fsidW)}, d, e)
	d, e = of(DecodeChunkItem, func(v ChunkItem) []byte { return v.Append(nil) })
	add("chunk", `0000800000000000 0200000000000000 0000010000000000 2200000000000000 00000100 00000100 00100000 0200 0100
		0100000000000000 0000500100000000 `+devW+` 0100000000000000 0000d00100000000 `+devW,
		ChunkItem{
			Length: 8 << 20, Owner: 2, StripeLen: StripeLen, Type: BlockGroupSystem | BlockGroupDUP, IOAlign: 65536, IOWidth: 65536,
			SectorSize: 4096, SubStripes: 1, Stripes: []Stripe{{1, 22020096, mustUUID(devW)}, {1, 30408704, mustUUID(devW)}},
		}, d, e)
	d, e = of(DecodeDevExtent, func(v DevExtent) []byte { return v.Append(nil) })
	add("device extent", "0300000000000000 0001000000000000 0000500100000000 0000800000000000 "+chunkW,
		DevExtent{ChunkTree, 256, 22020096, 8 << 20, mustUUID(chunkW)}, d, e)
	d, e = of(DecodeRootItem, func(v RootItem) []byte { return v.Append(nil) })
	add("root", `*160 0a00000000000000 0001000000000000 00f0d20100000000 *8 0040000000000000 0800000000000000 *8 01000000 *17 00 01
		0a00000000000000 bdfbdde4051a294b96ddf54db45f4773 bf1539558bce124a89c0cbc980c3fd5f *16 0a00000000000000 0800000000000000 *16
		a647046b00000000d540700b a547046b000000001a648138 *88`,
		RootItem{
			Generation: 10, RootDirid: 256, Bytenr: 30601216, BytesUsed: 16384, LastSnapshot: 8, Refs: 1, Level: 1, GenerationV2: 10,
			UUID: mustUUID("bdfbdde4051a294b96ddf54db45f4773"), ParentUUID: mustUUID("bf1539558bce124a89c0cbc980c3fd5f"), Ctransid: 10, Otransid: 8,
			Ctime: Timespec{1795442598, 191906005}, Otime: Timespec{1795442597, 948003866},
		}, d, e)
	d, e = of(DecodeRootRef, func(v RootRef) []byte { return v.Append(nil) })
	add("root ref", "0001000000000000 0300000000000000 0100 42", RootRef{256, 3, []byte("B")}, d, e)
	d, e = of(DecodeDirEntries, func(v []DirEntry) []byte {
		var b []byte
		for _, x := range v {
			b = AppendDirEntry(b, x)
		}
		return b
	})
	add("directory entry", "0501000000000000 01 0000000000000000 0700000000000000 0000 0300 01 663035",
		[]DirEntry{{Key{261, TypeInodeItem, 0}, 7, FTFile, []byte("f05"), []byte{}}}, d, e)
	add("xattr", "*17 0700000000000000 0300 0800 08 757365722e666f6f 626172", []DirEntry{{Key{}, 7, FTXattr, []byte("user.foo"), []byte("bar")}}, d, e)
	d, e = of(DecodeInodeItem, func(v InodeItem) []byte { return v.Append(nil) })
	add("inode", `0700000000000000 0700000000000000 0020000000000000 0020000000000000 *8 01000000 00000000 00000000 a4810000 *8 *8 ca00000000000000 *80`,
		InodeItem{Generation: 7, Transid: 7, Size: 8192, Nbytes: 8192, Nlink: 1, Mode: 0o100644, Sequence: 202}, d, e)
	d, e = of(DecodeFileExtent, func(v FileExtent) []byte { return v.Append(nil) })
	add("file extent", "0700000000000000 0020000000000000 00 00 0000 01 0080d00000000000 0020000000000000 *8 0020000000000000",
		FileExtent{Generation: 7, RAMBytes: 8192, Type: ExtentReg, DiskBytenr: 13664256, DiskNumBytes: 8192, NumBytes: 8192}, d, e)
	add("inline", "0700000000000000 0500000000000000 00 00 0000 00 68656c6c6f", FileExtent{Generation: 7, RAMBytes: 5, Inline: []byte("hello")}, d, e)
	d, e = of(DecodeInodeRefs, func(v []InodeRef) []byte {
		var b []byte
		for _, x := range v {
			b = AppendInodeRef(b, x)
		}
		return b
	})
	add("inode ref", "0300000000000000 0300 686c31 0400000000000000 0300 686c32", []InodeRef{{3, []byte("hl1")}, {4, []byte("hl2")}}, d, e)
	d, e = of(DecodeBalanceItem, func(v BalanceItem) []byte { return v.Append(nil) })
	add("balance", "0500000000000000 *8 3200000000000000 *48 0200000000000000 *64 *136 *136 *32",
		BalanceItem{Flags: BalanceData | BalanceMetadata, Data: BalanceArgs{Usage: 50, Flags: BalanceArgUsage}}, d, e)
	return gs
}

func TestGoldenItems(t *testing.T) {
	for _, g := range goldens() {
		b := fromHex(t, g.hex)
		got, err := g.decode(b)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if !reflect.DeepEqual(got, g.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", g.name, got, g.want)
		}
		if w := g.encode(g.want); !bytes.Equal(w, b) {
			t.Errorf("%s: written\n%x, want\n%x", g.name, w, b)
		}
		for n := range b {
			g.decode(b[:n]) // short ones must not panic
		}
	}
}

func TestKeyOrder(t *testing.T) {
	keys := []Key{{}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}, {1, 255, ^uint64(0)}, {2, 0, 0}, {^uint64(0), 255, ^uint64(0)}}
	for i, a := range keys {
		for j, b := range keys {
			if (a.Compare(b) < 0) != (i < j) || a.Less(b) != (i < j) {
				t.Errorf("%v and %v", a, b)
			}
		}
		if n := a.Next(); a != MaxKey() && !a.Less(n) {
			t.Errorf("%v.Next() = %v", a, n)
		}
		if got := DecodeKey(a.Append(nil)); got != a {
			t.Errorf("%v became %v", a, got)
		}
	}
	if (Key{1, 255, ^uint64(0)}).Next() != (Key{Objectid: 2}) {
		t.Error("Next does not carry")
	}
}

// TestBlockSearch compares Search with going through all slots.
func TestBlockSearch(t *testing.T) {
	b := Block(make([]byte, 4096))
	for i := range 20 {
		b.SetItemHead(i, Key{uint64(i/3) * 10, KeyType(i % 3), uint64(i)}, uint32(LeafData(4096)), 0)
	}
	b.SetNrItems(20)
	for o := range uint64(80) {
		for typ := range KeyType(4) {
			k := Key{o, typ, o % 21}
			want := 0
			for want < 20 && b.Key(want).Less(k) {
				want++
			}
			got, exact := b.Search(k)
			if got != want || exact != (want < 20 && b.Key(want) == k) {
				t.Fatalf("%v: slot %d %v, want %d", k, got, exact, want)
			}
		}
	}
}

// others are decoders without golden bytes.
func others() []func(b []byte) error {
	return []func([]byte) error{
		errorOf(DecodeInodeExtrefs), errorOf(DecodeExtentDataRef), errorOf(DecodeSharedDataRef), errorOf(DecodeBlockGroupItem),
		errorOf(DecodeFreeSpaceInfo), errorOf(DecodeDevStats), errorOf(DecodeQgroupStatus), errorOf(DecodeQgroupInfo),
		errorOf(DecodeQgroupLimit), errorOf(DecodeDevReplace),
	}
}

func errorOf[T any](decode func([]byte) (T, error)) func([]byte) error {
	return func(b []byte) error { _, err := decode(b); return err }
}

// FuzzItems: no bytes make a decoder panic, a complaint tells what is wrong, and what was read is written as bytes that
// mean the same.
func FuzzItems(f *testing.F) {
	gs, rest := goldens(), others()
	for i, g := range gs {
		f.Add(uint8(i), fromHex(f, g.hex))
	}
	for i := range rest {
		f.Add(uint8(len(gs)+i), make([]byte, 40))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		n := int(which) % (len(gs) + len(rest))
		if n >= len(gs) {
			complains(t, rest[n-len(gs)](b))
			return
		}
		g := gs[n]
		v, err := g.decode(b)
		if err != nil {
			complains(t, err)
			return
		}
		again, err := g.decode(g.encode(v))
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Errorf("%s: %+v became %+v, %v", g.name, v, again, err)
		}
	})
}

// complains wants err, if there is one, to tell what is wrong.
func complains(t *testing.T, err error) {
	t.Helper()
	var bad *CorruptError
	if err != nil && (!errors.As(err, &bad) || bad.What == "" || bad.Reason == "") {
		t.Errorf("%v does not tell what is wrong", err)
	}
}

// FuzzSuper: no bytes make it panic, a complaint tells what is wrong, and it reads what it wrote.
func FuzzSuper(f *testing.F) {
	f.Add(make([]byte, SuperSize))
	s := &Superblock{Bytenr: 65536, Sectorsize: 4096, Nodesize: 16384, Leafsize: 16384, Stripesize: 4096, NumDevices: 1, TotalBytes: 1 << 30, Label: "x"}
	b := make([]byte, SuperSize)
	if err := s.Encode(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, name := range []string{"metadata-uuid", "prof-raid10.d2"} {
		f.Add(superOf(f, "../../testdata/corpus/images/"+name+".img.zst"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) > 72 {
			copy(b[64:], SuperMagic)
		}
		s, err := DecodeSuper(b)
		if err != nil {
			complains(t, err)
			return
		}
		out := make([]byte, SuperSize)
		if err := s.Encode(out); err != nil {
			t.Fatal(err)
		}
		again, err := DecodeSuper(out)
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}
