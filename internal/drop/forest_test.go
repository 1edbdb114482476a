package drop

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

const testNodesize = 4096

// forest is a set of copy-on-write trees in memory with an account of references, kept by the rules of copy-on-write and snapshots. It is Blocks and
// Refs at once.
type forest struct {
	fan    int // entries per block
	size   int // blocks of the account, as Size tells
	sweeps int // made
	blocks map[ondisk.Bytenr]*treeBlock
	exts   map[ondisk.Bytenr]*extent
	roots  map[ondisk.TreeID]*Root
	sealed map[ondisk.TreeID]ondisk.Generation // last_snapshot
	gen    ondisk.Generation
	next   ondisk.Bytenr
	lastID ondisk.TreeID

	mu      sync.Mutex
	reads   map[ondisk.Bytenr]int
	lookups map[ondisk.Bytenr]int
}

type treeBlock struct {
	level uint8
	owner ondisk.TreeID
	gen   ondisk.Generation
	reloc bool
	ents  []entry
}

// entry is a slot of a node (at, gen) or an item of a leaf: at is 0 or a data extent, offset what its reference carries.
type entry struct {
	key    ondisk.Key
	at     ondisk.Bytenr
	gen    ondisk.Generation
	offset uint64
}

type extent struct {
	refs uint64
	full bool
	tree bool
	back map[ref.Ref]int
}

func newForest(fan int) *forest {
	return &forest{fan: fan, blocks: map[ondisk.Bytenr]*treeBlock{}, exts: map[ondisk.Bytenr]*extent{}, roots: map[ondisk.TreeID]*Root{},
		sealed: map[ondisk.TreeID]ondisk.Generation{}, gen: 10, next: 1 << 20, lastID: 255,
		reads: map[ondisk.Bytenr]int{}, lookups: map[ondisk.Bytenr]int{}}
}

func (f *forest) clone() *forest {
	c := newForest(f.fan)
	c.gen, c.next, c.lastID, c.size = f.gen, f.next, f.lastID, f.size
	for at, b := range f.blocks {
		n := *b
		n.ents = slices.Clone(b.ents)
		c.blocks[at] = &n
	}
	for at, e := range f.exts {
		n := *e
		n.back = maps.Clone(e.back)
		c.exts[at] = &n
	}
	for id, r := range f.roots {
		n := *r
		c.roots[id] = &n
	}
	maps.Copy(c.sealed, f.sealed)
	return c
}

func (f *forest) Prefetch(context.Context, []Ptr) {}

func (f *forest) Node(_ context.Context, p Ptr, buf []ref.Ref) (Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads[p.At]++
	b := f.blocks[p.At]
	if b == nil || b.level != p.Level || b.gen != p.Generation {
		return Node{}, fmt.Errorf("block %d is not what the pointer says", p.At)
	}
	n := Node{Owner: b.owner, Reloc: b.reloc, Data: buf}
	for _, e := range b.ents {
		if b.level > 0 {
			n.Ptrs = append(n.Ptrs, Ptr{At: e.at, Generation: e.gen, Level: b.level - 1, Key: e.key})
		} else if e.at != 0 {
			n.Data = append(n.Data, ref.Ref{At: e.at, Len: 8192, Kind: ref.KindData, Root: b.owner, Ino: e.key.Objectid, Offset: e.offset})
		}
	}
	return n, nil
}

func (f *forest) Lookup(_ context.Context, at []ondisk.Bytenr, out []ref.Info) error {
	for i, a := range at {
		if i > 0 && at[i-1] >= a {
			return fmt.Errorf("look-up not sorted")
		}
		f.lookups[a]++
		e := f.exts[a]
		out[i] = ref.Info{At: a}
		if e != nil {
			out[i].Found, out[i].Refs = true, e.refs
			if e.full {
				out[i].Flags = ondisk.ExtentFlagFullBackref
			}
		}
	}
	return nil
}

func (f *forest) Add(_ context.Context, cs []ref.Change) error {
	for _, c := range cs { // sums count, so what is added goes first
		if c.Delta > 0 {
			if err := f.mod(c.Ref, int(c.Delta)); err != nil {
				return err
			}
		}
	}
	for _, c := range cs {
		if c.Delta < 0 {
			if err := f.mod(c.Ref, int(c.Delta)); err != nil {
				return err
			}
		}
		if c.SetFull {
			e := f.exts[c.At]
			if e == nil || !e.tree || e.full {
				return fmt.Errorf("cannot set FULL on %d", c.At)
			}
			e.full = true
		}
	}
	return nil
}

func (f *forest) Size(context.Context) (int, error) { return f.size, nil }

