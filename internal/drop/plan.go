package drop

import (
	"cmp"
	"context"
	"math"
	"slices"

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

// Foresee is the dry run: the same walk, with changes counted instead of made.
func Foresee(ctx context.Context, blocks Blocks, counts Counts, roots []Root, o Options, v Visitor) (Plan, error) {
	f := &foreseer{Counts: counts, data: v.Data}
	refs := Refs(f)
	if whole, ok := counts.(Surveyor); ok {
		refs = &surveyingForeseer{f, whole}
	}
	d, err := New(blocks, refs, roots, o)
	if err != nil {
		return Plan{}, err
	}
	d.foresee, d.onDead = true, v.Block
	if _, err := d.Step(ctx, Budget{Sweep: math.MaxInt}); err != nil {
		return Plan{}, err
	}
	f.plan.Blocks = d.stats.Freed
	f.plan.MetadataBytes = d.stats.Freed * uint64(o.Nodesize)
	f.plan.Reads, f.plan.Swept = d.stats.Reads, d.stats.Swept
	return f.plan, nil
}

// foreseer is an account that only adds up.
type foreseer struct {
	Counts
	plan Plan
	data func(at ondisk.Bytenr, n uint64) error
}

// lost is a data extent and the references it would lose.
type lost struct {
	at ondisk.Bytenr
	n  uint64
	by int64
}

// Add finds the data extents that lose their last reference. Changes come sorted by address.
func (f *foreseer) Add(ctx context.Context, changes []ref.Change) error {
	dead, err := f.judge(ctx, losses(changes))
	if err != nil {
		return err
	}
	return f.count(dead)
}

// losses sums up what data extents lose by sorted changes.
func losses(changes []ref.Change) (list []lost) {
	for i := 0; i < len(changes); {
		l := lost{at: changes[i].At, n: changes[i].Len}
		data := false
		for ; i < len(changes) && changes[i].At == l.at; i++ {
			data = data || changes[i].Kind.IsData()
			l.by -= int64(changes[i].Delta)
		}
		if data && l.by > 0 {
			list = append(list, l)
		}
	}
	return list
}

// judge returns which extents lose all the references they have.
func (f *foreseer) judge(ctx context.Context, list []lost) (dead []lost, err error) {
	const batch = 1 << 16
	at := make([]ondisk.Bytenr, 0, min(batch, len(list)))
	infos := make([]ref.Info, cap(at))
	for ; len(list) > 0; list = list[len(at):] {
		at = at[:0]
		for _, l := range list[:min(batch, len(list))] {
			at = append(at, l.at)
		}
		if err := f.Lookup(ctx, at, infos[:len(at)]); err != nil {
			return nil, err
		}
		for i, l := range list[:len(at)] {
			if infos[i].Found && infos[i].Refs == uint64(l.by) {
				dead = append(dead, l)
			}
		}
	}
	return dead, nil
}

// count adds extents to the plan.
func (f *foreseer) count(dead []lost) error {
	for _, l := range dead {
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

// surveyingForeseer adds up over an account that can be read as a whole.
type surveyingForeseer struct {
	*foreseer
	Surveyor
}

// Lookup implements Counts.
func (f *surveyingForeseer) Lookup(ctx context.Context, at []ondisk.Bytenr, out []ref.Info) error {
	return f.Surveyor.Lookup(ctx, at, out)
}

// Sweep finds the data extents that lose their last reference: by changes, by unread parents, or by both.
func (f *surveyingForeseer) Sweep(ctx context.Context, changes []ref.Change, parents *ref.Set) (swept uint64, err error) {
	list := losses(changes)
	var dead, alone []lost // alone: of list, what no parent refers to
	err = f.Survey(ctx, parents, true, func(l ref.Loss) error {
		swept += l.N
		i, both := slices.BinarySearchFunc(list, l.At, func(a lost, at ondisk.Bytenr) int { return cmp.Compare(a.at, at) })
		alone, list = append(alone, list[:i]...), list[i:]
		n := l.N
		if both {
			n += uint64(list[0].by)
			list = list[1:]
		}
		if n == l.Refs {
			dead = append(dead, lost{at: l.At, n: l.Len})
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	more, err := f.judge(ctx, append(alone, list...))
	if err != nil {
		return 0, err
	}
	dead = append(dead, more...)
	slices.SortFunc(dead, func(a, b lost) int { return cmp.Compare(a.at, b.at) })
	return swept, f.count(dead)
}
