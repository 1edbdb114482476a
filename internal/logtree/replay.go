// Package logtree replays the log that Linux keeps for fsync: changes that were made durable after the last commit
// without committing, and that an unclean stop left behind.
//
// All logs are replayed in one transaction, whose commit also does away with them. Until then nothing of the log is
// lost, whatever happens. What must hold:
//
//   - Blocks of the log and data extents that only the log names are in no tree; they are kept from being handed out
//     before anything is allocated.
//   - What the log says of an inode replaces what the tree says; where the log is silent, the tree stays as it is.
//     What depends on several inodes (counts of links, sizes of directories) is counted anew afterwards.
package logtree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Replay replays the logs of a volume and commits (unless the manager works in memory only). The manager must have been opened with Options.DropLog, and nothing
// may have been changed through it before. Inodes that lost their last name are left as orphans.
func Replay(ctx context.Context, m *transaction.Manager) error {
	v := m.Volume()
	if v.Super().LogRoot == 0 {
		return nil
	}
	l, err := readLog(ctx, v)
	if err != nil {
		return fmt.Errorf("replay the log: %w", err)
	}
	tx, err := m.BeginReplay(ctx)
	if err != nil {
		return err
	}
	if err := l.replay(context.WithoutCancel(ctx), tx); err != nil {
		tx.Abort(err)
		return fmt.Errorf("replay the log: %w", err)
	}
	return tx.Commit(context.WithoutCancel(ctx))
}

// taken are data extents that only the log names.
type taken struct {
	len    uint64
	needed bool
}

func (l *log) replay(ctx context.Context, tx *transaction.Tx) error {
	size := uint64(tx.Manager().Volume().Nodesize())
	for _, at := range l.blocks {
		if err := tx.Hold(ctx, at, size); err != nil {
			return err
		}
	}
	extents, err := l.take(ctx, tx)
	if err != nil {
		return err
	}
	items := 0
	for _, s := range l.subs {
		items += 2 * s.items
	}
	if err := tx.Reserve(ctx, transaction.Need{Items: items}); err != nil {
		return err
	}
	tx.DropLog()
	for i := range l.subs {
		r := &replay{tx: tx, sub: &l.subs[i], taken: extents, touched: map[uint64]bool{}}
		if err := r.run(ctx); err != nil {
			return fmt.Errorf("subvolume %d: %w", l.subs[i].id, err)
		}
	}
	for at, x := range extents {
		if !x.needed {
			if err := tx.FreeData(ctx, at, x.len); err != nil {
				return err
			}
		}
	}
	return nil
}

// take marks the data extents that logs name and no tree knows as used.
func (l *log) take(ctx context.Context, tx *transaction.Tx) (map[ondisk.Bytenr]*taken, error) {
	all := map[ondisk.Bytenr]uint64{}
	for _, s := range l.subs {
		for _, i := range s.inodes {
			for _, e := range i.extents {
				if e.ext.Type == ondisk.ExtentInline || e.ext.DiskBytenr == 0 {
					continue
				}
				if n, ok := all[e.ext.DiskBytenr]; ok && n != e.ext.DiskNumBytes {
					return nil, wrongLength(e.ext.DiskBytenr, e.ext.DiskNumBytes)
				}
				all[e.ext.DiskBytenr] = e.ext.DiskNumBytes
			}
		}
	}
	at := make([]ondisk.Bytenr, 0, len(all))
	for a := range all {
		at = append(at, a)
	}
	slices.Sort(at)
	infos := make([]ref.Info, len(at))
	if err := tx.Lookup(ctx, at, infos); err != nil {
		return nil, err
	}
	recorded, err := tx.Manager().Volume().Tree(ctx, ondisk.ExtentTree) // nothing has changed yet
	if err != nil {
		return nil, err
	}
	out := map[ondisk.Bytenr]*taken{}
	for i, a := range at {
		if infos[i].Found {
			if _, err := recorded.Get(ctx, ondisk.Key{Objectid: uint64(a), Type: ondisk.TypeExtentItem, Offset: all[a]}); errors.Is(err, fs.ErrNotExist) {
				return nil, wrongLength(a, all[a])
			} else if err != nil {
				return nil, err
			}
			continue
		}
		if err := tx.TakeData(ctx, a, all[a]); err != nil {
			return nil, err
		}
		out[a] = &taken{len: all[a]}
	}
	return out, nil
}

func wrongLength(at ondisk.Bytenr, n uint64) error {
	return &ondisk.CorruptError{What: "logged extent", Tree: ondisk.LogTree, Bytenr: at, Slot: -1, Reason: "has another length elsewhere", Got: n}
}

