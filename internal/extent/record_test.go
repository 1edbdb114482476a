package extent

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/btree/btreetest"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

const at = ondisk.Bytenr(13631488)

// TestGoldenItems: bodies are those of real volumes (FORMAT, golden vectors).
func TestGoldenItems(t *testing.T) {
	for _, c := range []struct {
		name string
		gen  ondisk.Generation
		refs []ref.Change
		key  ondisk.Key
		want string
	}{
		{"block of two trees", 7, []ref.Change{
			{Ref: ref.Ref{At: 30507008, Kind: ref.KindTreeBlock, Root: 256}, Delta: 1},
			{Ref: ref.Ref{At: 30507008, Kind: ref.KindTreeBlock, Root: 257}, Delta: 1},
		}, ondisk.Key{Objectid: 30507008, Type: ondisk.TypeMetadataItem}, "0200000000000000 0700000000000000 0200000000000000 b00101000000000000 b00001000000000000"},
		{"data by owner and by parent", 7, []ref.Change{
			{Ref: ref.Ref{At: at, Kind: ref.KindData, Root: 256, Ino: 257}, Delta: 1},
			{Ref: ref.Ref{At: at, Kind: ref.KindSharedData, Parent: 30511104}, Delta: 1},
		}, ondisk.Key{Objectid: uint64(at), Type: ondisk.TypeExtentItem, Offset: 8192}, "0200000000000000 0700000000000000 0100000000000000 b2 0001000000000000 0101000000000000 0000000000000000 01000000 b8 0090d10100000000 01000000"},
		{"hashes descend", 7, []ref.Change{
			{Ref: ref.Ref{At: at, Kind: ref.KindData, Root: 256, Ino: 265}, Delta: 1},
			{Ref: ref.Ref{At: at, Kind: ref.KindData, Root: 257, Ino: 265}, Delta: 1},
		}, ondisk.Key{Objectid: uint64(at), Type: ondisk.TypeExtentItem, Offset: 8192}, "0200000000000000 0700000000000000 0100000000000000 b2 0101000000000000 0901000000000000 0000000000000000 01000000 b2 0001000000000000 0901000000000000 0000000000000000 01000000"},
		{"block with FULL_BACKREF", 7, []ref.Change{
			{Ref: ref.Ref{At: 30511104, Kind: ref.KindTreeBlock, Root: 257}, Delta: 1, SetFull: true},
		}, ondisk.Key{Objectid: 30511104, Type: ondisk.TypeMetadataItem}, "0100000000000000 0700000000000000 0201000000000000 b00101000000000000"},
	} {
		var r record
		if err := r.change(c.refs, c.gen); err != nil {
			t.Fatal(err)
		}
		r.key = c.key
		r.place(992)
		if got, want := hex.EncodeToString(r.body(nil)), strings.ReplaceAll(c.want, " ", ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
}

// TestInlineLimit: as in the kernel, 33 references fit inline on 16 KiB nodes and the 34th gets an item of its own.
func TestInlineLimit(t *testing.T) {
	var cs []ref.Change
	for i := range 40 {
		cs = append(cs, ref.Change{Ref: ref.Ref{At: at, Kind: ref.KindData, Root: 5, Ino: uint64(257 + i)}, Delta: 1})
	}
	var r record
	if err := r.change(cs, 7); err != nil {
		t.Fatal(err)
	}
	r.key = ondisk.Key{Objectid: uint64(at), Type: ondisk.TypeExtentItem, Offset: 4096}
	r.place(16283>>4 - 25)
	if n := len(r.body(nil)); n != 981 {
		t.Errorf("item of %d bytes, want 981", n)
	}
	if r.keyed != 7 {
		t.Errorf("%d references with items of their own, want 7", r.keyed)
	}
}

// model is what the references of some extents should be.
type model map[ref.Ref]int64

// TestModel applies random changes to an extent tree and compares all that is in it with a plain map.
func TestModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(uint64(testenv.Seed(t, 1)), 0))
	ctx := context.Background()
	v := btreetest.NewVolume(4096, 0)
	tree, err := v.NewTree(ondisk.ExtentTree)
	if err != nil {
		t.Fatal(err)
	}
	x := &Extents{size: 4096, cfg: Config{}, gen: 2}
	want := model{}
	for range testenv.Rounds(60) {
		cs := want.random(rng)
		applyTo(t, x, tree, cs)
		want.compare(t, tree)
		if err := v.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// All at once.
	var cs []ref.Change
	for r, n := range want {
		cs = append(cs, ref.Change{Ref: r, Delta: -int32(n)})
	}
	applyTo(t, x, tree, ref.Merge(cs))
	model{}.compare(t, tree)
}

// applyTo does what a pass does, without a volume around it.
func applyTo(t *testing.T, x *Extents, tree *btree.Tree, cs []ref.Change) {
	t.Helper()
	ctx := context.Background()
	c, err := tree.Seek(ctx, ondisk.Key{})
	if err != nil {
		t.Fatal(err)
	}
	var w work
	for i := 0; i < len(cs); {
		j := i + 1
		for j < len(cs) && cs[j].At == cs[i].At {
			j++
		}
		if err := w.rec.read(ctx, c, cs[i].At); err != nil {
			t.Fatal(err)
		}
		if err := x.one(&w, cs[i].At, cs[i:j], nil); err != nil {
			t.Fatal(err)
		}
		i = j
	}
	if err := tree.Apply(ctx, w.ops); err != nil {
		t.Fatal(err)
	}
}

// random makes changes that are possible, and does them to the model.
func (m model) random(rng *rand.Rand) []ref.Change {
	var cs []ref.Change
	for range 1 + rng.IntN(200) {
		// Few extents, so that some get far more references than fit inline.
		e := rng.IntN(20)
		r := ref.Ref{At: ondisk.Bytenr(1<<20 + e*8192), Len: 8192, Kind: ref.KindData, Root: ondisk.TreeID(256 + rng.IntN(4)), Ino: uint64(257 + rng.IntN(20)), Offset: uint64(rng.IntN(2) * 4096)}
		switch {
		case e%4 == 3:
			r = ref.Ref{At: r.At, Len: 4096, Kind: ref.KindTreeBlock, Root: ondisk.TreeID(256 + rng.IntN(60))}
			if rng.IntN(2) == 0 {
				r.Kind, r.Root, r.Parent = ref.KindSharedBlock, 0, ondisk.Bytenr(4096*(1+rng.IntN(60)))
			}
		case rng.IntN(3) == 0:
			r = ref.Ref{At: r.At, Len: 8192, Kind: ref.KindSharedData, Parent: ondisk.Bytenr(4096 * (1 + rng.IntN(60)))}
		}
		if m[r] > 0 && (rng.IntN(3) > 0 || r.Kind == ref.KindTreeBlock || r.Kind == ref.KindSharedBlock) {
			n := 1 + rng.Int64N(m[r])
			cs = append(cs, ref.Change{Ref: r, Delta: int32(-n)})
			if m[r] -= n; m[r] == 0 {
				delete(m, r)
			}
			continue
		}
		m[r]++
		cs = append(cs, ref.Change{Ref: r, Delta: 1})
	}
	return ref.Merge(cs)
}

// compare reads every extent of the tree.
func (m model) compare(t *testing.T, tree *btree.Tree) {
	t.Helper()
	ctx := context.Background()
	c, err := tree.Seek(ctx, ondisk.Key{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for c.Valid() {
		var r record
		if err := r.read(ctx, c, ondisk.Bytenr(c.Key().Objectid)); err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, e := range r.entries {
			e.Len = 8192
			if !e.Kind.IsData() {
				e.Len = 4096
			}
			if m[e.Ref] != e.count {
				t.Fatalf("%+v has count %d, want %d", e.Ref, e.count, m[e.Ref])
			}
			sum += e.count
			seen++
		}
		if sum != int64(r.item.Refs) || sum == 0 {
			t.Fatalf("%v has %d references, the parts add up to %d", r.key, r.item.Refs, sum)
		}
	}
	if seen != len(m) {
		t.Fatalf("%d references, want %d", seen, len(m))
	}
}

// TestUnknownReference: giving up what is not there is corruption, and nothing else.
func TestUnknownReference(t *testing.T) {
	var r record
	err := r.change([]ref.Change{{Ref: ref.Ref{At: at, Kind: ref.KindData, Root: 5, Ino: 257}, Delta: -1}}, 7)
	if err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("got %v", err)
	}
}
