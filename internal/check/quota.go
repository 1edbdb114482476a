package check

import (
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// graph holds, while quota is on, to which extents each tree block refers, all
// by their index in the table: so that what a subvolume reaches can be counted
// without reading again.
type graph [][]uint32

// link notes the references that leave a block. Each block is visited once, so
// there is no lock.
func (c *checker) link(at ondisk.Bytenr, refs []ref.Ref) {
	if c.links == nil || len(refs) == 0 {
		return
	}
	i := c.ext.index(at)
	if i < 0 {
		return
	}
	out := make([]uint32, 0, len(refs))
	for _, r := range refs {
		if to := c.ext.index(r.At); to >= 0 {
			out = append(out, uint32(to))
		}
	}
	c.links[i] = out
}

// qgroups is the quota tree.
type qgroups struct {
	infos   map[uint64]ondisk.QgroupInfo
	members map[uint64][]uint64 // of groups of a higher level
	ids     []uint64
}

// readQuota reads the quota tree, if its numbers are meant to be right.
func (c *checker) readQuota(ctx context.Context) {
	if c.topOf(ondisk.QuotaTree) == nil {
		return
	}
	t := c.tree(ctx, ondisk.QuotaTree)
	if t == nil {
		return
	}
	q := &qgroups{infos: map[uint64]ondisk.QgroupInfo{}, members: map[uint64][]uint64{}}
	var status ondisk.QgroupStatus
	whole := c.each(ctx, t, func(it item) {
		switch it.key.Type {
		case ondisk.TypeQgroupStatus:
			status, _ = ondisk.DecodeQgroupStatus(it.data)
		case ondisk.TypeQgroupInfo:
			if info, err := ondisk.DecodeQgroupInfo(it.data); err == nil {
				q.infos[it.key.Offset] = info
				q.ids = append(q.ids, it.key.Offset)
			}
		case ondisk.TypeQgroupRelation:
			if it.key.Objectid>>48 > it.key.Offset>>48 {
				q.members[it.key.Objectid] = append(q.members[it.key.Objectid], it.key.Offset)
			}
		}
	})
	const doubtful = ondisk.QgroupInconsistent | ondisk.QgroupRescan | ondisk.QgroupSimple
	if whole && status.Flags&ondisk.QgroupOn != 0 && status.Flags&doubtful == 0 {
		c.quotas, c.links = q, make(graph, len(c.ext.at))
	}
}

// quota recounts what every qgroup refers to, alone and together with others.
func (c *checker) quota(ctx context.Context) {
	q := c.quotas
	if q == nil || !c.extentOK || !c.walkOK || c.rep.errors() > 0 {
		return // the numbers could not fit
	}
	r := c.reach()
	for _, id := range q.ids {
		if ctx.Err() != nil {
			return
		}
		info, sum := q.infos[id], r.count(q.subvolumes(id, 0))
		if info.Rfer != sum.rfer || info.Excl != sum.excl {
			c.rep.bad(Place{Tree: ondisk.QuotaTree, Slot: -1}, "limits work wrongly until a rescan", "qgroup %d/%d says %d bytes referenced, %d exclusive; counted %d and %d",
				id>>48, id&(1<<48-1), info.Rfer, info.Excl, sum.rfer, sum.excl)
		}
	}
}

// subvolumes lists the subvolumes in a qgroup, through groups in between.
func (q *qgroups) subvolumes(id uint64, depth int) []ondisk.TreeID {
	if id>>48 == 0 {
		return []ondisk.TreeID{ondisk.TreeID(id)}
	}
	var out []ondisk.TreeID
	for _, m := range q.members[id] {
		if depth < 100 && m>>48 < id>>48 {
			out = append(out, q.subvolumes(m, depth+1)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reach counts by how many subvolumes each extent is reached.
type reach struct {
	links graph
	ext   []*extent
	roots map[ondisk.TreeID]uint32
	by    []uint32 // number of subvolumes that reach an extent
	stamp []uint32 // the last round that came by
	round uint32
}

// usage is what a qgroup uses.
type usage struct{ rfer, excl uint64 }

func (c *checker) reach() *reach {
	n := len(c.ext.at)
	r := &reach{links: c.links, ext: c.ext.ext, roots: map[ondisk.TreeID]uint32{}, by: make([]uint32, n), stamp: make([]uint32, n)}
	for _, t := range c.tops {
		if i := c.ext.index(t.item.Bytenr); i >= 0 && t.id.IsSubvolume() {
			r.roots[t.id] = uint32(i)
		}
	}
	for _, root := range r.roots {
		r.round++
		r.down(root, func(i uint32) { r.by[i]++ })
	}
	return r
}

// down calls visit for what is reached from i and was not yet in this round.
func (r *reach) down(i uint32, visit func(uint32)) {
	if r.stamp[i] == r.round {
		return
	}
	r.stamp[i] = r.round
	visit(i)
	for _, to := range r.links[i] {
		r.down(to, visit)
	}
}

// count adds up what a set of subvolumes uses.
func (r *reach) count(ids []ondisk.TreeID) (u usage) {
	inside := map[uint32]uint32{}
	for _, id := range ids {
		root, ok := r.roots[id]
		if !ok {
			continue
		}
		r.round++
		if len(ids) > 1 {
			r.down(root, func(i uint32) { inside[i]++ })
			continue
		}
		r.down(root, func(i uint32) {
			u.rfer += r.ext[i].length
			if r.by[i] == 1 {
				u.excl += r.ext[i].length
			}
		})
	}
	for i, n := range inside {
		u.rfer += r.ext[i].length
		if n == r.by[i] {
			u.excl += r.ext[i].length
		}
	}
	return u
}