// replay is the replay of one subvolume's log.
type replay struct {
	tx      *transaction.Tx
	sub     *subLog
	t       *btree.Tree
	fs      *fstree.Tree
	taken   map[ondisk.Bytenr]*taken
	touched map[uint64]bool // inodes whose names changed
	spans   []span          // where replayed extents lie on disk
}

// span is a range of the logical address space.
type span struct{ from, to ondisk.Bytenr }

func (r *replay) touch(ino uint64) { r.touched[ino] = true }

func inodeKey(ino uint64) ondisk.Key { return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeItem} }

// inode reads an inode of the subvolume.
func (r *replay) inode(ctx context.Context, ino uint64) (ondisk.InodeItem, bool, error) {
	b, err := r.t.Get(ctx, inodeKey(ino))
	if errors.Is(err, fs.ErrNotExist) {
		return ondisk.InodeItem{}, false, nil
	}
	if err != nil {
		return ondisk.InodeItem{}, false, err
	}
	i, err := ondisk.DecodeInodeItem(b)
	return i, err == nil, err
}

func (r *replay) run(ctx context.Context) error {
	var err error
	if r.t, err = r.tx.Tree(ctx, r.sub.id); errors.Is(err, fs.ErrNotExist) {
		return nil // the subvolume is gone
	}
	if err != nil {
		return err
	}
	if r.fs, err = fstree.Open(ctx, r.tx, r.sub.id); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *inode) error{r.inodeItem, r.deletions, r.entries, r.names, r.extents} {
		for _, i := range r.sub.inodes {
			if i.skip {
				continue
			}
			if err := step(ctx, i); err != nil {
				return fmt.Errorf("inode %d: %w", i.ino, err)
			}
		}
	}
	inos := make([]uint64, 0, len(r.touched))
	for ino := range r.touched {
		inos = append(inos, ino)
	}
	slices.Sort(inos)
	for _, ino := range inos {
		if err := r.settle(ctx, ino); err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
	}
	return r.sums(ctx)
}

// inodeItem brings an inode's item, attributes and length up to date. A generation of 0 says only that the inode is
// there, and perhaps how long it is.
func (r *replay) inodeItem(ctx context.Context, i *inode) error {
	if !i.has {
		return nil
	}
	old, found, err := r.inode(ctx, i.ino)
	if err != nil {
		return err
	}
	n := i.item
	full := n.Generation != 0
	switch {
	case found && !full:
		n = old
		if i.item.Size != 0 && isFile(old) && isFile(i.item) {
			n.Size = i.item.Size // 0: the size is not told
		}
	case found:
		n.Nbytes, n.Nlink = old.Nbytes, old.Nlink
		if n.Mode&fstree.ModeType == fstree.ModeDir {
			n.Size = old.Size
		}
	default:
		n.Nbytes, n.Nlink = 0, 0
		if n.Mode&fstree.ModeType == fstree.ModeDir {
			n.Size = 0
		}
		if !full {
			n.Generation = r.tx.Generation()
		}
		r.touch(i.ino)
	}
	n.Transid = r.tx.Generation()
	if err := r.t.Put(ctx, inodeKey(i.ino), n.Append(nil)); err != nil {
		return err
	}
	if err := r.xattrs(ctx, i); err != nil {
		return err
	}
	if !isFile(n) {
		return nil
	}
	sector := uint64(r.tx.Manager().Volume().Sectorsize())
	return r.replace(ctx, i.ino, (n.Size+sector-1)/sector*sector, ^uint64(0), nil)
}

func isFile(i ondisk.InodeItem) bool { return i.Mode&fstree.ModeType == fstree.ModeFile }

// xattrs makes the attributes those of the log.
func (r *replay) xattrs(ctx context.Context, i *inode) error {
	want := map[uint64]bool{}
	for _, x := range i.xattrs {
		want[x.key.Offset] = true
	}
	var gone []ondisk.Key
	c, err := r.t.Seek(ctx, ondisk.Key{Objectid: i.ino, Type: ondisk.TypeXattrItem})
	for ; err == nil && c.Valid() && c.Key().Objectid == i.ino && c.Key().Type == ondisk.TypeXattrItem; err = c.Next(ctx) {
		if !want[c.Key().Offset] {
			gone = append(gone, c.Key())
		}
	}
	if err != nil {
		return err
	}
	for _, k := range gone {
		if err := r.t.Delete(ctx, k); err != nil {
			return err
		}
	}
	for _, x := range i.xattrs {
		if err := r.t.Put(ctx, x.key, x.body); err != nil {
			return err
		}
	}
	return nil
}

