package drop

import (
	"context"
	"math"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Plan is what dropping a set would give back. Checksum and disk bytes are filled in by who knows checksums and profiles.
type Plan struct {
	Blocks        uint64 // tree blocks that die
	MetadataBytes uint64
	Extents       uint64 // data extents that die
	DataBytes     uint64
	ChecksumBytes uint64
	DiskBytes     uint64 // all copies counted
	Reads         uint64 // blocks to be read for it
	Swept         uint64 // references to data that are swept, so that what holds them need not be read
}

// Visitor is told what would die. Each function may be nil.
type Visitor struct {
	Block func(at ondisk.Bytenr)                 // tree blocks
	Data  func(at ondisk.Bytenr, n uint64) error // data extents, by address
}

// Foresee is the dry run: one step without bounds is worked out and not made, and data extents are counted instead of listed as changes. Where there are
// too many to remember, they are counted in several passes over the dying leaves, a range of addresses in each.
func Foresee(ctx context.Context, blocks Blocks, counts Counts, roots []Root, o Options, v Visitor) (Plan, error) {
	d, err := newDrop(blocks, counts, roots, o)
	if err != nil {
		return Plan{}, err
	}
	d.foresee, d.onDead = true, v.Block
	if err := d.Prepare(ctx, Budget{Sweep: math.MaxInt}); err != nil {
		return Plan{}, err
	}
	f := &foreseer{d: d, data: v.Data}
	if d.next != nil {
		f.span = d.next.span
	}
	reads := d.stats.Reads
	for from, pass := ondisk.Bytenr(0), 0; f.span != nil; pass++ {
		t := &tally{from: from, limit: o.Extents}
		if err := f.pass(ctx, t); err != nil {
			return Plan{}, err
		}
		if pass == 0 {
			reads = d.stats.Reads
		}
		if t.to == 0 {
			break
		}
		from = t.to
	}
	f.plan.Blocks = d.stats.Freed
	f.plan.MetadataBytes = d.stats.Freed * uint64(o.Nodesize)
	f.plan.Reads = reads
	return f.plan, nil
}

// foreseer counts the data extents of a step that is worked out.
type foreseer struct {
	d    *Drop
	span *span
	plan Plan
	data func(at ondisk.Bytenr, n uint64) error
}

// pass counts the extents from t.from on, as far as t can hold them.
func (f *foreseer) pass(ctx context.Context, t *tally) error {
	leaves := f.span.lists[0]
	for len(leaves) > 0 {
		n := min(len(leaves), leafBatch)
		_, nodes, err := f.span.readDying(ctx, leaves[:n])
		if err != nil {
			return err
		}
		for i := range nodes {
			t.add(nodes[i].Data)
		}
		leaves = leaves[n:]
	}
	t.sum()
	if f.span.sweep != nil {
		return f.withSwept(ctx, t)
	}
	return f.count(ctx, t.list)
}

// withSwept also counts what extents lose by unread parents.
func (f *foreseer) withSwept(ctx context.Context, t *tally) error {
	list, some := t.list, make([]lost, 0, countBatch)
	take := func(l lost) (err error) {
		if some = append(some, l); len(some) == cap(some) {
			err = f.count(ctx, some)
			some = some[:0]
		}
		return err
	}
	err := f.span.account.Survey(ctx, &f.span.sweep.parents, true, func(l ref.Loss) error {
		if l.At < t.from || t.to != 0 && l.At >= t.to {
			return nil
		}
		f.plan.Swept += l.N
		for len(list) > 0 && list[0].at < l.At {
			if err := take(list[0]); err != nil {
				return err
			}
			list = list[1:]
		}
		n := l.N
		if len(list) > 0 && list[0].at == l.At {
			n += uint64(list[0].by)
			list = list[1:]
		}
		if n != l.Refs {
			return nil
		}
		return take(lost{at: l.At, n: l.Len, dead: true})
	})
	if err == nil {
		err = f.count(ctx, some)
	}
	if err != nil {
		return err
	}
	return f.count(ctx, list)
}

// countBatch is how many counts are looked up at once.
const countBatch = 1 << 16

// count adds the extents that lose all the references they have.
func (f *foreseer) count(ctx context.Context, list []lost) error {
	for len(list) > 0 {
		n := min(countBatch, len(list))
		if err := f.countSome(ctx, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (f *foreseer) countSome(ctx context.Context, list []lost) error {
	at := make([]ondisk.Bytenr, 0, len(list))
	for _, l := range list {
		if !l.dead {
			at = append(at, l.at)
		}
	}
	infos := make([]ref.Info, len(at))
	if err := f.d.counts.Lookup(ctx, at, infos); err != nil {
		return err
	}
	for _, l := range list {
		if !l.dead {
			l.dead = infos[0].Found && infos[0].Refs == uint64(l.by)
			infos = infos[1:]
		}
		if !l.dead {
			continue
		}
		f.plan.Extents++
		f.plan.DataBytes += l.n
		if f.data == nil {
			continue
		}
		if err := f.data(l.at, l.n); err != nil {
			return err
		}
	}
	return nil
}
