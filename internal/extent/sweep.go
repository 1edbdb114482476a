package extent

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// A sweep goes over the whole extent tree once, in windows of leaves that bound its memory. A window falls into parts at leaves that begin with an
// extent item, so that no extent lies in two parts; parts are worked on side by side, and what comes of them is taken in their order.
const (
	windowLeaves = 32
	partLeaves   = 4
)

// part is a few neighbouring leaves. Its extents are those from one address on.
type part struct {
	leaves []treeblock.Promise
	from   ondisk.Bytenr
}

// Seen is told, as a survey or a sweep goes on, of how many more leaves it has read. It may be nil.
type Seen func(leaves int)

// window returns the parts of the tree from a key on, and the key where the next window begins: zero where the tree ends.
func (x *Extents) window(ctx context.Context, t *btree.Tree, from ondisk.Key, seen Seen) (parts []part, next ondisk.Key, err error) {
	if err := ctx.Err(); err != nil {
		return nil, next, err
	}
	for n := x.windowLeaves; ; n *= 2 {
		leaves, more, err := t.Leaves(ctx, from, n)
		if err != nil {
			return nil, more, err
		}
		if more != (ondisk.Key{}) && !isHead(more) {
			// Leave the extent that goes on behind the window to the next one.
			i := len(leaves) - 1
			for ; i > 0 && !isHead(leaves[i].FirstKey); i-- {
			}
			if i == 0 {
				continue
			}
			leaves, more = leaves[:i], leaves[i].FirstKey
		}
		if seen != nil {
			seen(len(leaves))
		}
		return x.split(leaves, ondisk.Bytenr(from.Objectid)), more, nil
	}
}

func (x *Extents) split(leaves []treeblock.Promise, from ondisk.Bytenr) []part {
	var out []part
	start := 0
	for i := 1; i < len(leaves); i++ {
		if i-start >= x.partLeaves && isHead(leaves[i].FirstKey) {
			out = append(out, part{leaves[start:i], from})
			start, from = i, ondisk.Bytenr(leaves[i].FirstKey.Objectid)
		}
	}
	return append(out, part{leaves[start:], from})
}

// isHead tells whether an extent begins with the item.
func isHead(k ondisk.Key) bool {
	return k.Type == ondisk.TypeExtentItem || k.Type == ondisk.TypeMetadataItem
}

