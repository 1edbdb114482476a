package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// collector gathers, in a second walk, the references of extents whose
// fingerprints differ.
type collector struct {
	mu    sync.Mutex
	tally map[ondisk.Bytenr]*tally
}

// tally counts the references of one extent.
type tally struct {
	recorded, found map[ref.Ref]int64
}

// plain keeps of a reference what makes it equal to others.
func plain(r ref.Ref) ref.Ref {
	return ref.Ref{Kind: r.Kind, Root: r.Root, Parent: r.Parent, Ino: r.Ino, Offset: r.Offset}
}

func (x *collector) recorded(at ondisk.Bytenr, r ref.Ref, n uint32) {
	if t := x.tally[at]; t != nil {
		t.recorded[plain(r)] += int64(n)
	}
}

func (x *collector) met(r ref.Ref) {
	if t := x.tally[r.At]; t != nil {
		x.mu.Lock()
		t.found[plain(r)]++
		x.mu.Unlock()
	}
}

// compare finds the extents whose references are not what the extent tree says.
func (c *checker) compare(ctx context.Context) {
	if !c.extentOK {
		c.rep.warn(Place{Tree: ondisk.ExtentTree, Slot: -1}, "", "references can not be compared: not all of the extent tree is readable")
		return
	}
	const details = 100
	x := &collector{tally: map[ondisk.Bytenr]*tally{}}
	var list []int
	for i, e := range c.ext.ext {
		if e.count == e.refs && e.found == e.count && e.want == e.have {
			continue
		}
		if len(list) < details {
			x.tally[ondisk.Bytenr(c.ext.at[i])] = &tally{map[ref.Ref]int64{}, map[ref.Ref]int64{}}
		}
		list = append(list, i)
	}
	if len(list) == 0 {
		return
	}
	second := newChecker(c.v, c.opt)
	second.tops, second.collect = c.tops, x
	second.readExtents(ctx)
	second.walk(ctx)
	for _, i := range list {
		if ctx.Err() != nil {
			return
		}
		c.mismatch(ondisk.Bytenr(c.ext.at[i]), c.ext.ext[i], x.tally[ondisk.Bytenr(c.ext.at[i])])
	}
}

// mismatch reports one extent.
func (c *checker) mismatch(at ondisk.Bytenr, e *extent, t *tally) {
	kind := "data extent"
	if e.block() {
		kind = "tree block"
	}
	p := Place{Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1}
	meaning := "freeing it may come too early or never"
	if e.found == 0 {
		meaning = "its space is lost"
	}
	say := c.rep.bad
	if !c.walkOK && e.found < e.count && e.count == e.refs {
		say, meaning = c.rep.warn, "blocks that can not be read may hold the rest"
	}
	say(p, meaning, "%s says %d references, has %d back references, %d found%s", kind, e.refs, e.count, e.found, t.differences())
}

// differences lists the references that are recorded and found in different
// numbers.
func (t *tally) differences() string {
	if t == nil {
		return ""
	}
	var all []ref.Ref
	for r, n := range t.recorded {
		if t.found[r] != n {
			all = append(all, r)
		}
	}
	for r := range t.found {
		if _, ok := t.recorded[r]; !ok {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, ref.Compare)
	s := ""
	for i, r := range all {
		if i == 4 {
			return s + fmt.Sprintf("; and %d more", len(all)-i)
		}
		s += fmt.Sprintf("; %s recorded %d, found %d", refText(r), t.recorded[r], t.found[r])
	}
	return s
}

func refText(r ref.Ref) string {
	switch r.Kind {
	case ref.KindTreeBlock:
		return fmt.Sprintf("%v root %d", r.Kind, int64(r.Root))
	case ref.KindData:
		return fmt.Sprintf("%v root %d inode %d offset %d", r.Kind, int64(r.Root), r.Ino, int64(r.Offset))
	}
	return fmt.Sprintf("%v parent %d", r.Kind, uint64(r.Parent))
}

// group is a block group.
type group struct {
	start, length uint64
	used, flags   uint64 // stated
	sum           uint64 // counted
}

func (g *group) end() uint64 { return g.start + g.length }

// addGroup notes a BLOCK_GROUP_ITEM, of whichever tree holds them.
func (c *checker) addGroup(it item) {
	g, err := ondisk.DecodeBlockGroupItem(it.data)
	if err != nil {
		c.rep.bad(it.place(ondisk.BlockGroupTree), "", "%v", err)
		return
	}
	if n := len(c.groups); n > 0 && c.groups[n-1].end() > it.key.Objectid {
		c.rep.bad(it.place(ondisk.BlockGroupTree), "", "block groups overlap")
	}
	c.groups = append(c.groups, group{start: it.key.Objectid, length: it.key.Offset, used: g.Used, flags: g.Flags})
}

// groupOf gives the block group that holds an address.
func (c *checker) groupOf(at uint64) *group {
	i, ok := slices.BinarySearchFunc(c.groups, at, func(g group, at uint64) int { return cmp.Compare(g.start, at) })
	if !ok {
		i--
	}
	if i < 0 || at >= c.groups[i].end() {
		return nil
	}
	return &c.groups[i]
}
