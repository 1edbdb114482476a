// Package share tells, after one walk, what deleting any set of some subvolumes would give back.
//
// # The idea
//
// A dry run of package drop answers for one set. But it walks the same blocks for each set that is asked for. Here the walk for all of the subvolumes
// at once, which reads what dies with all of them and nothing else, also notes for each block and extent by which trees it is reached. A set of
// subvolumes frees exactly what is reached by nobody outside of it. So all there is to remember is how much each distinct set of trees holds: a
// history of a hundred snapshots makes some thousands of such sets, however many blocks it has.
//
// # What must hold
//
//   - The account agrees with drop.Foresee of each set; tests compare them.
//   - Each block is read once, and only if it dies when all of the trees go and may refer to something (drop.IsBare); leaves once more for each further
//     range of extents.
//   - What survives all of them is not charged to any: it has references that the walk does not find.
//   - Memory: an entry for each distinct block of two neighbouring levels, for so many extents as Options say, and one bitmap for each distinct set.
//     Sets that were passed through, and that nothing is held by, are thrown away now and then.
//
// The package is pure: it sees a volume through Blocks, Counts and Costs.
package share

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Blocks reads tree blocks; Node is called from several goroutines at once.
type Blocks interface {
	Node(ctx context.Context, p drop.Ptr, buf []ref.Ref) (drop.Node, error)
	Prefetch(ctx context.Context, ps []drop.Ptr)
}

// Counts tells how many references extents have.
type Counts interface {
	Lookup(ctx context.Context, at []ondisk.Bytenr, out []ref.Info) error
}

// Costs tells what blocks and extents take beside their own length.
type Costs interface {
	Block(at ondisk.Bytenr) (disk uint64)
	// Data is asked for extents in the order of their addresses.
	Data(ctx context.Context, at ondisk.Bytenr, n uint64) (disk, checksums uint64, err error)
}

// Options of Count.
type Options struct {
	Nodesize uint32
	Workers  int // goroutines reading blocks; at least 1
	Extents  int // data extents that are remembered at once; 0: 1 Mi, which take some 150 MiB
}

const (
	levels  = 8
	batch   = 1 << 10 // blocks read before what they tell is taken in
	sweep   = 1 << 16 // addresses in one look-up
	extents = 1 << 20 // see Options
	maxSets = 1 << 14 // sets that may be passed through before unused ones are thrown away
)

// held is a block or an extent that the walk met.
type held struct {
	ptr  drop.Ptr // of data only At
	n    uint64   // length of data
	set  uint32   // who reaches it
	refs uint64   // references found
	bare bool     // a leaf that has no place for file extents
}

// holdings are the blocks of a level, or the data extents in a range of addresses.
type holdings struct {
	index    map[ondisk.Bytenr]int
	list     []held
	from, to ondisk.Bytenr // to: 0 while there is no end
	most     int           // 0: no limit
}

// room tells whether an entry for the address belongs here. Where the limit is reached, those with the lowest addresses stay.
func (h *holdings) room(at ondisk.Bytenr) bool {
	if _, there := h.index[at]; !there && h.most > 0 && len(h.list) >= h.most {
		slices.SortFunc(h.list, byAddress)
		keep := h.most / 2
		h.to = h.list[keep].ptr.At
		clear(h.list[keep:])
		h.list = h.list[:keep]
		clear(h.index)
		for i := range h.list {
			h.index[h.list[i].ptr.At] = i
		}
	}
	return at >= h.from && (h.to == 0 || at < h.to)
}

func byAddress(a, b held) int { return cmp.Compare(a.ptr.At, b.ptr.At) }

type walk struct {
	blocks Blocks
	counts Counts
	costs  Costs
	opt    Options
	sets   *table
	limit  int // of sets
	levels [levels]holdings
	leaves []held // that die
	data   holdings
	sums   map[uint32]*Sum // by number of the set
	reads  uint64
}

// Count walks whole trees, none of which is half dropped, and makes the account of them.
func Count(ctx context.Context, blocks Blocks, counts Counts, costs Costs, roots []drop.Root, o Options) (*Account, error) {
	o.Workers = max(o.Workers, 1)
	if o.Extents == 0 {
		o.Extents = extents
	}
	o.Extents = max(o.Extents, 2)
	w := &walk{blocks: blocks, counts: counts, costs: costs, opt: o, sets: newTable(), limit: maxSets, sums: map[uint32]*Sum{}}
	for i, r := range roots {
		if r.Block.Level >= levels {
			return nil, corrupt(r.Block.At, "impossible level of a tree", r.Block.Level)
		}
		w.note(&w.levels[r.Block.Level], held{ptr: r.Block, set: w.sets.intern(newSet(len(roots), i))})
	}
	for l := levels - 1; l >= 0; l-- {
		if err := w.level(ctx, l); err != nil {
			return nil, err
		}
		w.levels[l] = holdings{}
	}
	reads := w.reads
	for from, more := ondisk.Bytenr(0), true; more; from, more = w.data.to, w.data.to != 0 {
		if err := w.extents(ctx, from); err != nil {
			return nil, err
		}
		if from == 0 {
			reads = w.reads
		}
	}
	w.reads = reads
	return w.account(len(roots)), nil
}

func corrupt(at ondisk.Bytenr, reason string, got any) error {
	return &ondisk.CorruptError{What: "tree", Bytenr: at, Slot: -1, Reason: reason, Got: got}
}

