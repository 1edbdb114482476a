package drop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// seeds gives the seeds of a random test: fixed ones, or what GOBTRFS_SEED and GOBTRFS_ROUNDS say.
func seeds(n int) []uint64 {
	first := uint64(1)
	if v, err := strconv.ParseUint(os.Getenv("GOBTRFS_SEED"), 10, 64); err == nil {
		first, n = v, 1
	}
	if v, err := strconv.Atoi(os.Getenv("GOBTRFS_ROUNDS")); err == nil {
		n = v
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = first + uint64(i)
	}
	return out
}

// pick chooses a random set of roots.
func pick(rng *rand.Rand, f *forest) []Root {
	var set []Root
	p := 1 + rng.IntN(10)
	for _, id := range slices.Sorted(maps.Keys(f.roots)) {
		if rng.IntN(10) < p {
			set = append(set, *f.roots[id])
		}
	}
	return set
}

func walkAll(f *forest, set []Root) error {
	for _, r := range set {
		if err := Walk(context.Background(), f, f, r, testNodesize); err != nil {
			return fmt.Errorf("tree %d: %w", r.ID, err)
		}
	}
	return nil
}

func shuffled(rng *rand.Rand, set []Root) []Root {
	out := slices.Clone(set)
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestWalkAgreesWithRecount(t *testing.T) {
	for _, seed := range seeds(120) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := history(rng, 60+rng.IntN(200))
		set := pick(rng, f)
		want := f.declared(set)
		if err := walkAll(f, shuffled(rng, set)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := diff(f.account(), want); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
}

func TestWholeSetAgreesWithWalk(t *testing.T) {
	sweeps := 0
	for _, seed := range seeds(150) {
		rng := rand.New(rand.NewPCG(seed, 2))
		f := history(rng, 60+rng.IntN(250))
		set := pick(rng, f)
		want := f.declared(set)
		d, err := New(f, f, set, Options{Nodesize: testNodesize, Workers: 1 + rng.IntN(4)})
		if err != nil {
			t.Fatal(err)
		}
		f.reads, f.lookups = map[ondisk.Bytenr]int{}, map[ondisk.Bytenr]int{}
		res, err := d.Step(context.Background(), Budget{Sweep: 1000})
		if err != nil || res.More || len(res.Done) != len(set) {
			t.Fatalf("seed %d: %+v, %v", seed, res, err)
		}
		sweeps += f.sweeps
		if d := diff(f.account(), want); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
		for _, counts := range []map[ondisk.Bytenr]int{f.reads, f.lookups} {
			for at, n := range counts {
				if n > 1 {
					t.Fatalf("seed %d: block %d touched %d times", seed, at, n)
				}
			}
		}
	}
	if sweeps < 20 {
		t.Errorf("only %d sets were swept", sweeps)
	}
}

// Every state between steps can be expressed by cuts, and finished one tree at a time, in any order.
func TestEveryStopCanBeFinishedByWalk(t *testing.T) {
	for _, seed := range append(seeds(50), 1146) { // the last one: nested relocated blocks, to be converted in one step

		rng := rand.New(rand.NewPCG(seed, 3))
		f := history(rng, 60+rng.IntN(250))
		set := pick(rng, f)
		want := f.declared(set)
		if err := steps(rng, f, set, want); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func steps(rng *rand.Rand, f *forest, set []Root, want map[ondisk.Bytenr]string) error {
	budget := Budget{Blocks: 1 + rng.IntN(12), Changes: rng.IntN(2) * (1 + rng.IntN(40)), Sweep: rng.IntN(2) * 1000}
	renew := rng.IntN(2) == 0 // forget everything between steps, as after a crash
	d, err := New(f, f, set, Options{Nodesize: testNodesize, Workers: 2})
	if err != nil {
		return err
	}
	for n := 0; len(d.Roots()) > 0; n++ {
		if n > 5000 {
			return fmt.Errorf("no end: %+v %+v", budget, d.Roots())
		}
		res, err := d.Step(context.Background(), budget)
		if err != nil {
			return fmt.Errorf("step %d, %+v: %w", n, budget, err)
		}
		if res.More != (len(d.Roots()) > 0) {
			return fmt.Errorf("step %d: More is wrong", n)
		}
		if err := onCuts(f, d.Roots()); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
		c := f.clone()
		if err := walkAll(c, shuffled(rng, d.Roots())); err != nil {
			return fmt.Errorf("walk after step %d, %+v: %w", n, budget, err)
		}
		if d := diff(c.account(), want); d != "" {
			return fmt.Errorf("walk after step %d, %+v: %s", n, budget, d)
		}
		if renew {
			if d, err = New(f, f, d.Roots(), Options{Nodesize: testNodesize, Workers: 3}); err != nil {
				return err
			}
		}
	}
	if d := diff(f.account(), want); d != "" {
		return fmt.Errorf("at the end, %+v: %s", budget, d)
	}
	return nil
}

// onCuts checks I7: blocks on a cut have one reference, and hold exactly what is right of it.
func onCuts(f *forest, roots []Root) error {
	for _, r := range roots {
		if r.Cut.IsZero() {
			continue
		}
		at := r.Block.At
		for {
			b := f.blocks[at]
			if f.exts[at] == nil || f.exts[at].refs != 1 {
				return fmt.Errorf("tree %d: block %d on its cut %v has not one reference", r.ID, at, r.Cut)
			}
			i := b.slot(r.Cut.Key)
			if b.level == r.Cut.Level {
				if b.ents[i].key != r.Cut.Key {
					return fmt.Errorf("tree %d: cut %v names no slot", r.ID, r.Cut)
				}
				break
			}
			at = b.ents[i].at
		}
	}
	return nil
}

// The kernel converts from the top, so where it stopped a full block may stand above unconverted ones.
func TestHalfDoneConversionsOfOthers(t *testing.T) {
	stopped := 0
	for _, seed := range seeds(80) {
		rng := rand.New(rand.NewPCG(seed, 6))
		f := history(rng, 60+rng.IntN(250))
		set := pick(rng, f)
		if len(set) == 0 {
			continue
		}
		want := f.declared(set)
		i := rng.IntN(len(set))
		s := &stopper{forest: f, left: 1 + rng.IntN(6)}
		w, err := newWalker(context.Background(), f, s, set[i], testNodesize)
		if err != nil {
			t.Fatal(err)
		}
		w.progress = func(c Cut) { set[i].Cut = c }
		if err := w.run(); err == nil {
			set = slices.Delete(set, i, i+1)
		} else if errors.Is(err, errStop) {
			stopped++
		} else {
			t.Fatalf("seed %d: %v", seed, err)
		}
		c := f.clone()
		d, err := New(c, c, set, Options{Nodesize: testNodesize})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Step(context.Background(), Budget{Sweep: rng.IntN(2) * 1000}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := diff(c.account(), want); d != "" {
			t.Fatalf("seed %d, at once: %s", seed, d)
		}
		if err := steps(rng, f, set, want); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if stopped < 10 {
		t.Errorf("only %d walks were stopped in a conversion", stopped)
	}
}

var errStop = errors.New("stop")

// stopper fails after some conversions.
type stopper struct {
	*forest
	left int
}

func (s *stopper) Add(ctx context.Context, cs []ref.Change) error {
	if slices.ContainsFunc(cs, func(c ref.Change) bool { return c.SetFull }) {
		if s.left--; s.left < 0 {
			return errStop
		}
	}
	return s.forest.Add(ctx, cs)
}

// Live trees change between working a step out and making it.
func TestBesideLiveWork(t *testing.T) {
	again, surveys := uint64(0), uint64(0)
	for _, seed := range append(seeds(60), 565) { // the last one: only a leaf below swept nodes changes
		rng := rand.New(rand.NewPCG(seed, 7))
		f := history(rng, 60+rng.IntN(250))
		set := pick(rng, f)
		var live []ondisk.TreeID
		for _, id := range slices.Sorted(maps.Keys(f.roots)) {
			if !slices.ContainsFunc(set, func(r Root) bool { return r.ID == id }) {
				live = append(live, id)
			}
		}
		d, err := New(f, f, set, Options{Nodesize: testNodesize})
		if err != nil {
			t.Fatal(err)
		}
		f.size = 0
		budget := Budget{Blocks: rng.IntN(2) * rng.IntN(10), Sweep: rng.IntN(2) * 1000}
		for len(d.Roots()) > 0 {
			if err := d.Prepare(context.Background(), budget); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for range rng.IntN(3) * len(live) / max(len(live), 1) {
				id := live[rng.IntN(len(live))]
				if rng.IntN(8) == 0 && len(live) < 8 {
					live = append(live, f.snapshot(id))
				} else {
					f.set(id, rng.Uint64N(100), f.data())
				}
			}
			f.gen++
			_, ok, err := d.Apply(context.Background())
			if err == nil && !ok {
				_, err = d.Step(context.Background(), budget)
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		again += d.Stats().Again
		surveys += d.Stats().Surveys
		for _, r := range set {
			delete(f.roots, r.ID)
		}
		if d := diff(f.account(), f.declared(set)); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
	}
	if again < 10 {
		t.Errorf("only %d steps had to be worked out again", again)
	}
	if surveys < 20 {
		t.Errorf("only %d surveys", surveys)
	}
}

func TestWorkersAndBudgetsDoNotMatter(t *testing.T) {
	for _, seed := range seeds(10) {
		rng := rand.New(rand.NewPCG(seed, 4))
		f := history(rng, 250)
		set := pick(rng, f)
		var first []string
		for _, workers := range []int{1, 8} {
			c := f.clone()
			log := &recorder{forest: c}
			d, err := New(c, log, set, Options{Nodesize: testNodesize, Workers: workers})
			if err != nil {
				t.Fatal(err)
			}
			for res := (Result{More: len(set) > 0}); res.More; {
				if res, err = d.Step(context.Background(), Budget{Blocks: 8}); err != nil {
					t.Fatal(err)
				}
				log.lines = append(log.lines, fmt.Sprint(d.Roots()))
			}
			if first == nil {
				first = log.lines
			}
			if !slices.Equal(first, log.lines) {
				t.Fatalf("seed %d: other changes with %d workers", seed, workers)
			}
		}
	}
}

type recorder struct {
	*forest
	lines []string
}

func (r *recorder) Add(ctx context.Context, cs []ref.Change) error {
	r.lines = append(r.lines, fmt.Sprint(cs))
	return r.forest.Add(ctx, cs)
}

func TestForeseeIsExact(t *testing.T) {
	passes := 0
	for _, seed := range seeds(100) {
		rng := rand.New(rand.NewPCG(seed, 5))
		f := history(rng, 200)
		set := pick(rng, f)
		before := f.account()
		told, last := uint64(0), ondisk.Bytenr(0)
		clear(f.reads)
		o := Options{Nodesize: testNodesize, SweepFactor: int(seed%2) * 1000}
		if seed%3 > 0 {
			o.Extents = 1 + int(seed%7) // so that it takes several passes
		}
		plan, err := Foresee(context.Background(), f, f, set, o, Visitor{Data: func(at ondisk.Bytenr, n uint64) error {
			if at <= last {
				t.Errorf("seed %d: extent %d after %d", seed, at, last)
			}
			last = at
			told += n
			return nil
		}})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := diff(f.account(), before); d != "" {
			t.Fatalf("seed %d: the dry run changed something: %s", seed, d)
		}
		if plan.Reads != uint64(len(f.reads)) {
			t.Fatalf("seed %d: %d blocks read, %d told", seed, len(f.reads), plan.Reads)
		}
		if o.Extents > 0 {
			for _, n := range f.reads {
				passes = max(passes, n)
			}
		}
		var blocks, data uint64
		want := f.declared(set)
		for at, e := range f.exts {
			if _, lives := want[at]; lives {
				continue
			}
			if e.tree {
				blocks++
			} else {
				data++
			}
		}
		if plan.Blocks != blocks || plan.Extents != data || plan.DataBytes != data*8192 || told != plan.DataBytes {
			t.Fatalf("seed %d: plan %+v, want %d blocks and %d extents", seed, plan, blocks, data)
		}
	}
	if passes < 10 {
		t.Errorf("at most %d passes", passes)
	}
}

// Snapshots of one tree share most blocks: each is looked up once for all of them, and survivors are not read.
func TestWorkCounts(t *testing.T) {
	f := newForest(16)
	id := f.newTree()
	for i := range uint64(3000) {
		f.set(id, i, f.data())
	}
	var set []Root
	rng := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		set = append(set, *f.roots[f.snapshot(id)])
		for range 5 {
			f.set(id, rng.Uint64N(3000), f.data())
		}
	}
	total := len(f.blocks)
	swept := f.clone()
	d, err := New(f, f, set, Options{Nodesize: testNodesize})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Step(context.Background(), Budget{}); err != nil {
		t.Fatal(err)
	}
	st := d.Stats()
	t.Logf("%d blocks in all, %+v", total, st)
	if d, err = New(swept, swept, set, Options{Nodesize: testNodesize}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Step(context.Background(), Budget{Sweep: 1}); err != nil {
		t.Fatal(err)
	}
	t.Logf("swept: %+v", d.Stats())
	if sw := d.Stats(); sw.Freed != st.Freed || sw.Reads > st.Freed/3 || sw.Merged+sw.Swept != st.Merged || sw.Surveys != 1 {
		t.Errorf("a sweep read %d blocks to free %d, without one %d", sw.Reads, sw.Freed, st.Freed)
	}
	if st.Reads+st.Bare != st.Freed || st.Bare < 50 || st.Converted != 0 {
		t.Errorf("read %d blocks to free %d and convert %d", st.Reads, st.Freed, st.Converted)
	}
	if st.Sweeps > 4 || st.Lookups > uint64(total) {
		t.Errorf("%d look-ups in %d sweeps for %d blocks", st.Lookups, st.Sweeps, total)
	}
}

// Whatever the blocks and counts say: an end, and no panic.
func TestHostileForests(t *testing.T) {
	failed := 0
	for _, seed := range seeds(300) {
		rng := rand.New(rand.NewPCG(seed, 8))
		f := history(rng, 60+rng.IntN(100))
		set := pick(rng, f)
		ats := slices.Sorted(maps.Keys(f.blocks))
		for range 1 + rng.IntN(6) {
			b := f.blocks[ats[rng.IntN(len(ats))]]
			e := &b.ents[rng.IntN(len(b.ents))]
			switch rng.IntN(6) {
			case 0:
				e.at = ats[rng.IntN(len(ats))]
			case 1:
				e.gen++
			case 2:
				b.owner = ondisk.TreeID(256 + rng.IntN(8))
			case 3:
				e.key.Objectid += rng.Uint64N(30)
			case 4:
				if x := f.exts[e.at]; x != nil {
					x.refs = uint64(rng.IntN(4))
				}
			case 5:
				if x := f.exts[e.at]; x != nil && x.tree {
					x.full = !x.full
				}
			}
		}
		for i := range set {
			if rng.IntN(3) == 0 {
				set[i].Cut = Cut{Key: itemKey(rng.Uint64N(60)), Level: uint8(rng.IntN(4))}
			}
		}
		d, err := New(f, f, set, Options{Nodesize: testNodesize, Workers: 2})
		budget := Budget{Blocks: rng.IntN(6), Changes: rng.IntN(30), Sweep: rng.IntN(2) * 1000}
		for n := 0; err == nil && len(d.Roots()) > 0; n++ {
			if n > 3000 {
				t.Fatalf("seed %d: no end", seed)
			}
			_, err = d.Step(context.Background(), budget)
		}
		if err != nil {
			failed++
		}
	}
	t.Logf("%d found damaged", failed)
}

func TestHostileTreesAreErrors(t *testing.T) {
	f := newForest(4)
	id := f.newTree()
	for i := range uint64(60) {
		f.set(id, i, f.data())
	}
	for name, break_ := range map[string]func(c *forest, r *Root){
		"no item":        func(c *forest, r *Root) { delete(c.exts, c.blocks[r.Block.At].ents[0].at) },
		"slot twice":     func(c *forest, r *Root) { b := c.blocks[r.Block.At]; b.ents[1].at = b.ents[0].at },
		"wrong level":    func(c *forest, r *Root) { b := c.blocks[r.Block.At]; b.ents[0].at = r.Block.At },
		"bad drop_level": func(c *forest, r *Root) { r.Cut = Cut{Key: itemKey(3), Level: 7} },
		"shared cut":     func(c *forest, r *Root) { r.Cut = Cut{Key: itemKey(3), Level: 1}; c.exts[r.Block.At].refs = 2 },
		"empty node":     func(c *forest, r *Root) { c.blocks[r.Block.At].ents = nil },
	} {
		c := f.clone()
		r := c.roots[id]
		break_(c, r)
		d, err := New(c, c, []Root{*r}, Options{Nodesize: testNodesize})
		if err == nil {
			_, err = d.Step(context.Background(), Budget{Blocks: 5})
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
