package cleaner

import (
	"cmp"
	"context"
	"slices"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ruler tells how far a drop got. A step gives up the references below some key in all trees at once, so the share of keys below the cuts is about the
// share of the work that is done. The keys are those of nodes near the root of one tree, in order.
type ruler []ondisk.Key

// rulerMarks is how many keys are enough.
const rulerMarks = 100

// newRuler reads the upper nodes of the tallest tree. It only serves who wants to know: what cannot be read is left out.
func (c *cleaner) newRuler(ctx context.Context, blocks drop.Blocks, set []drop.Root) ruler {
	if c.opt.Progress == nil || len(set) == 0 {
		return nil
	}
	tallest := slices.MaxFunc(set, func(a, b drop.Root) int {
		if a.Cut.IsZero() != b.Cut.IsZero() { // a whole one is better: of half dropped ones only the root is surely there
			return map[bool]int{true: 1, false: -1}[a.Cut.IsZero()]
		}
		return cmp.Compare(a.Block.Level, b.Block.Level)
	})
	level := []drop.Ptr{tallest.Block}
	for level[0].Level > 0 {
		var next []drop.Ptr
		for _, p := range level {
			if n, err := blocks.Node(ctx, p, nil); err == nil {
				next = append(next, n.Ptrs...)
			}
		}
		if len(next) == 0 {
			break
		}
		level = next
		if len(level) >= rulerMarks || !tallest.Cut.IsZero() {
			break
		}
	}
	r := make(ruler, len(level))
	for i, p := range level {
		r[i] = p.Key
	}
	return r
}

// part tells how far it got, from 0 to 1, by the cuts of what is left of a number of trees.
func (r ruler) part(left []drop.Root, of int) float64 {
	if len(left) == 0 {
		return 1
	}
	if len(r) < 2 {
		return float64(of-len(left)) / float64(of)
	}
	key := left[0].Cut.Key
	for _, l := range left[1:] {
		if l.Cut.Key.Less(key) {
			key = l.Cut.Key
		}
	}
	below := sort.Search(len(r), func(i int) bool { return !r[i].Less(key) })
	return float64(min(below, len(r)-1)) / float64(len(r))
}
