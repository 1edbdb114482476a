package mkfs

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// maxExtent is the longest extent of uncompressed data.
const maxExtent = 128 * mib

// contents writes the subvolumes, their files' data and the checksums of that.
func (b *builder) contents(ctx context.Context, s *scan) error {
	if s == nil {
		return b.empty()
	}
	b.subvol = s.subvols
	for _, sub := range s.subvols {
		sub.uuid = b.p.uuid(fmt.Sprintf("subvolume %d", sub.id))
	}
	bound := s.metadataBound(b.p)
	if b.p.opt.Shrink {
		b.space.first[metadata] = roundUp(bound, mib)
		b.space.first[system] = max(mib, 64*uint64(b.p.nodesize))
	}
	for _, k := range []kind{system, metadata} {
		if err := b.space.grow(k); err != nil {
			return err
		}
	}
	if have := b.space.areas[b.space.current[metadata]].Length; have < bound {
		b.space.reserve = (bound - have) * uint64(shapes(b.p.metadata).copies)
	}
	f := &filler{b: b, ctx: ctx, read: newReader(ctx, b.p, s), sums: b.newTree(ondisk.CsumTree, b.place(ondisk.CsumTree)), total: s.bytes}
	defer f.read.stop()
	f.sumSize = b.p.csum.Size()
	f.maxSums = ((ondisk.LeafData(int(b.p.nodesize))-50)/f.sumSize - 1) * f.sumSize
	for _, sub := range s.subvols {
		if err := f.subvolume(sub); err != nil {
			return err
		}
	}
	if err := f.flushSums(); err != nil {
		return err
	}
	return b.keep(f.sums)
}

// empty makes an empty top-level subvolume and no checksums.
func (b *builder) empty() error {
	b.subvol = []*subvolume{{id: ondisk.FSTree, uuid: b.p.uuid("subvolume 5")}}
	for _, k := range []kind{system, metadata, data} {
		if err := b.space.grow(k); err != nil {
			return err
		}
	}
	top := b.newTree(ondisk.FSTree, b.place(ondisk.FSTree))
	if err := addEmptyRoot(b.p, top.add); err != nil {
		return err
	}
	if err := b.keep(top); err != nil {
		return err
	}
	return b.keep(b.newTree(ondisk.CsumTree, b.place(ondisk.CsumTree)))
}

// keep finishes a tree and remembers it.
func (b *builder) keep(w *treeWriter) error {
	t, err := w.finish()
	b.trees = append(b.trees, t)
	return err
}

// filler makes subvolumes from a scanned source, inode by inode.
type filler struct {
	b    *builder
	ctx  context.Context
	read *reader
	fs   *treeWriter
	id   ondisk.TreeID
	body []byte // memory for items

	open ondisk.FileExtent // an extent that may still grow; NumBytes 0: none
	off  uint64            // its place in the file

	sums        *treeWriter
	run         []byte        // checksums that follow each other
	runAt       ondisk.Bytenr // what the first of them is for
	runEnd      ondisk.Bytenr
	sumSize     int
	maxSums     int // bytes
	done, total uint64
}

func (f *filler) subvolume(sub *subvolume) error {
	f.fs, f.id = f.b.newTree(sub.id, f.b.place(sub.id)), sub.id
	for _, n := range sub.order {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		if err := f.inode(n, sub); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
		n.xattrs, n.target = nil, ""
	}
	return f.b.keep(f.fs)
}

func (f *filler) put(n *node, typ ondisk.KeyType, off uint64, body []byte) error {
	f.body = body
	return f.fs.add(ondisk.Key{Objectid: n.ino, Type: typ, Offset: off}, body)
}

// inode writes all items of an inode.
func (f *filler) inode(n *node, sub *subvolume) error {
	first, err := f.firstJob(n)
	if err != nil {
		return err
	}
	if err := f.put(n, ondisk.TypeInodeItem, 0, f.item(n, first).Append(f.body[:0])); err != nil {
		return err
	}
	if err := f.names(n, sub); err != nil {
		return err
	}
	if err := f.attributes(n); err != nil {
		return err
	}
	switch n.st.Mode & modeType {
	case modeDir:
		return f.entries(n)
	case modeLink:
		e := ondisk.FileExtent{Generation: generation, RAMBytes: n.st.Size, Type: ondisk.ExtentInline, Inline: []byte(n.target)}
		return f.put(n, ondisk.TypeExtentData, 0, e.Append(f.body[:0]))
	case modeRegular:
		if first != nil {
			return f.data(n, first)
		}
	}
	return nil
}

