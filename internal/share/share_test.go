package share

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

var ctx = context.Background()

// forest is some trees with common blocks and extents.
type forest struct {
	roots []drop.Root
	nodes map[ondisk.Bytenr]drop.Node
	level map[ondisk.Bytenr]uint8
	size  map[ondisk.Bytenr]uint64 // of data extents
	refs  map[ondisk.Bytenr]uint64
	mu    sync.Mutex
	reads map[ondisk.Bytenr]int
}

func (f *forest) Node(_ context.Context, p drop.Ptr, _ []ref.Ref) (drop.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads[p.At]++
	return f.nodes[p.At], nil
}

func (f *forest) Prefetch(context.Context, []drop.Ptr) {}

func (f *forest) Lookup(_ context.Context, at []ondisk.Bytenr, out []ref.Info) error {
	for i, a := range at {
		if i > 0 && at[i-1] >= a {
			return errors.New("look-ups are not sorted")
		}
		out[i] = ref.Info{At: a, Refs: f.refs[a], Found: f.refs[a] > 0}
	}
	return nil
}

// Block and Data charge what can be told from other costs.
func (f *forest) Block(at ondisk.Bytenr) uint64 { return uint64(at) % 7 }

func (f *forest) Data(_ context.Context, at ondisk.Bytenr, n uint64) (uint64, uint64, error) {
	return n * 2, n / 8, nil
}

// random makes a history: each tree begins as a copy of the one before it, and gets new blocks on some paths, with new or old extents. Addresses
// are drawn, so their order says nothing.
func random(rng *rand.Rand, trees int) *forest {
	f := &forest{nodes: map[ondisk.Bytenr]drop.Node{}, level: map[ondisk.Bytenr]uint8{}, size: map[ondisk.Bytenr]uint64{}, refs: map[ondisk.Bytenr]uint64{}, reads: map[ondisk.Bytenr]int{}}
	var extents []ondisk.Bytenr
	fresh := func() ondisk.Bytenr {
		for {
			at := ondisk.Bytenr(rng.Uint64N(1<<30)) << 12
			if f.refs[at] == 0 {
				f.refs[at] = 1
				return at
			}
		}
	}
	data := func() ref.Ref {
		if len(extents) > 0 && rng.IntN(3) == 0 {
			at := extents[rng.IntN(len(extents))]
			return ref.Ref{At: at, Len: f.size[at]}
		}
		at := fresh()
		f.size[at] = 1 << 12 << rng.IntN(5)
		extents = append(extents, at)
		return ref.Ref{At: at, Len: f.size[at]}
	}
	var rewrite func(old ondisk.Bytenr, level uint8) ondisk.Bytenr
	rewrite = func(old ondisk.Bytenr, level uint8) ondisk.Bytenr {
		at := fresh()
		f.level[at] = level
		var n drop.Node
		if level == 0 {
			for _, r := range f.nodes[old].Data {
				if rng.IntN(4) > 0 {
					n.Data = append(n.Data, r)
				}
			}
			n.Data = append(n.Data, data())
		} else {
			n.Ptrs = slices.Clone(f.nodes[old].Ptrs)
			if len(n.Ptrs) == 0 {
				n.Ptrs = make([]drop.Ptr, 1+rng.IntN(4))
			}
			for i := range n.Ptrs {
				if n.Ptrs[i].At == 0 || rng.IntN(3) == 0 {
					n.Ptrs[i] = drop.Ptr{At: rewrite(n.Ptrs[i].At, level-1), Level: level - 1}
				}
			}
		}
		f.nodes[at] = n
		return at
	}
	last := ondisk.Bytenr(0)
	for i := range trees {
		if i%5 == 4 {
			last = 0 // another subvolume
		}
		last = rewrite(last, 3)
		f.roots = append(f.roots, drop.Root{ID: ondisk.TreeID(256 + i), Block: drop.Ptr{At: last, Level: 3}})
	}
	f.recount()
	return f
}

// recount counts references from all roots.
func (f *forest) recount() {
	clear(f.refs)
	seen := map[ondisk.Bytenr]bool{}
	for _, r := range f.roots {
		f.refs[r.Block.At]++
		f.reach(r.Block.At, seen)
	}
	for at := range seen {
		for _, p := range f.nodes[at].Ptrs {
			f.refs[p.At]++
		}
		for _, d := range f.nodes[at].Data {
			f.refs[d.At]++
		}
	}
}

// reach adds the blocks below at to seen.
func (f *forest) reach(at ondisk.Bytenr, seen map[ondisk.Bytenr]bool) {
	if seen[at] {
		return
	}
	seen[at] = true
	for _, p := range f.nodes[at].Ptrs {
		f.reach(p.At, seen)
	}
}