// deletions removes the names that lie in ranges about which the log knows all, and that the log does not hold.
func (r *replay) deletions(ctx context.Context, i *inode) error {
	if len(i.ranges) == 0 {
		return nil
	}
	logged := map[uint64]string{}
	for _, e := range i.entries {
		logged[e.index] = e.name
	}
	var gone []ondisk.DirEntry
	err := fstree.ReadDir(ctx, r.t, i.ino, 0, func(e fstree.Entry) error {
		within := slices.ContainsFunc(i.ranges, func(x [2]uint64) bool { return x[0] <= e.Index && e.Index <= x[1] })
		if within && logged[e.Index] != string(e.Name) {
			gone = append(gone, ondisk.DirEntry{Location: e.Location, Type: e.Type, Name: slices.Clone(e.Name)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range gone {
		if err := r.removeName(ctx, i.ino, e); err != nil {
			return err
		}
	}
	return nil
}

// entries adds the names that a directory's log holds, unless the inode's own log does so too.
func (r *replay) entries(ctx context.Context, i *inode) error {
	for _, e := range i.entries {
		if e.loc.Type != ondisk.TypeInodeItem {
			continue
		}
		target := r.sub.byIno[e.loc.Objectid]
		if target != nil && slices.ContainsFunc(target.names, func(n name) bool { return n.dir == i.ino && n.name == e.name }) {
			continue
		}
		if _, found, err := r.inode(ctx, e.loc.Objectid); err != nil || !found {
			if err != nil {
				return err
			}
			continue
		}
		if err := r.addName(ctx, e.loc.Objectid, e.typ, name{i.ino, e.index, e.name}); err != nil {
			return err
		}
	}
	return nil
}

// names gives an inode the names that its log holds, and takes from it those that it had in the same directories and
// are not there.
func (r *replay) names(ctx context.Context, i *inode) error {
	if len(i.names) == 0 || i.ino == fstree.RootIno {
		return nil
	}
	it, found, err := r.inode(ctx, i.ino)
	if err != nil || !found {
		return err
	}
	have, err := fstree.Links(ctx, r.t, i.ino)
	if err != nil {
		return err
	}
	for _, h := range have {
		same, parent := false, false
		for _, n := range i.names {
			parent = parent || n.dir == h.Parent
			same = same || n.dir == h.Parent && n.name == string(h.Name)
		}
		if parent && !same {
			e := ondisk.DirEntry{Location: inodeKey(i.ino), Name: slices.Clone(h.Name)}
			if err := r.removeName(ctx, h.Parent, e); err != nil {
				return err
			}
		}
	}
	for _, n := range i.names {
		if d, ok, err := r.inode(ctx, n.dir); err != nil || !ok || d.Mode&fstree.ModeType != fstree.ModeDir {
			if err != nil {
				return err
			}
			continue
		}
		if err := r.addName(ctx, i.ino, fileType(it.Mode), n); err != nil {
			return err
		}
	}
	return nil
}

func fileType(mode uint32) uint8 {
	switch mode & fstree.ModeType {
	case fstree.ModeDir:
		return ondisk.FTDir
	case fstree.ModeSymlink:
		return ondisk.FTSymlink
	case fstree.ModeChar:
		return ondisk.FTChar
	case fstree.ModeBlock:
		return ondisk.FTBlock
	case fstree.ModeFifo:
		return ondisk.FTFifo
	case fstree.ModeSocket:
		return ondisk.FTSock
	}
	return ondisk.FTFile
}

// wholeOf is the length of what an extent is a part of.
func wholeOf(x ondisk.FileExtent) uint64 {
	if x.DiskBytenr != 0 && x.Compression == ondisk.CompressNone {
		return min(x.RAMBytes, x.DiskNumBytes)
	}
	return x.RAMBytes
}

// extents puts the logged extents in the place of what the file has there.
func (r *replay) extents(ctx context.Context, i *inode) error {
	if len(i.extents) == 0 {
		return nil
	}
	if _, found, err := r.inode(ctx, i.ino); err != nil || !found {
		return err
	}
	sector := uint64(r.tx.Manager().Volume().Sectorsize())
	holes := r.tx.Super().Incompat&ondisk.IncompatNoHoles == 0
	for _, e := range i.extents {
		end := e.off + (fstree.Span(e.ext)+sector-1)/sector*sector
		if end <= e.off {
			return &ondisk.CorruptError{What: "logged extent", Tree: ondisk.LogTree, Slot: -1, Reason: "has no length or ends behind all", Got: e.ext.NumBytes}
		}
		if x, whole := e.ext, wholeOf(e.ext); x.Type != ondisk.ExtentInline && (x.NumBytes > whole || x.Offset > whole-x.NumBytes) {
			return &ondisk.CorruptError{What: "logged extent", Tree: ondisk.LogTree, Bytenr: x.DiskBytenr, Slot: -1, Reason: "is longer than what it is part of", Got: x.NumBytes, Want: whole}
		}
		var pieces []fstree.Piece
		hole := e.ext.Type != ondisk.ExtentInline && e.ext.DiskBytenr == 0
		if !hole || holes {
			pieces = []fstree.Piece{{Off: e.off, Extent: e.ext}}
		}
		if !hole && e.ext.Type != ondisk.ExtentInline {
			if x := r.taken[e.ext.DiskBytenr]; x != nil {
				x.needed = true
			}
			r.covers(e.ext)
		}
		if err := r.replace(ctx, i.ino, e.off, end, pieces); err != nil {
			return err
		}
	}
	return nil
}

// replace changes the extents of a range, and the inode's count of bytes.
func (r *replay) replace(ctx context.Context, ino, from, to uint64, pieces []fstree.Piece) error {
	n, err := r.fs.ReplaceExtents(ctx, ino, from, to, pieces)
	if err != nil || n == 0 {
		return err
	}
	i, found, err := r.inode(ctx, ino)
	if err != nil || !found {
		return err
	}
	i.Nbytes += uint64(n) // wraps as it should
	return r.t.Put(ctx, inodeKey(ino), i.Append(nil))
}

// covers notes where on disk the bytes of a replayed extent lie: their checksums are needed.
func (r *replay) covers(e ondisk.FileExtent) {
	from, n := e.DiskBytenr, e.DiskNumBytes
	if e.Compression == ondisk.CompressNone {
		from, n = from+ondisk.Bytenr(e.Offset), e.NumBytes
	}
	r.spans = append(r.spans, span{from, from + ondisk.Bytenr(n)})
}

// sums adds the logged checksums of replayed extents that the checksum tree does not have. The log also holds sums of
// extents that were replaced before they were logged again.
func (r *replay) sums(ctx context.Context) error {
	v := r.tx.Manager().Volume()
	l := csumtree.Layout{Size: v.CsumType().Size(), Sectorsize: v.Sectorsize(), Nodesize: v.Nodesize()}
	t, err := r.tx.Tree(ctx, ondisk.CsumTree)
	if err != nil {
		return err
	}
	spans := merged(r.spans)
	for _, s := range r.sub.sums {
		end := s.at + ondisk.Bytenr(uint64(len(s.body)/l.Size)*uint64(l.Sectorsize))
		for len(spans) > 0 && spans[0].to <= s.at {
			spans = spans[1:] // sums come in order
		}
		for _, x := range spans {
			from, to := max(s.at, x.from), min(end, x.to)
			if from >= to {
				break
			}
			first := int(uint64(from-s.at)/uint64(l.Sectorsize)) * l.Size
			last := int(uint64(to-s.at)/uint64(l.Sectorsize)) * l.Size
			if err := addSums(ctx, t, l, from, s.body[first:last]); err != nil {
				return err
			}
		}
	}
	return nil
}

// merged sorts ranges and joins those that overlap or touch.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	for _, x := range spans {
		if k := len(out) - 1; k >= 0 && x.from <= out[k].to {
			out[k].to = max(out[k].to, x.to)
			continue
		}
		out = append(out, x)
	}
	return out
}

// addSums adds those of the checksums that are not there.
func addSums(ctx context.Context, t *btree.Tree, l csumtree.Layout, at ondisk.Bytenr, body []byte) error {
	n := len(body) / l.Size
	have, err := csumtree.Lookup(ctx, t, l, at, n)
	if err != nil {
		return err
	}
	for from := 0; from < n; {
		if _, ok := have.At(from); ok {
			from++
			continue
		}
		to := from + 1
		for to < n {
			if _, ok := have.At(to); ok {
				break
			}
			to++
		}
		a := at + ondisk.Bytenr(uint64(from)*uint64(l.Sectorsize))
		if err := csumtree.Insert(ctx, t, l, a, body[from*l.Size:to*l.Size]); err != nil {
			return err
		}
		from = to
	}
	return nil
}