// note takes in one more reference.
func (w *walk) note(to *holdings, h held) {
	if to.index == nil {
		to.index = map[ondisk.Bytenr]int{}
	}
	if !to.room(h.ptr.At) {
		return
	}
	i, there := to.index[h.ptr.At]
	if !there {
		i = len(to.list)
		to.index[h.ptr.At] = i
		to.list = append(to.list, h)
	}
	e := &to.list[i]
	e.set = w.sets.union(e.set, h.set)
	e.refs++
}

// level charges the blocks of a level that die with all trees, and notes what nodes refer to.
func (w *walk) level(ctx context.Context, l int) error {
	dying, err := w.dying(ctx, &w.levels[l])
	if err != nil {
		return err
	}
	for i := range dying {
		w.sum(dying[i].set).add(Sum{Blocks: 1, MetadataBytes: uint64(w.opt.Nodesize), DiskBytes: w.costs.Block(dying[i].ptr.At)})
	}
	if l == 0 {
		w.leaves = slices.DeleteFunc(dying, func(h held) bool { return h.bare })
		return nil
	}
	for len(dying) > 0 {
		some := dying[:min(len(dying), batch)]
		nodes, err := w.read(ctx, some)
		if err != nil {
			return err
		}
		for i, n := range nodes {
			for j, p := range n.Ptrs {
				if int(p.Level) != l-1 {
					return corrupt(some[i].ptr.At, "impossible level of a child", p.Level)
				}
				bare := l == 1 && j+1 < len(n.Ptrs) && drop.IsBare(p.Key, n.Ptrs[j+1].Key)
				w.note(&w.levels[l-1], held{ptr: p, set: some[i].set, bare: bare})
			}
		}
		dying = dying[len(some):]
		w.tidy(dying, l)
	}
	return nil
}

// dying gives those of which every reference was found, by address.
func (w *walk) dying(ctx context.Context, of *holdings) ([]held, error) {
	list := of.list
	of.index = nil
	slices.SortFunc(list, byAddress)
	dying := list[:0]
	at, infos := make([]ondisk.Bytenr, 0, min(len(list), sweep)), make([]ref.Info, min(len(list), sweep))
	for len(list) > 0 {
		some := list[:min(len(list), sweep)]
		at = at[:0]
		for i := range some {
			at = append(at, some[i].ptr.At)
		}
		if err := w.counts.Lookup(ctx, at, infos[:len(at)]); err != nil {
			return nil, err
		}
		for i, h := range some {
			switch in := infos[i]; {
			case !in.Found || in.Refs < h.refs:
				return nil, corrupt(h.ptr.At, "an extent has more references than its item tells", h.refs)
			case in.Refs == h.refs:
				dying = append(dying, h)
			}
		}
		list = list[len(some):]
	}
	of.list = dying
	return dying, nil
}

// read reads blocks with all workers, in the order of their addresses.
func (w *walk) read(ctx context.Context, of []held) ([]drop.Node, error) {
	ps := make([]drop.Ptr, len(of))
	for i := range of {
		ps[i] = of[i].ptr
	}
	w.reads += uint64(len(ps))
	w.blocks.Prefetch(ctx, ps)
	out, errs := make([]drop.Node, len(ps)), make([]error, len(ps))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(w.opt.Workers, len(ps)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ps); i = int(next.Add(1)) - 1 {
				if errs[i] = ctx.Err(); errs[i] == nil {
					out[i], errs[i] = w.blocks.Node(ctx, ps[i], nil)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// extents charges the data extents that die with all trees, those from an address on and as many as can be remembered.
func (w *walk) extents(ctx context.Context, from ondisk.Bytenr) error {
	w.data = holdings{from: from, most: w.opt.Extents}
	for i := 0; i < len(w.leaves); i += batch {
		n := min(batch, len(w.leaves)-i)
		nodes, err := w.read(ctx, w.leaves[i:i+n])
		if err != nil {
			return err
		}
		for j := range nodes {
			for _, r := range nodes[j].Data {
				w.note(&w.data, held{ptr: drop.Ptr{At: r.At}, n: r.Len, set: w.leaves[i+j].set})
			}
		}
		w.tidy(w.leaves, 0)
	}
	dying, err := w.dying(ctx, &w.data)
	if err != nil {
		return err
	}
	for _, h := range dying {
		if err := ctx.Err(); err != nil {
			return err
		}
		disk, sums, err := w.costs.Data(ctx, h.ptr.At, h.n)
		if err != nil {
			return err
		}
		w.sum(h.set).add(Sum{Extents: 1, DataBytes: h.n, DiskBytes: disk, ChecksumBytes: sums})
	}
	return nil
}

func (w *walk) sum(set uint32) *Sum {
	s := w.sums[set]
	if s == nil {
		s = &Sum{}
		w.sums[set] = s
	}
	return s
}

// tidy throws away sets that nothing is held by any more, when there are many.
func (w *walk) tidy(dying []held, l int) {
	if len(w.sets.sets) < w.limit && len(w.sets.unions) < 4*w.limit {
		return
	}
	old := w.sets
	w.sets = newTable()
	renumber := func(list []held) {
		for i := range list {
			list[i].set = w.sets.intern(old.sets[list[i].set])
		}
	}
	renumber(dying)
	for k := range l {
		renumber(w.levels[k].list)
	}
	renumber(w.data.list)
	sums := make(map[uint32]*Sum, len(w.sums))
	for n, s := range w.sums {
		sums[w.sets.intern(old.sets[n])] = s
	}
	w.sums = sums
	w.limit = max(maxSets, 2*len(w.sets.sets))
}
