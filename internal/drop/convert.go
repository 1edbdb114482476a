package drop

import (
	"cmp"
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// top is a block that outlives its owner, with all below it that the owner wrote.
type top struct {
	ptr  Ptr
	info ref.Info
	kept *block // on the cut: only slots from there on
}

// wanted reports whether the block must be looked into.
// A node that carries FULL_BACKREF already may stand
// above blocks that do not: after relocation, and where a conversion was left half done.
func (t top) wanted() bool { return !isFull(t.info) || t.ptr.Level > 0 }

func unconverted(list []top) (n int) {
	for _, t := range list {
		if !isFull(t.info) {
			n++
		}
	}
	return n
}

// convertAll converts all tops of a span level by level, unless that exceeds the budget.
func (s *span) convertAll(ctx context.Context, b Budget) (fits bool, err error) {
	var pending [8][]top
	for _, t := range s.tops {
		pending[t.ptr.Level] = append(pending[t.ptr.Level], t)
	}
	converted, changes := s.d.stats.Converted, []ref.Change(nil)
	for l := 7; l >= 0; l-- {
		for i, t := range pending[l] {
			if x := s.levels[l][t.ptr.At]; x != nil && !t.info.Found {
				pending[l][i].info = x.info // looked up already, when it lost a reference
			}
		}
		list, err := s.d.judgeTops(ctx, pending[l])
		if err != nil {
			return false, err
		}
		if (b.Blocks > 0 && unconverted(list) > b.Blocks) || (b.Changes > 0 && len(changes) > b.Changes) {
			s.d.stats.Converted = converted
			return false, nil
		}
		for i := 0; i < len(list); i += leafBatch {
			batch := list[i:min(i+leafBatch, len(list))]
			nodes, err := s.d.read(ctx, ptrsOf(batch))
			if err != nil {
				return false, err
			}
			for j, t := range batch {
				if !s.d.dead(nodes[j].Owner) {
					continue
				}
				if changes = s.d.convert(t, &nodes[j], changes); s.d.foresee {
					changes = changes[:0]
				}
				if l > 0 {
					pending[l-1] = append(pending[l-1], s.d.below(t, &nodes[j])...)
				}
			}
		}
	}
	s.changes = append(s.changes, changes...)
	return true, nil
}

// judgeTops drops doubles, looks up the counts that are not known yet, and leaves those that must be looked into, by address.
func (d *Drop) judgeTops(ctx context.Context, list []top) ([]top, error) {
	slices.SortStableFunc(list, func(a, b top) int { return cmp.Compare(a.ptr.At, b.ptr.At) })
	uniq := list[:0]
	for _, t := range list {
		if n := len(uniq); n > 0 && uniq[n-1].ptr.At == t.ptr.At {
			if t.info.Found {
				uniq[n-1].info = t.info
			}
			continue
		}
		uniq = append(uniq, t)
	}
	var at []ondisk.Bytenr
	for _, t := range uniq {
		if !t.info.Found {
			at = append(at, t.ptr.At)
		}
	}
	infos, err := d.lookup(ctx, at)
	if err != nil {
		return nil, err
	}
	for i := range uniq {
		if !uniq[i].info.Found {
			uniq[i].info, infos = infos[0], infos[1:]
		}
	}
	return slices.DeleteFunc(uniq, func(t top) bool { return !t.wanted() }), nil
}

// below are the children of a converted block that its owner may have written.
func (d *Drop) below(t top, n *Node) []top {
	var out []top
	origin := d.oldest
	if r := d.dying[n.Owner]; r != nil && !n.Reloc {
		origin = r.Origin
	}
	for i, p := range n.Ptrs {
		if t.kept != nil && (i < t.kept.start || t.kept.onPath(i)) {
			continue
		}
		if p.Generation > origin {
			out = append(out, top{ptr: p})
		}
	}
	return out
}

// convert turns the references that leave a block into full ones and sets its flag.
func (d *Drop) convert(t top, n *Node, out []ref.Change) []ref.Change {
	if isFull(t.info) {
		return out
	}
	d.stats.Converted++
	self := ref.Ref{At: t.ptr.At, Len: uint64(d.opt.Nodesize), Level: t.ptr.Level, Kind: ref.KindTreeBlock}
	out = append(out, ref.Change{Ref: self, SetFull: true})
	for i, p := range n.Ptrs {
		if t.kept != nil && i < t.kept.start {
			continue
		}
		out = append(out,
			ref.Change{Ref: d.blockRef(p, t.ptr.At, n.Owner, false), Delta: -1},
			ref.Change{Ref: d.blockRef(p, t.ptr.At, n.Owner, true), Delta: 1})
	}
	for _, r := range n.Data {
		out = append(out, ref.Change{Ref: r, Delta: -1}, ref.Change{Ref: fullForm(r, t.ptr.At), Delta: 1})
	}
	return out
}

// converter converts as much as the budget allows, bottom up and in key order, so that what stays undone is found again by its flag.
type converter struct {
	d       *Drop
	left    int // blocks
	limit   int // changes
	changes []ref.Change
	done    ref.Set // blocks converted: tops may lie below each other
}

// convertSome finds the changes of a step that gives nothing up and only converts.
func (d *Drop) convertSome(ctx context.Context, tops []top, b Budget) ([]ref.Change, error) {
	c := &converter{d: d, left: b.Blocks, limit: b.Changes}
	if c.left == 0 {
		c.left = 1 << 30
	}
	for _, t := range tops {
		done, err := c.under(ctx, t)
		if err != nil {
			return nil, err
		}
		if !done {
			break
		}
		if t.kept != nil {
			d.settled[t.ptr.At] = true
		}
	}
	return c.changes, nil
}

func (c *converter) full() bool { return c.left <= 0 || (c.limit > 0 && len(c.changes) >= c.limit) }

// under converts what is below t, then t itself. It reports whether all is done.
func (c *converter) under(ctx context.Context, t top) (bool, error) {
	if !t.wanted() {
		return true, nil
	}
	nodes, err := c.d.read(ctx, []Ptr{t.ptr})
	if err != nil {
		return false, err
	}
	n := &nodes[0]
	if !c.d.dead(n.Owner) {
		return true, nil
	}
	kids, err := c.d.judgeTops(ctx, c.d.below(t, n))
	if err != nil {
		return false, err
	}
	if t.ptr.Level == 1 {
		if done, err := c.leaves(ctx, kids); !done {
			return false, err
		}
	} else {
		for _, k := range kids {
			if done, err := c.under(ctx, k); !done {
				return false, err
			}
		}
	}
	if isFull(t.info) {
		return true, nil
	}
	if c.full() {
		return false, nil
	}
	c.convert(t, n)
	return true, nil
}

func (c *converter) convert(t top, n *Node) {
	if !c.done.Has(t.ptr.At) {
		c.done.Add(t.ptr.At)
		c.left--
		c.changes = c.d.convert(t, n, c.changes)
	}
}

func (c *converter) leaves(ctx context.Context, kids []top) (bool, error) {
	for len(kids) > 0 {
		if c.full() {
			return false, nil
		}
		n := min(len(kids), 64, c.left)
		nodes, err := c.d.read(ctx, ptrsOf(kids[:n]))
		if err != nil {
			return false, err
		}
		for i := range nodes {
			if c.d.dead(nodes[i].Owner) {
				c.convert(kids[i], &nodes[i])
			}
		}
		kids = kids[n:]
	}
	return true, nil
}

func ptrsOf(list []top) []Ptr {
	out := make([]Ptr, len(list))
	for i, t := range list {
		out[i] = t.ptr
	}
	return out
}