func (f *forest) Survey(_ context.Context, parents *ref.Set, data bool, fn func(ref.Loss) error) error {
	for _, at := range slices.Sorted(maps.Keys(f.exts)) {
		e := f.exts[at]
		l := ref.Loss{Len: 8192, Info: ref.Info{At: at, Refs: e.refs, Found: true}}
		if e.full {
			l.Flags = ondisk.ExtentFlagFullBackref
		}
		if b := f.blocks[at]; b != nil {
			l.Level, l.Generation, l.Len = b.level, b.gen, testNodesize
		}
		for r, n := range e.back {
			if r.Parent != 0 && parents.Has(r.Parent) {
				l.N += uint64(n)
			}
		}
		if e.tree == data || l.N == 0 {
			continue
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	return nil
}

func (f *forest) Sweep(ctx context.Context, cs []ref.Change, parents *ref.Set) (uint64, error) {
	f.sweeps++
	n := 0
	for at, e := range f.exts {
		for r, k := range e.back {
			if r.Parent == 0 || !parents.Has(r.Parent) {
				continue
			}
			n += k
			e.refs = uint64(int64(e.refs) - int64(k))
			delete(e.back, r)
		}
		if e.refs == 0 {
			delete(f.exts, at)
		}
	}
	return uint64(n), f.Add(ctx, cs)
}

func (f *forest) mod(r ref.Ref, n int) error {
	e := f.exts[r.At]
	if e == nil {
		if n < 0 {
			return fmt.Errorf("no extent for %+v", r)
		}
		e = &extent{tree: !r.Kind.IsData(), back: map[ref.Ref]int{}}
		f.exts[r.At] = e
	}
	e.back[r] += n
	if e.back[r] < 0 {
		return fmt.Errorf("reference does not exist: %+v", r)
	}
	if e.back[r] == 0 {
		delete(e.back, r)
	}
	e.refs = uint64(int64(e.refs) + int64(n))
	if e.refs == 0 {
		delete(f.exts, r.At)
	}
	return nil
}

// ---- histories: copy on write, by FORMAT's cases

func (f *forest) must(err error) {
	if err != nil {
		panic(err)
	}
}

func (f *forest) blockRef(at ondisk.Bytenr, kind ref.Kind, root ondisk.TreeID, parent ondisk.Bytenr) ref.Ref {
	return ref.Ref{At: at, Len: testNodesize, Level: f.blocks[at].level, Kind: kind, Root: root, Parent: parent}
}

// leaving lists the references that leave a block.
func (f *forest) leaving(at ondisk.Bytenr, full bool) []ref.Ref {
	b := f.blocks[at]
	var out []ref.Ref
	for _, e := range b.ents {
		switch {
		case e.at == 0:
		case b.level > 0 && full:
			out = append(out, f.blockRef(e.at, ref.KindSharedBlock, 0, at))
		case b.level > 0:
			out = append(out, f.blockRef(e.at, ref.KindTreeBlock, b.owner, 0))
		case full:
			out = append(out, ref.Ref{At: e.at, Len: 8192, Kind: ref.KindSharedData, Parent: at})
		default:
			out = append(out, ref.Ref{At: e.at, Len: 8192, Kind: ref.KindData, Root: b.owner, Ino: e.key.Objectid, Offset: e.offset})
		}
	}
	return out
}

func (f *forest) modAll(at ondisk.Bytenr, full bool, n int) {
	for _, r := range f.leaving(at, full) {
		f.must(f.mod(r, n))
	}
}

func (f *forest) alloc(b *treeBlock) ondisk.Bytenr {
	at := f.next
	f.next += testNodesize
	f.blocks[at] = b
	return at
}

func (f *forest) data() ondisk.Bytenr {
	at := f.next
	f.next += 8192
	return at
}

func (f *forest) newTree() ondisk.TreeID {
	f.lastID++
	id := f.lastID
	at := f.alloc(&treeBlock{owner: id, gen: f.gen, ents: []entry{{key: itemKey(0)}}})
	f.must(f.mod(f.blockRef(at, ref.KindTreeBlock, id, 0), 1))
	f.roots[id] = &Root{ID: id, Block: Ptr{At: at, Generation: f.gen}}
	return id
}

// itemKey gives each other 32 items one object and a type that is not that of file extents: then whole leaves are without them.
func itemKey(n uint64) ondisk.Key {
	if n/32%2 == 1 {
		return ondisk.Key{Objectid: 256 + n - n%32, Type: ondisk.TypeDirIndex, Offset: n}
	}
	return ondisk.Key{Objectid: 256 + n, Type: ondisk.TypeExtentData}
}

// cow makes the block at private to tree id; the parent, if any, is private already. With reloc it does what a relocation tree does.
func (f *forest) cow(id ondisk.TreeID, at ondisk.Bytenr, reloc bool) ondisk.Bytenr {
	b := f.blocks[at]
	if b.gen == f.gen && b.gen > f.sealed[id] && !b.reloc && !reloc && b.owner == id {
		return at
	}
	e := f.exts[at]
	n := &treeBlock{level: b.level, owner: id, gen: f.gen, reloc: reloc, ents: slices.Clone(b.ents)}
	to := f.alloc(n)
	refs, full := e.refs, e.full
	switch {
	case refs == 1 && full:
		f.modAll(to, reloc, 1)
		f.modAll(at, true, -1)
	case refs == 1:
		f.modAll(to, reloc, 1)
		f.modAll(at, false, -1)
	case !full && (b.owner == id || reloc):
		f.modAll(at, true, 1)
		e.full = true
		f.modAll(to, reloc, 1)
		f.modAll(at, false, -1)
	default:
		f.modAll(to, reloc, 1)
	}
	f.must(f.mod(f.blockRef(to, ref.KindTreeBlock, id, 0), 1))
	f.exts[to].full = reloc
	f.must(f.mod(f.blockRef(at, ref.KindTreeBlock, id, 0), -1))
	if refs == 1 {
		delete(f.blocks, at)
	}
	return to
}

// path makes the way to a key private and returns it, root first. With level > 0 it stops there.
func (f *forest) path(id ondisk.TreeID, k ondisk.Key, level uint8) (way []*treeBlock, slots []int) {
	r := f.roots[id]
	at := f.cow(id, r.Block.At, false)
	r.Block.At, r.Block.Generation = at, f.gen
	for {
		b := f.blocks[at]
		b.gen = f.gen
		way = append(way, b)
		if b.level == level {
			return way, slots
		}
		i := b.slot(k)
		at = f.cow(id, b.ents[i].at, false)
		b.ents[i].at, b.ents[i].gen = at, f.gen
		slots = append(slots, i)
	}
}

func (b *treeBlock) slot(k ondisk.Key) int {
	i, ok := slices.BinarySearchFunc(b.ents, k, func(e entry, k ondisk.Key) int { return e.key.Compare(k) })
	if !ok && i > 0 {
		i--
	}
	return i
}

// set puts an item; data 0 is an item without an extent.
func (f *forest) set(id ondisk.TreeID, n uint64, data ondisk.Bytenr) {
	k := itemKey(n)
	if k.Type != ondisk.TypeExtentData {
		data = 0
	}
	way, slots := f.path(id, k, 0)
	leaf := way[len(way)-1]
	i, ok := slices.BinarySearchFunc(leaf.ents, k, func(e entry, k ondisk.Key) int { return e.key.Compare(k) })
	r := func(e entry) ref.Ref {
		return ref.Ref{At: e.at, Len: 8192, Kind: ref.KindData, Root: id, Ino: e.key.Objectid, Offset: e.offset}
	}
	if !ok {
		leaf.ents = slices.Insert(leaf.ents, i, entry{key: k})
		for l := len(way) - 2; l >= 0 && i == 0; l-- { // a new first key
			way[l].ents[slots[l]].key = k
			if slots[l] > 0 {
				break
			}
		}
	}
	old := leaf.ents[i]
	leaf.ents[i] = entry{key: k, at: data, offset: n % 3}
	if data != 0 {
		f.must(f.mod(r(leaf.ents[i]), 1))
	}
	if old.at != 0 {
		f.must(f.mod(r(old), -1))
	}
	f.split(id, way, slots)
}

// split halves full blocks from the leaf up.
func (f *forest) split(id ondisk.TreeID, way []*treeBlock, slots []int) {
	for l := len(way) - 1; l >= 0; l-- {
		b := way[l]
		if len(b.ents) <= f.fan {
			return
		}
		m := len(b.ents) / 2
		right := &treeBlock{level: b.level, owner: id, gen: f.gen, ents: slices.Clone(b.ents[m:])}
		b.ents = b.ents[:m:m]
		at := f.alloc(right)
		f.must(f.mod(f.blockRef(at, ref.KindTreeBlock, id, 0), 1))
		e := entry{key: right.ents[0].key, at: at, gen: f.gen}
		if l > 0 {
			way[l-1].ents = slices.Insert(way[l-1].ents, slots[l-1]+1, e)
			continue
		}
		r := f.roots[id]
		old := entry{key: b.ents[0].key, at: r.Block.At, gen: f.gen}
		top := f.alloc(&treeBlock{level: b.level + 1, owner: id, gen: f.gen, ents: []entry{old, e}})
		f.must(f.mod(f.blockRef(top, ref.KindTreeBlock, id, 0), 1))
		r.Block = Ptr{At: top, Generation: f.gen, Level: b.level + 1}
	}
}

// snapshot copies the root block, as FORMAT 4.4 says.
func (f *forest) snapshot(src ondisk.TreeID) ondisk.TreeID {
	f.gen++
	f.lastID++
	id := f.lastID
	r := f.roots[src]
	r.Block.At, r.Block.Generation = f.cow(src, r.Block.At, false), f.gen
	b := f.blocks[r.Block.At]
	b.gen = f.gen
	at := f.alloc(&treeBlock{level: b.level, owner: id, gen: f.gen, ents: slices.Clone(b.ents)})
	f.must(f.mod(f.blockRef(at, ref.KindTreeBlock, id, 0), 1))
	f.modAll(at, false, 1)
	f.sealed[src], f.sealed[id] = f.gen, f.gen
	f.roots[id] = &Root{ID: id, Origin: f.gen, Block: Ptr{At: at, Generation: f.gen, Level: b.level}}
	f.gen++
	return id
}

// relocate moves the block at a level on the way to a key.
func (f *forest) relocate(id ondisk.TreeID, n uint64, level uint8) {
	if level >= f.roots[id].Block.Level {
		return
	}
	k := itemKey(n)
	way, _ := f.path(id, k, level+1)
	p := way[len(way)-1]
	i := p.slot(k)
	p.ents[i].at, p.ents[i].gen = f.cow(id, p.ents[i].at, true), f.gen
}

// history makes a random forest: trees, snapshots of snapshots, writes, reflinks, relocated blocks, and drops in between.
func history(rng *rand.Rand, steps int) *forest {
	f := newForest(3 + rng.IntN(4))
	f.size = rng.IntN(3) * 40
	f.newTree()
	keys := uint64(20 + rng.IntN(120))
	var extents []ondisk.Bytenr
	dataOf := func() ondisk.Bytenr {
		switch {
		case rng.IntN(4) == 0:
			return 0
		case len(extents) > 0 && rng.IntN(3) == 0: // a reflink, if it is still alive
			if at := extents[rng.IntN(len(extents))]; f.exts[at] != nil {
				return at
			}
		}
		at := f.data()
		extents = append(extents, at)
		return at
	}
	for range steps {
		ids := slices.Sorted(maps.Keys(f.roots))
		id := ids[rng.IntN(len(ids))]
		switch p := rng.IntN(100); {
		case p < 10 && len(ids) < 12:
			f.snapshot(id)
		case p < 12 && len(ids) < 12:
			f.newTree()
		case p < 15 && len(ids) > 3:
			f.must(Walk(context.Background(), f, f, *f.roots[id], testNodesize))
			delete(f.roots, id)
		case p < 20:
			f.relocate(id, rng.Uint64N(keys), uint8(rng.IntN(3)))
		case p < 30:
			f.gen++
		default:
			from := rng.Uint64N(keys)
			for i := range rng.Uint64N(12) {
				f.set(id, from+i, dataOf())
			}
		}
	}
	f.gen++
	return f
}

// ---- oracles

// declared is the account after dropping a set, computed from the survivors alone.
func (f *forest) declared(set []Root) map[ondisk.Bytenr]string {
	gone := map[ondisk.TreeID]bool{}
	for _, r := range set {
		gone[r.ID] = true
	}
	want := newForest(f.fan)
	want.blocks = f.blocks
	full := map[ondisk.Bytenr]bool{}
	var walk func(at ondisk.Bytenr)
	walk = func(at ondisk.Bytenr) {
		if _, seen := full[at]; seen {
			return
		}
		b := f.blocks[at]
		full[at] = f.exts[at].full || gone[b.owner]
		want.modAll(at, full[at], 1)
		if b.level > 0 {
			for _, e := range b.ents {
				walk(e.at)
			}
		}
	}
	for id, r := range f.roots {
		if !gone[id] {
			want.must(want.mod(f.blockRef(r.Block.At, ref.KindTreeBlock, id, 0), 1))
			walk(r.Block.At)
		}
	}
	for at, is := range full {
		want.exts[at].full = is
	}
	return want.account()
}

// account prints every extent, to be compared.
func (f *forest) account() map[ondisk.Bytenr]string {
	out := make(map[ondisk.Bytenr]string, len(f.exts))
	for at, e := range f.exts {
		lines := make([]string, 0, len(e.back))
		for r, n := range e.back {
			lines = append(lines, fmt.Sprintf("%v root %d parent %d ino %d off %d x%d", r.Kind, r.Root, r.Parent, r.Ino, r.Offset, n))
		}
		slices.Sort(lines)
		out[at] = fmt.Sprintf("refs %d full %v: %s", e.refs, e.full, strings.Join(lines, "; "))
	}
	return out
}

// diff tells the first differences of two accounts.
func diff(got, want map[ondisk.Bytenr]string) string {
	var out []string
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, at := range slices.Sorted(maps.Keys(all)) {
		if got[at] != want[at] && len(out) < 5 {
			out = append(out, fmt.Sprintf("%d: got %q, want %q", at, got[at], want[at]))
		}
	}
	return strings.Join(out, "\n")
}
