package drop

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// read reads blocks with all workers; the result is in the order of ps, whatever the workers do.
func (d *Drop) read(ctx context.Context, ps []Ptr) ([]Node, error) {
	out := make([]Node, len(ps))
	if len(ps) == 0 {
		return out, nil
	}
	d.stats.Reads += uint64(len(ps))
	order := make([]int, len(ps)) // by address: the order in which devices like to be read
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(ps[a].At, ps[b].At) })
	if len(ps) > 1 {
		sorted := make([]Ptr, len(ps))
		for i, j := range order {
			sorted[i] = ps[j]
		}
		d.blocks.Prefetch(ctx, sorted)
	}
	workers := min(d.opt.Workers, len(ps))
	errs := make([]error, len(ps))
	var next atomic.Int64
	work := func() {
		var scratch []ref.Ref // what a leaf refers to: how many is not known before
		for {
			i := int(next.Add(1)) - 1
			if i >= len(order) {
				return
			}
			j := order[i]
			if errs[j] = ctx.Err(); errs[j] == nil {
				out[j], errs[j] = d.blocks.Node(ctx, ps[j], scratch[:0])
				scratch, out[j].Data = out[j].Data, slices.Clone(out[j].Data)
			}
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
