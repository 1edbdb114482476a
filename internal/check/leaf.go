package check

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

var le = binary.LittleEndian

// leafReader makes the summary of one leaf of a subvolume, item by item.
type leafReader struct {
	c   *checker
	g   *grove
	b   ondisk.Block
	out summary
	cur summary // one part: the inode at hand

	plain []byte // room for what is compressed in the leaf
}

// leaf gives the summary of a leaf.
func (c *checker) leaf(g *grove, b ondisk.Block) *summary {
	l := leafReader{c: c, g: g, b: b}
	l.out.last = lastKey(b)
	for i := range b.NrItems() {
		l.item(i)
	}
	l.flush()
	return &l.out
}

// flush joins the inode at hand to the summary.
func (l *leafReader) flush() {
	if l.cur.parts > 0 {
		l.c.join(l.g, &l.out, &l.cur)
	}
	l.cur = summary{}
}

// part is the inode that the items from now on belong to.
func (l *leafReader) part(ino uint64) *part {
	if l.cur.parts == 0 || l.cur.first.ino != ino {
		l.flush()
		l.cur.parts, l.cur.first.ino = 1, ino
	}
	return &l.cur.first
}

func (l *leafReader) place(slot int) Place {
	return Place{Tree: l.g.id, Bytenr: l.b.Bytenr(), Slot: slot, Key: l.b.Key(slot)}
}

func (l *leafReader) item(i int) {
	k, b := l.b.Key(i), l.b.Item(i)
	switch k.Type {
	case ondisk.TypeOrphanItem:
		if k.Objectid == ondisk.OrphanObjectid {
			l.out.orphans = append(l.out.orphans, k.Offset)
		}
		return
	case ondisk.TypeInodeItem:
		l.inode(l.part(k.Objectid), b)
	case ondisk.TypeInodeRef:
		l.inodeRef(l.part(k.Objectid), k, b)
	case ondisk.TypeInodeExtref:
		l.inodeExtref(l.part(k.Objectid), b)
	case ondisk.TypeDirItem:
		l.dirItem(l.part(k.Objectid), i, k, b)
	case ondisk.TypeDirIndex:
		l.dirIndex(l.part(k.Objectid), i, k, b)
	case ondisk.TypeExtentData:
		l.fileExtent(l.part(k.Objectid), i, k, b)
	case ondisk.TypeXattrItem, ondisk.TypeVerityDesc, ondisk.TypeVerityMerkle:
		l.part(k.Objectid)
	default:
		l.c.rep.warn(l.place(i), "", "item of a type that does not belong into a subvolume")
	}
}

func (l *leafReader) inode(p *part, b []byte) {
	it, err := ondisk.DecodeInodeItem(b)
	if err != nil {
		return // treecheck let it pass, so this can not be
	}
	p.hasItem, p.mode, p.nlink, p.size, p.nbytes, p.flags = true, it.Mode, it.Nlink, it.Size, it.Nbytes, it.Flags
}

// hash of one name with what belongs to it.
func (c *checker) nameHash(name []byte, a, b, d uint64) uint64 {
	h := maphash.Bytes(c.seed, name)
	return mix(mix(mix(h^a)+b) ^ d)
}

// typeHash is what hashes are multiplied with for a type of file.
func typeHash(ft uint8) uint64 { return mix(uint64(ft)+77) | 1 }

func (l *leafReader) inodeRef(p *part, k ondisk.Key, b []byte) {
	for len(b) >= 10 {
		n := 10 + int(le.Uint16(b[8:]))
		if n > len(b) {
			return
		}
		index, name := le.Uint64(b), b[10:n]
		b = b[n:]
		if k.Objectid == ondisk.FirstFreeObjectid && k.Offset == k.Objectid && string(name) == ".." && index == 0 {
			p.dotdot = true
			continue
		}
		p.refs++
		p.refHash += l.c.nameHash(name, k.Offset, index, k.Objectid)
	}
}

func (l *leafReader) inodeExtref(p *part, b []byte) {
	for len(b) >= 18 {
		n := 18 + int(le.Uint16(b[16:]))
		if n > len(b) {
			return
		}
		p.refs++
		p.refHash += l.c.nameHash(b[18:n], le.Uint64(b), le.Uint64(b[8:]), p.ino)
		b = b[n:]
	}
}

// entry splits the first directory entry off b.
func entry(b []byte) (loc ondisk.Key, ft uint8, name, rest []byte, ok bool) {
	if len(b) < ondisk.DirEntrySize {
		return
	}
	n := ondisk.DirEntrySize + int(le.Uint16(b[27:]))
	end := n + int(le.Uint16(b[25:]))
	if end > len(b) {
		return
	}
	return ondisk.DecodeKey(b), b[29] & 0x7f, b[ondisk.DirEntrySize:n], b[end:], true
}

// entryHash is the hash that DIR_ITEM and DIR_INDEX of one name share.
func (l *leafReader) entryHash(dir uint64, loc ondisk.Key, ft uint8, name []byte) uint64 {
	return l.c.nameHash(name, dir, loc.Objectid, uint64(loc.Type)<<8|uint64(ft))
}

func (l *leafReader) dirItem(p *part, slot int, k ondisk.Key, b []byte) {
	all := b
	for len(b) > 0 {
		loc, ft, name, rest, ok := entry(b)
		if !ok {
			return
		}
		if hasName(all[:len(all)-len(b)], name) {
			l.c.rep.bad(l.place(slot), "one of the files can not be reached", "name %q twice", name)
		}
		p.itemLen += uint64(len(name))
		l.cur.names.items += l.entryHash(k.Objectid, loc, ft, name)
		b = rest
	}
}

