package logtree

import (
	"bytes"
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// log is what the logs of a volume hold, in memory.
type log struct {
	blocks []ondisk.Bytenr // of all log trees
	seen   map[ondisk.Bytenr]bool
	subs   []subLog
}

// subLog is the log of one subvolume.
type subLog struct {
	id     ondisk.TreeID
	inodes []*inode // by number
	byIno  map[uint64]*inode
	sums   []sum
	items  int
}

// sum is a run of checksums.
type sum struct {
	at   ondisk.Bytenr
	body []byte
}

// inode is what a log says about one inode.
type inode struct {
	ino     uint64
	has     bool // there is an inode item
	item    ondisk.InodeItem
	names   []name // the names that it has, if any are logged
	xattrs  []item
	extents []extent
	entries []entry     // of a directory: new names
	ranges  [][2]uint64 // of a directory: indexes about which the log knows all
	skip    bool
}

type item struct {
	key  ondisk.Key
	body []byte
}

// name is one name of an inode.
type name struct {
	dir, index uint64
	name       string
}

// entry is a name that a directory's log holds.
type entry struct {
	index uint64
	name  string
	loc   ondisk.Key
	typ   uint8
}

type extent struct {
	off uint64
	ext ondisk.FileExtent
}

// readLog reads the logs of all subvolumes. The volume must not change meanwhile.
func readLog(ctx context.Context, v *volume.Volume) (*log, error) {
	sb := v.Super()
	v.Store().SetGeneration(sb.Generation + 1)
	l := &log{seen: map[ondisk.Bytenr]bool{}}
	root := btree.New(v.Store(), ondisk.LogTree, btree.RootPtr{Bytenr: sb.LogRoot, Generation: sb.Generation + 1, Level: sb.LogRootLevel}, nil)
	if err := l.walk(ctx, root); err != nil {
		return nil, fmt.Errorf("log root tree: %w", err)
	}
	c, err := root.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		k := c.Key()
		if ondisk.TreeID(k.Objectid) != ondisk.LogTree || k.Type != ondisk.TypeRootItem {
			continue
		}
		r, err := ondisk.DecodeRootItem(c.Data())
		if err != nil {
			return nil, err
		}
		t := btree.New(v.Store(), ondisk.LogTree, btree.RootPtr{Bytenr: r.Bytenr, Generation: r.Generation, Level: r.Level}, nil)
		if err := l.walk(ctx, t); err != nil {
			return nil, fmt.Errorf("log of subvolume %d: %w", k.Offset, err)
		}
		s, err := readSub(ctx, t, ondisk.TreeID(k.Offset))
		if err != nil {
			return nil, fmt.Errorf("log of subvolume %d: %w", k.Offset, err)
		}
		l.subs = append(l.subs, s)
	}
	return l, err
}

// walk notes the addresses of a tree's blocks.
func (l *log) walk(ctx context.Context, t *btree.Tree) error {
	b, err := t.RootBlock(ctx)
	if err != nil {
		return err
	}
	return l.below(ctx, t, b)
}

func (l *log) below(ctx context.Context, t *btree.Tree, b *treeblock.Block) error {
	if l.seen[b.Bytenr()] {
		return &ondisk.CorruptError{What: "tree block", Tree: t.ID(), Bytenr: b.Bytenr(), Slot: -1, Reason: "is in the log twice"}
	}
	l.seen[b.Bytenr()] = true
	l.blocks = append(l.blocks, b.Bytenr())
	if b.Level() == 0 {
		return nil
	}
	for i := range b.Data().NrItems() {
		c, err := t.Store().Read(ctx, btree.ChildPromise(t.ID(), b.Data(), i))
		if err != nil {
			return err
		}
		if err := l.below(ctx, t, c); err != nil {
			return err
		}
	}
	return nil
}

func readSub(ctx context.Context, t *btree.Tree, id ondisk.TreeID) (subLog, error) {
	s := subLog{id: id, byIno: map[uint64]*inode{}}
	c, err := t.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		s.items++
		if err := s.add(c.Key(), bytes.Clone(c.Data())); err != nil {
			return s, err
		}
	}
	return s, err
}

func (s *subLog) add(k ondisk.Key, body []byte) error {
	if k.Objectid == ondisk.CsumObjectid {
		if k.Type == ondisk.TypeExtentCsum {
			s.sums = append(s.sums, sum{ondisk.Bytenr(k.Offset), body})
		}
		return nil
	}
	i := s.byIno[k.Objectid]
	if i == nil {
		i = &inode{ino: k.Objectid}
		s.byIno[k.Objectid] = i
		s.inodes = append(s.inodes, i)
	}
	return i.add(k, body)
}

func (i *inode) add(k ondisk.Key, body []byte) (err error) {
	switch k.Type {
	case ondisk.TypeInodeItem:
		i.has = true
		i.item, err = ondisk.DecodeInodeItem(body)
		i.skip = err == nil && i.item.Nlink == 0 // a file without a name was made durable: nobody can reach it
	case ondisk.TypeInodeRef:
		var refs []ondisk.InodeRef
		refs, err = ondisk.DecodeInodeRefs(body)
		for _, r := range refs {
			i.names = append(i.names, name{k.Offset, r.Index, string(r.Name)})
		}
	case ondisk.TypeInodeExtref:
		var refs []ondisk.InodeExtref
		refs, err = ondisk.DecodeInodeExtrefs(body)
		for _, r := range refs {
			i.names = append(i.names, name{r.Parent, r.Index, string(r.Name)})
		}
	case ondisk.TypeXattrItem:
		i.xattrs = append(i.xattrs, item{k, body})
	case ondisk.TypeDirLogIndex:
		if len(body) != 8 {
			return &ondisk.CorruptError{What: "log range", Tree: ondisk.LogTree, Slot: -1, Reason: "wrong size", Got: len(body), Want: 8}
		}
		end := uint64(0)
		for n := range 8 {
			end |= uint64(body[n]) << (8 * n)
		}
		i.ranges = append(i.ranges, [2]uint64{k.Offset, end})
	case ondisk.TypeDirIndex:
		var es []ondisk.DirEntry
		es, err = ondisk.DecodeDirEntries(body)
		for _, e := range es {
			i.entries = append(i.entries, entry{k.Offset, string(e.Name), e.Location, e.Type})
		}
	case ondisk.TypeExtentData:
		var e ondisk.FileExtent
		e, err = ondisk.DecodeFileExtent(body)
		i.extents = append(i.extents, extent{k.Offset, e})
	}
	return err
}