// frees is the definition: what is reached from the chosen trees and from nowhere else.
func (f *forest) frees(chosen []int) (sum Sum) {
	stay, go_ := map[ondisk.Bytenr]bool{}, map[ondisk.Bytenr]bool{}
	for i, r := range f.roots {
		if slices.Contains(chosen, i) {
			f.reach(r.Block.At, go_)
		} else {
			f.reach(r.Block.At, stay)
		}
	}
	kept, lost := map[ondisk.Bytenr]bool{}, map[ondisk.Bytenr]bool{}
	for at := range stay {
		for _, d := range f.nodes[at].Data {
			kept[d.At] = true
		}
	}
	for at := range go_ {
		if stay[at] {
			continue
		}
		sum.add(Sum{Blocks: 1, MetadataBytes: 4096, DiskBytes: f.Block(at)})
		for _, d := range f.nodes[at].Data {
			if !kept[d.At] && !lost[d.At] {
				lost[d.At] = true
				sum.add(Sum{Extents: 1, DataBytes: d.Len, DiskBytes: 2 * d.Len, ChecksumBytes: d.Len / 8})
			}
		}
	}
	return sum
}

// TestEverySet: any set of trees frees what nobody else reaches; each block is read at most once, and none that outlives all.
func TestEverySet(t *testing.T) {
	passes := 0
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := random(rng, 2+rng.IntN(9))
		listed := len(f.roots) - int(seed%2) // sometimes there is a tree that nobody asks about
		o := Options{Nodesize: 4096, Workers: 1 + int(seed%3)}
		if seed%3 > 0 {
			o.Extents = 1 + int(seed%5) // so few that leaves are read several times
		}
		a, err := Count(ctx, f, f, f, f.roots[:listed], o)
		if err != nil {
			t.Fatal(err)
		}
		for bitmap := range 1 << listed {
			chosen := set{uint64(bitmap)}.members(set{0})
			if got, want := a.Of(chosen), f.frees(chosen); got != want {
				t.Fatalf("seed %d: %v: %+v, want %+v", seed, chosen, got, want)
			}
			if len(chosen) == 1 && a.Alone(chosen[0]) != a.Of(chosen) {
				t.Errorf("seed %d: alone %+v", seed, a.Alone(chosen[0]))
			}
		}
		if a.All().Blocks != a.Reads() || len(f.reads) != int(a.Reads()) {
			t.Errorf("seed %d: %d reads of %d blocks, %d die", seed, a.Reads(), len(f.reads), a.All().Blocks)
		}
		for at, n := range f.reads {
			if n != 1 && (o.Extents == 0 || f.level[at] > 0) {
				t.Errorf("seed %d: %v read %d times", seed, at, n)
			}
			passes = max(passes, n)
		}
	}
	if passes < 3 {
		t.Errorf("at most %d passes", passes)
	}
}

// TestSetsAreThrownAway: however many sets were passed through, in the end those are kept that hold something.
func TestSetsAreThrownAway(t *testing.T) {
	f := random(rand.New(rand.NewPCG(5, 5)), 150)
	w := &walk{sets: newTable(), sums: map[uint32]*Sum{}}
	for i := range f.roots {
		w.note(&w.levels[2], held{ptr: drop.Ptr{At: 1}, set: w.sets.intern(newSet(len(f.roots), i))})
	}
	passed := len(w.sets.sets)
	w.sum(w.levels[2].list[0].set).Blocks = 9
	w.tidy(nil, 3)
	if len(w.sets.sets) != 1 || passed < 2*len(f.roots)-1 {
		t.Errorf("%d sets of %d left", len(w.sets.sets), passed)
	}
	if n := w.levels[2].list[0].set; w.sets.sets[n].len() != len(f.roots) || w.sum(n).Blocks != 9 {
		t.Error("the set that is used was lost")
	}
}

// TestLies: references that are more than the account of references tells, and levels that do not fall, are told as damage.
func TestLies(t *testing.T) {
	for _, lie := range []func(f *forest, at ondisk.Bytenr){
		func(f *forest, at ondisk.Bytenr) { delete(f.refs, f.nodes[at].Ptrs[0].At) },
		func(f *forest, at ondisk.Bytenr) { f.roots = append(f.roots, f.roots[0]) },
		func(f *forest, at ondisk.Bytenr) { f.nodes[at].Ptrs[0].Level = 3 },
		func(f *forest, at ondisk.Bytenr) { f.roots[0].Block.Level = 200 },
	} {
		f := random(rand.New(rand.NewPCG(3, 3)), 3)
		lie(f, f.roots[0].Block.At)
		_, err := Count(ctx, f, f, f, f.roots, Options{Nodesize: 4096})
		var corrupt *ondisk.CorruptError
		if !errors.As(err, &corrupt) {
			t.Errorf("%v", err)
		}
	}
}