// firstJob waits for the first part of a regular file that has any.
func (f *filler) firstJob(n *node) (*job, error) {
	if n.st.Mode&modeType != modeRegular || n.st.Size == 0 {
		return nil, nil
	}
	return f.nextJob()
}

func (f *filler) nextJob() (*job, error) {
	j, ok := <-f.read.queue
	if !ok {
		return nil, context.Cause(f.ctx)
	}
	<-j.ready
	return j, j.err
}

// item gives the inode item.
func (f *filler) item(n *node, first *job) ondisk.InodeItem {
	p := f.b.p
	i := ondisk.InodeItem{
		Generation: generation, Transid: generation, Nlink: uint32(len(n.names)), UID: n.st.UID, GID: n.st.GID, Mode: n.st.Mode,
		Atime: n.st.Atime, Ctime: n.st.Ctime, Mtime: n.st.Mtime, Otime: p.now,
	}
	if p.opt.Reproducible { // reading changes the one, copying the other
		i.Atime, i.Ctime = n.st.Mtime, n.st.Mtime
	}
	switch n.st.Mode & modeType {
	case modeDir:
		i.Nlink = 1
		for _, k := range n.kids {
			i.Size += 2 * uint64(len(k.name))
		}
	case modeLink:
		i.Size, i.Nbytes = n.st.Size, n.st.Size
	case modeRegular:
		i.Size = n.st.Size
		if first != nil && first.inline != nil {
			i.Nbytes = first.inline.RAMBytes
		} else if first != nil {
			i.Nbytes = first.allocated
		}
	case modeChar, modeBlock:
		i.Rdev = uint64(n.st.Major)<<20 | uint64(n.st.Minor)
	}
	return i
}

