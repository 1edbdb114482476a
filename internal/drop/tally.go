package drop

import (
	"cmp"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// defaultExtents is how many data extents a dry run remembers at once: 96 MiB of them.
const defaultExtents = 1 << 22

// lost is a data extent and how many references it would lose.
type lost struct {
	at ondisk.Bytenr
	n  uint64
	by uint32

	dead bool // all that it has, as is known already
}

// tally sums up what the extents from an address on lose. When there are too many it keeps those with the lowest addresses, and the end of what it
// knows comes down.
type tally struct {
	from, to ondisk.Bytenr // to: 0 while there is no end
	limit    int
	list     []lost
}

func (t *tally) add(refs []ref.Ref) {
	if t.limit <= 0 {
		t.limit = defaultExtents
	}
	for _, r := range refs {
		if r.At < t.from || t.to != 0 && r.At >= t.to {
			continue
		}
		if len(t.list) >= t.limit {
			t.shrink()
			if t.to != 0 && r.At >= t.to {
				continue
			}
		}
		t.list = append(t.list, lost{at: r.At, n: r.Len, by: 1})
	}
}

// sum sorts the list, with one entry for each extent.
func (t *tally) sum() {
	slices.SortFunc(t.list, func(a, b lost) int { return cmp.Compare(a.at, b.at) })
	out := t.list[:0]
	for _, l := range t.list {
		if n := len(out); n > 0 && out[n-1].at == l.at {
			out[n-1].by += l.by
			continue
		}
		out = append(out, l)
	}
	t.list = out
}

// shrink makes room for half of the limit at least.
func (t *tally) shrink() {
	t.sum()
	if keep := max(1, t.limit/2); len(t.list) > keep {
		t.to = t.list[keep].at
		t.list = t.list[:keep]
	}
}
