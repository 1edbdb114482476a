package extent

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/btree/btreetest"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestSweepModel takes out all references by random parents, with other changes on the way, and compares with a plain map.
func TestSweepModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(uint64(testenv.Seed(t, 2)), 0))
	ctx := context.Background()
	many := 0
	for range testenv.Rounds(40) {
		v := btreetest.NewVolume(4096, 0)
		tree, err := v.NewTree(ondisk.ExtentTree)
		if err != nil {
			t.Fatal(err)
		}
		x := New(Config{Store: v.Store, Tree: func(context.Context, ondisk.TreeID) (*btree.Tree, error) { return tree, nil }})
		x.gen, x.windowLeaves, x.partLeaves = 2, 1+rng.IntN(6), 1+rng.IntN(3)
		want := model{}
		for range 1 + rng.IntN(30) {
			applyTo(t, x, tree, want.random(rng))
		}
		parents := &ref.Set{}
		for range rng.IntN(60) {
			parents.Add(ondisk.Bytenr(4096 * (1 + rng.IntN(60))))
		}
		surveyed(t, x, want, parents)
		lost := uint64(0)
		for r, n := range want {
			if r.Parent != 0 && parents.Has(r.Parent) {
				lost += uint64(n)
				delete(want, r)
			}
		}
		cs := want.losing(rng)
		var works []work
		swept := uint64(0)
		from, windows := ondisk.Key{}, 0
		for more := true; more; more = from != (ondisk.Key{}) {
			if works, from, err = x.sweepWindow(ctx, tree, from, &cs, parents, works, nil); err != nil {
				t.Fatal(err)
			}
			for i := range works {
				if err := tree.Apply(ctx, works[i].ops); err != nil {
					t.Fatal(err)
				}
				swept += works[i].swept
			}
			windows++
		}
		want.compare(t, tree)
		if swept != lost || len(cs) > 0 {
			t.Fatalf("swept %d references, want %d; %d changes left", swept, lost, len(cs))
		}
		if windows > 2 {
			many++
		}
	}
	if many < 5 {
		t.Errorf("only %d trees had more than two windows", many)
	}
}

// surveyed compares Survey with a count.
func surveyed(t *testing.T, x *Extents, m model, parents *ref.Set) {
	t.Helper()
	for _, data := range []bool{false, true} {
		want := map[ondisk.Bytenr]uint64{}
		for r, n := range m {
			if r.Kind.IsData() == data && r.Parent != 0 && parents.Has(r.Parent) {
				want[r.At] += uint64(n)
			}
		}
		last := ondisk.Bytenr(0)
		err := x.Survey(context.Background(), parents, data, nil, func(l ref.Loss) error {
			if l.At <= last || l.N != want[l.At] {
				t.Errorf("extent %d after %d: %d references, want %d", l.At, last, l.N, want[l.At])
			}
			last = l.At
			delete(want, l.At)
			return nil
		})
		if err != nil || len(want) > 0 {
			t.Fatalf("%v; not told: %v", err, want)
		}
	}
}

// losing gives up some references of extents that exist, and does so to the model.
func (m model) losing(rng *rand.Rand) []ref.Change {
	var cs []ref.Change
	for r, n := range m {
		if rng.IntN(4) == 0 {
			cs = append(cs, ref.Change{Ref: r, Delta: -int32(n)})
			delete(m, r)
		}
	}
	return ref.Merge(cs)
}

// TestSweepOfUnknown: changes of extents that are not there are corruption, wherever they come in the order.
func TestSweepOfUnknown(t *testing.T) {
	ctx := context.Background()
	v := btreetest.NewVolume(4096, 0)
	tree, err := v.NewTree(ondisk.ExtentTree)
	if err != nil {
		t.Fatal(err)
	}
	x := New(Config{Store: v.Store, Tree: func(context.Context, ondisk.TreeID) (*btree.Tree, error) { return tree, nil }})
	applyTo(t, x, tree, []ref.Change{{Ref: ref.Ref{At: at, Len: 4096, Kind: ref.KindData, Root: 5, Ino: 257}, Delta: 1}})
	for _, a := range []ondisk.Bytenr{4096, at + 4096} {
		cs := []ref.Change{{Ref: ref.Ref{At: a, Len: 4096, Kind: ref.KindData, Root: 5, Ino: 257}, Delta: -1}}
		var corrupt *ondisk.CorruptError
		if _, _, err := x.sweepWindow(ctx, tree, ondisk.Key{}, &cs, &ref.Set{}, nil, nil); !errors.As(err, &corrupt) || corrupt.Bytenr != a {
			t.Errorf("change at %d: %v", a, err)
		}
	}
}