// names writes where the inode is found: one item for each directory, and more for what does not fit there.
func (f *filler) names(n *node, sub *subvolume) error {
	if n == sub.root {
		return f.put(n, ondisk.TypeInodeRef, firstIno, ondisk.AppendInodeRef(f.body[:0], ondisk.InodeRef{Name: []byte("..")}))
	}
	slices.SortStableFunc(n.names, func(a, b *node) int { return cmp.Compare(a.parent.ino, b.parent.ino) })
	var rest []*node
	longest := ondisk.MaxItem(int(f.b.p.nodesize))
	for i := 0; i < len(n.names); {
		dir, body := n.names[i].parent.ino, f.body[:0]
		for ; i < len(n.names) && n.names[i].parent.ino == dir; i++ {
			if o := n.names[i]; len(body)+10+len(o.name) <= longest {
				body = ondisk.AppendInodeRef(body, ondisk.InodeRef{Index: o.index, Name: []byte(o.name)})
			} else {
				rest = append(rest, o)
			}
		}
		if err := f.put(n, ondisk.TypeInodeRef, dir, body); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	if f.b.p.incompat&ondisk.IncompatExtendedIref == 0 {
		return fmt.Errorf("too many hard links in one directory without the feature extref")
	}
	return f.hashed(n, ondisk.TypeInodeExtref, len(rest), func(i int) (uint64, func([]byte) []byte) {
		o := rest[i]
		name := []byte(o.name)
		return uint64(checksum.ExtrefHash(o.parent.ino, name)), func(b []byte) []byte {
			return ondisk.AppendInodeExtref(b, ondisk.InodeExtref{Parent: o.parent.ino, Index: o.index, Name: name})
		}
	})
}

// hashed writes count entries whose items are keyed by a hash; entries with the same one share an item.
func (f *filler) hashed(n *node, typ ondisk.KeyType, count int, entry func(i int) (hash uint64, add func([]byte) []byte)) error {
	type hashedEntry struct {
		hash uint64
		add  func([]byte) []byte
	}
	list := make([]hashedEntry, count)
	for i := range list {
		list[i].hash, list[i].add = entry(i)
	}
	slices.SortStableFunc(list, func(a, b hashedEntry) int { return cmp.Compare(a.hash, b.hash) })
	for i := 0; i < count; {
		hash, body := list[i].hash, f.body[:0]
		for ; i < count && list[i].hash == hash; i++ {
			body = list[i].add(body)
		}
		if err := f.put(n, typ, hash, body); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) attributes(n *node) error {
	slices.SortFunc(n.xattrs, func(a, b Xattr) int { return cmp.Compare(a.Name, b.Name) })
	longest := ondisk.MaxItem(int(f.b.p.nodesize)) - ondisk.DirEntrySize
	for _, x := range n.xattrs {
		if len(x.Name) > 255 || len(x.Name)+len(x.Value) > longest {
			return fmt.Errorf("attribute %q: name and %d bytes of value are more than a node of %d bytes can hold", x.Name, len(x.Value), f.b.p.nodesize)
		}
	}
	return f.hashed(n, ondisk.TypeXattrItem, len(n.xattrs), func(i int) (uint64, func([]byte) []byte) {
		x := n.xattrs[i]
		name := []byte(x.Name)
		return uint64(checksum.NameHash(name)), func(b []byte) []byte {
			return ondisk.AppendDirEntry(b, ondisk.DirEntry{Transid: generation, Type: ondisk.FTXattr, Name: name, Data: x.Value})
		}
	})
}

// entries writes what is in a directory, once by hash and once by index.
func (f *filler) entries(dir *node) error {
	entry := func(k *node) ondisk.DirEntry {
		e := ondisk.DirEntry{
			Location: ondisk.Key{Objectid: k.ino, Type: ondisk.TypeInodeItem}, Transid: generation, Type: fileType(k.st.Mode), Name: []byte(k.name),
		}
		if k.sub != nil {
			e.Location = ondisk.Key{Objectid: uint64(k.sub.id), Type: ondisk.TypeRootItem}
		}
		return e
	}
	err := f.hashed(dir, ondisk.TypeDirItem, len(dir.kids), func(i int) (uint64, func([]byte) []byte) {
		e := entry(dir.kids[i])
		return uint64(checksum.NameHash(e.Name)), func(b []byte) []byte { return ondisk.AppendDirEntry(b, e) }
	})
	if err != nil {
		return err
	}
	for _, k := range dir.kids {
		if err := f.put(dir, ondisk.TypeDirIndex, k.index, ondisk.AppendDirEntry(f.body[:0], entry(k))); err != nil {
			return err
		}
	}
	return nil
}

// data writes the data of a regular file.
func (f *filler) data(n *node, j *job) (err error) {
	at := uint64(0) // end of what is written
	for {
		if j.inline != nil {
			err = f.put(n, ondisk.TypeExtentData, 0, j.inline.Append(f.body[:0]))
			at = roundUp(n.st.Size, uint64(f.b.p.sectorsize))
		}
		for i := 0; i < len(j.pieces) && err == nil; i++ {
			p := &j.pieces[i]
			if err = f.hole(n, at, p.off); err == nil {
				err = f.piece(n, p)
			}
			at = p.off + p.ram
		}
		f.progress(min(j.size, n.st.Size-min(j.off, n.st.Size)))
		f.read.release(j)
		if err != nil || j.last {
			break
		}
		if j, err = f.nextJob(); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := f.flushExtent(n); err != nil {
		return err
	}
	return f.hole(n, at, roundUp(n.st.Size, uint64(f.b.p.sectorsize)))
}

func (f *filler) progress(n uint64) {
	f.done += n
	if f.b.p.opt.Progress != nil {
		f.b.p.opt.Progress(f.done, f.total)
	}
}

// hole writes that [from, to) has no data, where the volume wants that written.
func (f *filler) hole(n *node, from, to uint64) error {
	if from >= to || f.b.p.incompat&ondisk.IncompatNoHoles != 0 {
		return nil
	}
	if err := f.flushExtent(n); err != nil {
		return err
	}
	e := ondisk.FileExtent{Generation: generation, RAMBytes: to - from, Type: ondisk.ExtentReg, NumBytes: to - from}
	return f.put(n, ondisk.TypeExtentData, from, e.Append(f.body[:0]))
}

// piece gives a piece its place, or several if there is not enough room at one.
func (f *filler) piece(n *node, p *piece) error {
	sector := uint64(f.b.p.sectorsize)
	body, off, sums := p.p, p.off, p.sums
	for len(body) > 0 {
		at, got, fresh, err := f.b.space.take(data, uint64(len(body)), sector, p.algo != 0)
		if err != nil {
			return err
		}
		if err := f.b.data.put(at, body[:got]); err != nil {
			return err
		}
		k := int(got/sector) * f.sumSize
		if err := f.sum(at, got, sums[:k], fresh); err != nil {
			return err
		}
		ram := got
		if p.algo != 0 {
			ram = p.ram
		}
		if err := f.extent(n, off, at, got, ram, p.algo, fresh); err != nil {
			return err
		}
		body, sums, off = body[got:], sums[k:], off+got
	}
	return nil
}

// extent adds an extent to the file, or to the extent before it.
func (f *filler) extent(n *node, off uint64, at ondisk.Bytenr, disk, ram uint64, algo uint8, fresh bool) error {
	if e := &f.open; !fresh && algo == 0 && e.NumBytes > 0 && e.Compression == 0 && f.off+e.NumBytes == off && e.NumBytes+ram <= maxExtent {
		e.NumBytes += ram
		e.RAMBytes += ram
		e.DiskNumBytes += disk
		return nil
	}
	if err := f.flushExtent(n); err != nil {
		return err
	}
	f.off = off
	f.open = ondisk.FileExtent{
		Generation: generation, RAMBytes: ram, Compression: algo, Type: ondisk.ExtentReg, DiskBytenr: at, DiskNumBytes: disk, NumBytes: ram,
	}
	return nil
}

// flushExtent writes the extent that could have grown.
func (f *filler) flushExtent(n *node) error {
	e := f.open
	if e.NumBytes == 0 {
		return nil
	}
	f.open = ondisk.FileExtent{}
	f.b.extents = append(f.b.extents, extent{at: e.DiskBytenr, n: e.DiskNumBytes, owner: f.id, data: true, ino: n.ino, off: f.off})
	return f.put(n, ondisk.TypeExtentData, f.off, e.Append(f.body[:0]))
}

// sum records the checksums of [at, at+n).
func (f *filler) sum(at ondisk.Bytenr, n uint64, sums []byte, fresh bool) error {
	if fresh {
		if err := f.flushSums(); err != nil {
			return err
		}
		f.runAt, f.runEnd = at, at
	}
	f.runEnd += ondisk.Bytenr(n)
	f.run = append(f.run, sums...)
	for len(f.run) >= f.maxSums {
		if err := f.putSums(f.maxSums); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) flushSums() error {
	if len(f.run) == 0 {
		return nil
	}
	return f.putSums(len(f.run))
}

// putSums writes the first n bytes of the run.
func (f *filler) putSums(n int) error {
	k := ondisk.Key{Objectid: ondisk.CsumObjectid, Type: ondisk.TypeExtentCsum, Offset: uint64(f.runAt)}
	if err := f.sums.add(k, f.run[:n]); err != nil {
		return err
	}
	f.runAt += ondisk.Bytenr(uint64(n/f.sumSize) * uint64(f.b.p.sectorsize))
	f.run = f.run[:copy(f.run, f.run[n:])]
	return nil
}

// metadataBound estimates from above what the tree blocks of the volume will take.
func (s *scan) metadataBound(p *plan) uint64 {
	head := uint64(ondisk.ItemSize)
	n := uint64(0)
	for _, sub := range s.subvols {
		for _, f := range sub.order {
			n += head + ondisk.InodeItemSize
			for _, o := range f.names {
				name := uint64(len(o.name))
				n += head + 18 + name + 2*(head+ondisk.DirEntrySize+name)
			}
			for _, x := range f.xattrs {
				n += head + ondisk.DirEntrySize + uint64(len(x.Name)+len(x.Value))
			}
			switch f.st.Mode & modeType {
			case modeLink:
				n += head + ondisk.FileExtentInlineStart + f.st.Size
			case modeRegular:
				n += fileBound(f.st.Size, p)
			}
		}
	}
	// Leaves that are not full because the next item is long, nodes, the extent items of all that, and the small trees.
	return roundUp(n+n/8+uint64(p.nodesize)*64, uint64(p.nodesize))
}

// fileBound is the part of a regular file in metadataBound.
func fileBound(size uint64, p *plan) uint64 {
	const extentCost = 25 + ondisk.FileExtentSize + 25 + 24 + 29 // in the file and in the extent tree
	n := uint64(extentCost)
	if size <= 2048 || size <= uint64(p.sectorsize) && p.algo != 0 {
		n += min(size, 2048)
	}
	piece := uint64(segment)
	if p.algo != 0 {
		piece = 128 << 10
	}
	n += size / piece * extentCost
	return n + roundUp(size, uint64(p.sectorsize))/uint64(p.sectorsize)*uint64(p.csum.Size())
}
