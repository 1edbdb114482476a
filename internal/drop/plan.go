package drop

import (
	"context"

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
}

// Visitor is told what would die. Each function may be nil.
type Visitor struct {
	Block func(at ondisk.Bytenr)                 // tree blocks
	Data  func(at ondisk.Bytenr, n uint64) error // data extents, by address
}

// Foresee is the dry run: the same walk, with changes counted instead of made.
func Foresee(ctx context.Context, blocks Blocks, counts Counts, roots []Root, o Options, v Visitor) (Plan, error) {
	f := &foreseer{Counts: counts, data: v.Data}
	d, err := New(blocks, f, roots, o)
	if err != nil {
		return Plan{}, err
	}
	d.foresee, d.onDead = true, v.Block
	if _, err := d.Step(ctx, Budget{}); err != nil {
		return Plan{}, err
	}
	f.plan.Blocks = d.stats.Freed
	f.plan.MetadataBytes = d.stats.Freed * uint64(o.Nodesize)
	f.plan.Reads = d.stats.Reads
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
	var list []lost
	for i := 0; i < len(changes); {
		l := lost{at: changes[i].At, n: changes[i].Len}
		data := false
		for ; i < len(changes) && changes[i].At == l.at; i++ {
			data = data || changes[i].Kind == ref.KindData || changes[i].Kind == ref.KindSharedData
			l.by -= int64(changes[i].Delta)
		}
		if data && l.by > 0 {
			list = append(list, l)
		}
	}
	const batch = 1 << 16
	for len(list) > 0 {
		n := min(len(list), batch)
		if err := f.judge(ctx, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (f *foreseer) judge(ctx context.Context, list []lost) error {
	at := make([]ondisk.Bytenr, len(list))
	for i, l := range list {
		at[i] = l.at
	}
	infos := make([]ref.Info, len(list))
	if err := f.Lookup(ctx, at, infos); err != nil {
		return err
	}
	for i, l := range list {
		if !infos[i].Found || infos[i].Refs != uint64(l.by) {
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