// account makes an account of n trees in which neighbours hold something together, as snapshots do, and some others.
func account(rng *rand.Rand, n int) *Account {
	a := &Account{trees: n, alone: make([]Sum, n)}
	sizes := map[string]bool{}
	for i := range n * 6 {
		first := i % n
		last := min(n-1, first+rng.IntN(1+rng.IntN(n)))
		s := newSet(n)
		for j := first; j <= last; j++ {
			if rng.IntN(20) > 0 || j == first {
				s[j/64] |= 1 << (j % 64)
			}
		}
		if key := string(rune(first)) + string(rune(last)); !sizes[key] {
			sizes[key] = true
			a.put(s, Sum{DataBytes: 1 + rng.Uint64N(1000), MetadataBytes: 16})
		}
	}
	return a
}

// TestCheapest: of few trees the smallest set is found; of many a set that is enough, that needs each of its members, and that is near the smallest.
func TestCheapest(t *testing.T) {
	var more, sum int
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 2))
		a := account(rng, 12)
		n := 1 + rng.Uint64N(a.All().Bytes())
		got, exact := a.Cheapest(n)
		if !exact || a.Of(got).Bytes() < n {
			t.Fatalf("seed %d: %v frees %d of %d", seed, got, a.Of(got).Bytes(), n)
		}
		for bitmap := range 1 << 12 {
			s := set{uint64(bitmap)}
			if f := a.of(s).Bytes(); f >= n && (s.len() < len(got) || s.len() == len(got) && f > a.Of(got).Bytes()) {
				t.Fatalf("seed %d: %v is better than %v", seed, s.members(set{0}), got)
			}
		}
		g := a.greedy(n)
		if a.of(g).Bytes() < n {
			t.Fatalf("seed %d: greedy frees too little", seed)
		}
		for _, i := range g.members(set{0}) {
			if a.of(set{g[0] &^ (1 << i)}).Bytes() >= n {
				t.Errorf("seed %d: %d is not needed", seed, i)
			}
		}
		more += g.len() - len(got)
		sum += len(got)
	}
	t.Logf("greedy takes %d trees more than %d", more, sum)
	if more*10 > sum {
		t.Errorf("greedy takes %d trees more than %d", more, sum)
	}
}

// TestCheapestOfMany: with more trees than can be tried, and with more than have all runs looked at, the answer is enough; a run is one.
func TestCheapestOfMany(t *testing.T) {
	for _, trees := range []int{19, 200, fullRuns + 50} {
		a := account(rand.New(rand.NewPCG(9, uint64(trees))), trees)
		for _, n := range []uint64{0, 1, a.All().Bytes() / 10, a.All().Bytes()} {
			got, exact := a.Cheapest(n)
			if exact || a.Of(got).Bytes() < n || n == 0 && len(got) > 0 || n == a.All().Bytes() && len(got) != trees {
				t.Errorf("%d of %d trees free %d of %d", len(got), trees, a.Of(got).Bytes(), n)
			}
			run := a.ShortestRun(n)
			if a.Of(run).Bytes() < n || len(run) > 0 && run[len(run)-1]-run[0] != len(run)-1 || n > 0 && len(got) > len(run) {
				t.Errorf("of %d trees: run %v frees %d of %d", trees, run, a.Of(run).Bytes(), n)
			}
		}
		if got, _ := a.Cheapest(a.All().Bytes() + 1); got != nil || a.ShortestRun(a.All().Bytes()+1) != nil {
			t.Errorf("%v free more than all", got)
		}
	}
}

// TestTogether: what two neighbours hold together, and no single one, is found.
func TestTogether(t *testing.T) {
	a := &Account{trees: 300, alone: make([]Sum, 300)}
	for i := range 300 {
		a.put(newSet(300, i), Sum{DataBytes: 10})
	}
	a.put(newSet(300, 100, 101, 102), Sum{DataBytes: 1000})
	a.put(newSet(300, 7, 200), Sum{DataBytes: 500})
	for n, want := range map[uint64][]int{1000: {100, 101, 102}, 1030: {100, 101, 102}, 10: {0}} {
		got, _ := a.Cheapest(n)
		if n == 10 && len(got) == 1 {
			continue
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d bytes: %v, want %v", n, got, want)
		}
	}
}

// TestSumsThatWrap: lengths that add up to more than fits do not keep it from ending.
func TestSumsThatWrap(t *testing.T) {
	a := &Account{trees: 40, alone: make([]Sum, 40)}
	for i := range 40 {
		a.put(newSet(40, i, (i+1)%40), Sum{DataBytes: 1 << 63})
		a.put(newSet(40, i), Sum{DataBytes: 1 << 63})
	}
	a.put(newSet(40, 0, 39), Sum{DataBytes: 5})
	got, _ := a.Cheapest(4)
	if a.Of(got).Bytes() < 4 {
		t.Errorf("%v", got)
	}
}