// inParallel calls fn for 0..n-1, from several goroutines.
func inParallel(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = fn(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// records calls fn for each extent of a part.
func (x *Extents) records(ctx context.Context, p part, r *record, fn func(at ondisk.Bytenr) error) error {
	x.cfg.Store.Prefetch(ctx, p.leaves)
	r.reset()
	at, any := ondisk.Bytenr(0), false
	flush := func() error {
		switch {
		case !any:
			return nil
		case !r.found && len(r.entries) > 0:
			return noItem(at)
		}
		return fn(at)
	}
	for _, promise := range p.leaves {
		b, err := x.cfg.Store.Read(ctx, promise)
		if err != nil {
			return err
		}
		data := b.Data()
		for i := range data.NrItems() {
			k := data.Key(i)
			if k.Objectid < uint64(p.from) || k.Type < ondisk.TypeExtentItem || k.Type > ondisk.TypeSharedDataRef {
				continue
			}
			if k.Objectid != uint64(at) || !any {
				if err := flush(); err != nil {
					return err
				}
				r.reset()
				at, any = ondisk.Bytenr(k.Objectid), true
			}
			if err := r.readItem(k, data.Item(i)); err != nil {
				return locateAt(err, b, i)
			}
		}
	}
	return flush()
}

// Survey tells for each extent (tree blocks, or data) how many of its references come from the blocks of a set, where there are any, by address.
// What is queued does not count.
func (x *Extents) Survey(ctx context.Context, parents *ref.Set, data bool, seen Seen, fn func(ref.Loss) error) error {
	flags := ondisk.ExtentFlagTreeBlock
	if data {
		flags = ondisk.ExtentFlagData
	}
	t, err := x.cfg.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		return err
	}
	var lists [][]ref.Loss // of each part
	from := ondisk.Key{}
	for more := true; more; more = from != (ondisk.Key{}) {
		parts, next, err := x.window(ctx, t, from, seen)
		if err != nil {
			return err
		}
		lists = slices.Grow(lists[:0], len(parts))[:len(parts)]
		err = inParallel(len(parts), func(i int) (err error) {
			lists[i], err = x.losses(ctx, parts[i], parents, flags, lists[i][:0])
			return err
		})
		if err != nil {
			return err
		}
		for _, list := range lists {
			for _, l := range list {
				if err := fn(l); err != nil {
					return err
				}
			}
		}
		from = next
	}
	return nil
}

// losses does a part of a survey. It looks at each reference without gathering them, for there are many.
func (x *Extents) losses(ctx context.Context, p part, parents *ref.Set, flags uint64, out []ref.Loss) ([]ref.Loss, error) {
	x.cfg.Store.Prefetch(ctx, p.leaves)
	var l ref.Loss
	wanted := false
	flush := func() {
		if wanted && l.N > 0 {
			out = append(out, l)
		}
	}
	for _, promise := range p.leaves {
		b, err := x.cfg.Store.Read(ctx, promise)
		if err != nil {
			return nil, err
		}
		data := b.Data()
		for i := range data.NrItems() {
			k := data.Key(i)
			at := ondisk.Bytenr(k.Objectid)
			switch {
			case at < p.from:
			case isHead(k):
				flush()
				if l, err = x.lossAt(k, data.Item(i), parents); err != nil {
					return nil, locateAt(err, b, i)
				}
				wanted = l.Flags&flags != 0
			case !wanted || k.Type != ondisk.TypeSharedBlockRef && k.Type != ondisk.TypeSharedDataRef:
			case at != l.At:
				return nil, noItem(at)
			case parents.Has(ondisk.Bytenr(k.Offset)):
				n := uint32(1)
				if k.Type == ondisk.TypeSharedDataRef {
					if n, err = ondisk.DecodeSharedDataRef(data.Item(i)); err != nil {
						return nil, locateAt(err, b, i)
					}
				}
				l.N += uint64(n)
			}
		}
	}
	flush()
	return out, nil
}

// lossAt counts the references within an extent item.
func (x *Extents) lossAt(k ondisk.Key, b []byte, parents *ref.Set) (ref.Loss, error) {
	item, err := ondisk.DecodeExtentItem(b)
	if err != nil {
		return ref.Loss{}, err
	}
	l := ref.Loss{Len: uint64(x.size), Info: ref.Info{
		At: ondisk.Bytenr(k.Objectid), Refs: item.Refs, Flags: item.Flags, Generation: item.Generation, Found: true,
	}}
	b = b[ondisk.ExtentItemSize:]
	switch {
	case l.Flags&ondisk.ExtentFlagData != 0:
		l.Len = k.Offset
	case k.Type == ondisk.TypeMetadataItem:
		l.Level = uint8(k.Offset)
	case len(b) < ondisk.TreeBlockInfoSize:
		return l, &ondisk.CorruptError{What: "extent item", Slot: -1, Reason: "too short", Got: len(b)}
	default:
		l.Level, b = b[ondisk.KeySize], b[ondisk.TreeBlockInfoSize:]
	}
	for len(b) > 0 {
		r, n, err := ondisk.DecodeInlineRef(b)
		if err != nil {
			return l, err
		}
		b = b[n:]
		switch {
		case !parents.Has(r.Parent):
		case r.Type == ondisk.TypeSharedBlockRef:
			l.N++
		case r.Type == ondisk.TypeSharedDataRef:
			l.N += uint64(r.Count)
		}
	}
	return l, nil
}

// Sweep applies changes as ApplyBulk does, and on the way takes out every reference that comes, by parent, from a block of the set. It returns how
// many those were. If it fails, or ctx ends, half of the work is done, which is of no use: the transaction has to be given up.
func (x *Extents) Sweep(ctx context.Context, cs []ref.Change, parents *ref.Set, seen Seen) (swept uint64, err error) {
	x.acts++
	if err := x.Drain(ctx); err != nil {
		return 0, err
	}
	x.stats.Sweeps++
	var works []work
	var gone freed
	from := ondisk.Key{}
	for more := true; more; more = from != (ondisk.Key{}) {
		t, err := x.cfg.Tree(ctx, ondisk.ExtentTree)
		if err != nil {
			return 0, err
		}
		if works, from, err = x.sweepWindow(ctx, t, from, &cs, parents, works, seen); err != nil {
			return 0, err
		}
		gone.reset()
		for i := range works {
			w := &works[i]
			if err := t.Apply(ctx, w.ops); err != nil {
				return 0, err
			}
			gone.append(&w.gone)
			x.stats.add(w.stats)
			swept += w.swept
		}
		if err := x.free(ctx, &gone); err != nil {
			return 0, err
		}
		if err := x.writeEarly(ctx); err != nil {
			return 0, err
		}
	}
	return swept, nil
}

// sweepWindow works out what becomes of the extents of one window, part by part, and takes the changes that belong there. It uses the memory of works.
func (x *Extents) sweepWindow(ctx context.Context, t *btree.Tree, from ondisk.Key, cs *[]ref.Change, parents *ref.Set, works []work, seen Seen) ([]work, ondisk.Key, error) {
	parts, next, err := x.window(ctx, t, from, seen)
	if err != nil {
		return nil, next, err
	}
	works = slices.Grow(works[:0], len(parts))[:len(parts)]
	for i := range parts {
		n := len(*cs)
		if i+1 < len(parts) {
			n = countBefore(*cs, parts[i+1].from)
		} else if next != (ondisk.Key{}) {
			n = countBefore(*cs, ondisk.Bytenr(next.Objectid))
		}
		works[i].reset()
		works[i].changes, *cs = (*cs)[:n], (*cs)[n:]
	}
	err = inParallel(len(parts), func(i int) error { return x.sweepPart(ctx, parts[i], &works[i], parents) })
	return works, next, err
}

// sweepPart works out what becomes of the extents of one part.
func (x *Extents) sweepPart(ctx context.Context, p part, w *work, parents *ref.Set) error {
	err := x.records(ctx, p, &w.rec, func(at ondisk.Bytenr) error {
		if n := countBefore(w.changes, at); n > 0 {
			return noItem(w.changes[0].At)
		}
		n := countBefore(w.changes, at+1)
		cs := w.changes[:n]
		w.changes = w.changes[n:]
		lost := w.rec.give(parents)
		if lost == 0 && n == 0 {
			return nil
		}
		if lost > w.rec.item.Refs {
			return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "fewer references than are given up", Got: w.rec.item.Refs, Want: lost}
		}
		w.rec.item.Refs -= lost
		w.swept += lost
		w.stats.Changes += int64(n)
		return x.one(w, at, cs, nil)
	})
	if err == nil && len(w.changes) > 0 {
		err = noItem(w.changes[0].At)
	}
	w.stats.Ops += int64(len(w.ops))
	return err
}

// countBefore returns how many changes at the front are for addresses below end.
func countBefore(cs []ref.Change, end ondisk.Bytenr) int {
	hi := 1
	for hi <= len(cs) && cs[hi-1].At < end {
		hi *= 2
	}
	lo := hi / 2
	hi = min(hi, len(cs)+1) - 1
	for lo < hi {
		m := int(uint(lo+hi) / 2)
		if cs[m].At < end {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

func noItem(at ondisk.Bytenr) error {
	return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "has references but no item"}
}