// hasName tells whether the entries in b have a name.
func hasName(b, name []byte) bool {
	for len(b) > 0 {
		_, _, n, rest, ok := entry(b)
		if !ok {
			return false
		}
		if string(n) == string(name) {
			return true
		}
		b = rest
	}
	return false
}

func (l *leafReader) dirIndex(p *part, slot int, k ondisk.Key, b []byte) {
	loc, ft, name, rest, ok := entry(b)
	if !ok {
		return
	}
	if len(rest) > 0 {
		l.c.rep.bad(l.place(slot), "", "more than one name at one index")
	}
	p.indexLen += uint64(len(name))
	l.cur.names.indexes += l.entryHash(k.Objectid, loc, ft, name)
	if loc.Type == ondisk.TypeInodeItem {
		l.cur.names.entries += l.c.nameHash(name, k.Objectid, k.Offset, loc.Objectid) * typeHash(ft)
	}
}

func (l *leafReader) fileExtent(p *part, slot int, k ondisk.Key, b []byte) {
	e, err := ondisk.DecodeFileExtent(b)
	if err != nil {
		return
	}
	o := part{ino: p.ino, hasExtents: true, first: k.Offset, end: k.Offset + e.NumBytes, compressed: e.Compression != ondisk.CompressNone}
	switch {
	case e.Type == ondisk.ExtentInline:
		o.hasInline, o.inline, o.bytes = true, e.RAMBytes, e.RAMBytes
		o.end = (e.RAMBytes + l.c.sector - 1) / l.c.sector * l.c.sector
		l.encoding(slot, e)
		l.inline(slot, e)
	case e.DiskBytenr == 0:
		o.compressed = false
		l.lengths(slot, e)
	default:
		o.regular, o.bytes = true, e.NumBytes
		l.regular(&o, slot, e)
	}
	p.merge(l.c, l.g, &o)
}

// inline judges the lengths of an inline extent, and what is compressed in it: no checksum but the leaf's stands behind those
// bytes. Where they cannot be decoded, only the file is lost (volumes restored by btrfs-image have zeros there): a warning.
func (l *leafReader) inline(slot int, e ondisk.FileExtent) {
	limit := min(l.c.sector, l.c.node-ondisk.HeaderSize-ondisk.ItemSize-ondisk.FileExtentInlineStart)
	if e.RAMBytes == 0 || e.RAMBytes > l.c.sector || uint64(len(e.Inline)) > limit {
		l.c.rep.bad(l.place(slot), "", "inline extent of %d bytes, %d stored", e.RAMBytes, len(e.Inline))
		return
	}
	if e.Compression == ondisk.CompressNone {
		return
	}
	if uint64(cap(l.plain)) < e.RAMBytes+compress.Slack {
		l.plain = make([]byte, l.c.sector+compress.Slack)
	}
	if err := compress.Decode(e.Compression, l.plain[:e.RAMBytes], e.Inline, int(l.c.sector), true); err != nil {
		l.c.rep.warn(l.place(slot), "the file can not be read", "%v", err)
	}
}

// lengths judges what must hold of holes too.
func (l *leafReader) lengths(slot int, e ondisk.FileExtent) bool {
	if e.NumBytes == 0 || e.Offset+e.NumBytes > e.RAMBytes {
		l.c.rep.bad(l.place(slot), "reading it may give nonsense", "file extent of %d bytes from %d of only %d", e.NumBytes, e.Offset, e.RAMBytes)
		return false
	}
	return l.encoding(slot, e)
}

// encoding judges what is said of how the bytes of an extent are to be read.
func (l *leafReader) encoding(slot int, e ondisk.FileExtent) bool {
	if e.OtherEncoding != 0 || e.Type == ondisk.ExtentPrealloc && e.Compression != 0 {
		l.c.rep.bad(l.place(slot), "reading it may give nonsense", "unknown encoding %d, compression %d", e.OtherEncoding, e.Compression)
		return false
	}
	return true
}

// regular judges the lengths of an extent and looks for its checksums.
func (l *leafReader) regular(o *part, slot int, e ondisk.FileExtent) {
	if !l.lengths(slot, e) {
		return
	}
	if e.Compression == ondisk.CompressNone && e.RAMBytes != e.DiskNumBytes {
		l.c.rep.warn(l.place(slot), "", "ram_bytes %d differs from disk_num_bytes %d of an extent that is not compressed", e.RAMBytes, e.DiskNumBytes)
	}
	if e.Compression == ondisk.CompressNone && e.Offset+e.NumBytes > e.DiskNumBytes {
		l.c.rep.bad(l.place(slot), "reading it fails", "file extent of %d bytes from %d of only %d on disk", e.NumBytes, e.Offset, e.DiskNumBytes)
	}
	if e.Compression != ondisk.CompressNone && max(e.RAMBytes, e.DiskNumBytes) > compress.MaxExtent {
		l.c.rep.bad(l.place(slot), "reading it may fail", "compressed extent of %d bytes, %d on disk; none is larger than %d", e.RAMBytes, e.DiskNumBytes, compress.MaxExtent)
	}
	if e.Type == ondisk.ExtentPrealloc {
		return
	}
	at, n := e.DiskBytenr+ondisk.Bytenr(e.Offset), e.NumBytes
	if e.Compression != ondisk.CompressNone {
		at, n = e.DiskBytenr, e.DiskNumBytes
	}
	have := l.c.sums.covered(uint64(at), n)
	o.withSum = have
	if have < n {
		o.noSum, o.noSumAt = n-have, at
	}
}
