package check

import "github.com/gobtrfs/gobtrfs/internal/ondisk"

// summary says what the inodes in a run of leaves add up to. Summaries of
// neighbouring runs can be joined: only the first and the last inode of a run may
// go on beyond it, those between are judged and folded into sums. So the summary
// of a shared block is made once and serves every tree that shares it.
type summary struct {
	parts               int // 0: no inodes; 1: first is all; 2: at least first and last
	first               part
	lastPart            part
	last                ondisk.Key
	names               names
	unlinked            []uint64 // inodes without names
	orphans             []uint64 // inodes with orphan items
	rootDir             bool     // holds the root directory
	incomplete          bool     // something could not be read
	tornLeft, tornRight bool     // what lies there could not be read
}

// names are sums of hashes. Every name is told three times, so they must be
// equal in pairs.
type names struct {
	items   uint64 // of (directory, name, target, type), from DIR_ITEMs
	indexes uint64 // the same, from DIR_INDEXes
	entries uint64 // of (directory, index, name, inode) times type, from DIR_INDEXes
	refs    uint64 // the same, from INODE_REFs and INODE_EXTREFs
}

func (n *names) add(o names) {
	n.items += o.items
	n.indexes += o.indexes
	n.entries += o.entries
	n.refs += o.refs
}

// part is what the items of one inode, or some of them in a row, tell.
type part struct {
	ino          uint64
	torn         bool // some items may be lost
	hasItem      bool
	mode, nlink  uint32
	size, nbytes uint64
	flags        uint64
	refs         uint32 // names, the root directory's ".." not counted
	refHash      uint64 // sum of hashes, not yet times type
	dotdot       bool   // the root directory's ".."
	itemLen      uint64 // of names in DIR_ITEMs
	indexLen     uint64 // of names in DIR_INDEXes
	first, end   uint64 // of extents
	hasExtents   bool
	gap          bool
	inline       uint64 // bytes of an inline extent
	hasInline    bool
	regular      bool
	compressed   bool
	bytes        uint64 // what nbytes should be
	noSum        uint64 // bytes without checksum that would need one
	noSumAt      ondisk.Bytenr
	withSum      uint64 // bytes with checksums, of extents that are not preallocated
}

// merge adds what comes right after p of the same inode.
func (p *part) merge(c *checker, g *grove, o *part) {
	if o.hasItem {
		p.hasItem, p.mode, p.nlink, p.size, p.nbytes, p.flags = true, o.mode, o.nlink, o.size, o.nbytes, o.flags
	}
	p.torn = p.torn || o.torn
	p.refs += o.refs
	p.refHash += o.refHash
	p.dotdot = p.dotdot || o.dotdot
	p.itemLen += o.itemLen
	p.indexLen += o.indexLen
	p.hasInline = p.hasInline || o.hasInline
	p.inline += o.inline
	p.regular = p.regular || o.regular
	p.compressed = p.compressed || o.compressed
	p.bytes += o.bytes
	p.noSum += o.noSum
	if p.noSumAt == 0 {
		p.noSumAt = o.noSumAt
	}
	p.withSum += o.withSum
	if !o.hasExtents {
		return
	}
	if !p.hasExtents {
		p.hasExtents, p.first, p.end, p.gap = true, o.first, o.end, o.gap
		return
	}
	if o.first < p.end {
		c.rep.bad(inoPlace(g, p.ino), "contents of the file are in doubt", "extents overlap at %d", o.first)
	}
	p.gap = p.gap || o.gap || o.first > p.end
	p.end = o.end
}

// join adds b, which comes right after a, to a.
func (c *checker) join(g *grove, a, b *summary) {
	if !b.last.IsZero() {
		a.last = b.last
	}
	a.incomplete = a.incomplete || b.incomplete
	if !g.files {
		return // shared blocks were judged from a living tree
	}
	a.names.add(b.names)
	a.unlinked = append(a.unlinked, b.unlinked...)
	a.orphans = append(a.orphans, b.orphans...)
	a.rootDir = a.rootDir || b.rootDir
	if b.parts == 0 {
		if b.tornLeft || b.tornRight {
			a.tear()
		}
		return
	}
	first, torn := b.first, a.tornRight || b.tornLeft
	first.torn = first.torn || torn
	a.tornRight = b.tornRight
	if a.parts == 0 {
		a.parts, a.first, a.lastPart = b.parts, first, b.lastPart
		a.tornLeft = a.tornLeft || torn
		return
	}
	left := a.right()
	left.torn = left.torn || torn
	if left.ino == first.ino {
		left.merge(c, g, &first)
		if b.parts == 1 {
			return
		}
		if a.parts == 2 {
			c.finish(g, a, &a.lastPart)
		}
		a.parts, a.lastPart = 2, b.lastPart
		return
	}
	if a.parts == 2 {
		c.finish(g, a, &a.lastPart)
	}
	if b.parts == 2 {
		c.finish(g, a, &first)
		a.lastPart = b.lastPart
	} else {
		a.lastPart = first
	}
	a.parts = 2
}

// right is the part at the right end.
func (s *summary) right() *part {
	if s.parts == 2 {
		return &s.lastPart
	}
	return &s.first
}

// tear notes that what follows could not be read.
func (s *summary) tear() {
	if s.parts > 0 {
		s.right().torn = true
	} else {
		s.tornLeft = true
	}
	s.tornRight = true
}

// close judges what is still open at both ends: nothing comes before or after.
func (c *checker) close(g *grove, s *summary) {
	if s.parts >= 1 {
		c.finish(g, s, &s.first)
	}
	if s.parts == 2 {
		c.finish(g, s, &s.lastPart)
	}
	s.parts = 0
}
