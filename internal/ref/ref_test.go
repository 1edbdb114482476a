package ref

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// leaf builds a leaf with one file extent per given (inode, file offset, disk
// address, offset in extent).
func leaf(owner ondisk.TreeID, es ...[4]uint64) ondisk.Block {
	b := ondisk.Block(make([]byte, 4096))
	b.SetBytenr(30511104)
	b.SetOwner(owner)
	end := ondisk.LeafData(len(b))
	for i, e := range es {
		body := ondisk.FileExtent{
			Type: ondisk.ExtentReg, DiskBytenr: ondisk.Bytenr(e[2]), DiskNumBytes: 8192, RAMBytes: 8192, Offset: e[3], NumBytes: 4096,
		}.Append(nil)
		end -= len(body)
		b.SetItemHead(i, ondisk.Key{Objectid: e[0], Type: ondisk.TypeExtentData, Offset: e[1]}, uint32(end), uint32(len(body)))
		copy(b[ondisk.HeaderSize+end:], body)
		b.SetNrItems(i + 1)
	}
	return b
}

func TestOfLeaf(t *testing.T) {
	b := leaf(256, [4]uint64{257, 0, 0, 0}, [4]uint64{257, 4096, 65536, 0}, [4]uint64{258, 0, 65536, 4096})
	got, err := Of(b, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Ref{
		{At: 65536, Len: 8192, Kind: KindData, Root: 256, Ino: 257, Offset: 4096},
		{At: 65536, Len: 8192, Kind: KindData, Root: 256, Ino: 258, Offset: ^uint64(4095)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("by owner:\n got %+v\nwant %+v", got, want)
	}
	full := Ref{At: 65536, Len: 8192, Kind: KindSharedData, Parent: 30511104}
	if got, _ = Of(b, true, nil); !reflect.DeepEqual(got, []Ref{full, full}) {
		t.Errorf("by parent: got %+v", got)
	}
	b.SetOwner(ondisk.CsumTree)
	if got, _ = Of(b, false, nil); len(got) != 0 {
		t.Errorf("the checksum tree refers to data: %+v", got)
	}
	b.SetOwner(ondisk.RootTree)
	if got, _ = Of(b, false, nil); len(got) != 2 || got[0].Root != ondisk.RootTree {
		t.Errorf("root tree: got %+v", got)
	}
}

func TestOfNode(t *testing.T) {
	b := ondisk.Block(make([]byte, 4096))
	b.SetBytenr(1 << 20)
	b.SetOwner(ondisk.ExtentTree)
	b.SetLevel(2)
	b.SetPtr(0, ondisk.Key{}, 4096, 7)
	b.SetPtr(1, ondisk.Key{Objectid: 9}, 8192, 8)
	b.SetNrItems(2)
	got, _ := Of(b, false, nil)
	want := []Ref{
		{At: 4096, Len: 4096, Kind: KindTreeBlock, Level: 1, Root: ondisk.ExtentTree},
		{At: 8192, Len: 4096, Kind: KindTreeBlock, Level: 1, Root: ondisk.ExtentTree},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	got, _ = Of(b, true, nil)
	if got[0] != (Ref{At: 4096, Len: 4096, Kind: KindSharedBlock, Level: 1, Parent: 1 << 20}) {
		t.Errorf("by parent: %+v", got[0])
	}
}

func TestOfReportsShortItem(t *testing.T) {
	b := leaf(256, [4]uint64{257, 0, 65536, 0})
	b.SetItemHead(0, b.Key(0), uint32(b.ItemOffset(0)), 30)
	_, err := Of(b, false, nil)
	c, ok := err.(*ondisk.CorruptError)
	if !ok || c.Slot != 0 || c.Bytenr != 30511104 {
		t.Errorf("got %v", err)
	}
}

// TestMergeKeepsSums: whatever the order, the sums per reference stay and zero
// sums vanish.
func TestMergeKeepsSums(t *testing.T) {
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 200 {
		var cs []Change
		sums := map[Ref]int32{}
		for range rnd.IntN(40) {
			r := Ref{At: ondisk.Bytenr(rnd.IntN(4)), Kind: KindData, Root: ondisk.TreeID(rnd.IntN(2)), Ino: uint64(rnd.IntN(2))}
			d := int32(rnd.IntN(3) - 1)
			cs = append(cs, Change{Ref: r, Delta: d})
			sums[r] += d
		}
		got := Merge(cs)
		for i, c := range got {
			if c.Delta == 0 || c.Delta != sums[c.Ref] {
				t.Fatalf("seed %d round %d: %+v, want %d", seed, round, c, sums[c.Ref])
			}
			if i > 0 && Compare(got[i-1].Ref, c.Ref) >= 0 {
				t.Fatalf("seed %d round %d: not sorted", seed, round)
			}
			delete(sums, c.Ref)
		}
		for r, d := range sums {
			if d != 0 {
				t.Fatalf("seed %d round %d: lost %+v %d", seed, round, r, d)
			}
		}
	}
	if got := Merge([]Change{{SetFull: true}}); len(got) != 1 {
		t.Error("SetFull without references was dropped")
	}
}
