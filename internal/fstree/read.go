package fstree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// RootIno is the inode of a subvolume's root directory.
const RootIno = ondisk.FirstFreeObjectid

// Errors of the file system's rules. Others are fs.ErrNotExist, fs.ErrExist and
// fs.ErrInvalid.
var (
	ErrReadOnly     = errors.New("read-only")
	ErrDeleted      = fmt.Errorf("its subvolume was deleted: %w", fs.ErrNotExist)
	ErrNotDir       = errors.New("not a directory")
	ErrIsDir        = errors.New("is a directory")
	ErrNotEmpty     = errors.New("directory not empty")
	ErrNameTooLong  = errors.New("name too long")
	ErrTooManyLinks = errors.New("too many links")
	ErrTooLarge     = errors.New("no room for this value")
	ErrSubvolume    = errors.New("is a subvolume")
)

func inodeKey(ino uint64) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeItem}
}

func hashKey(ino uint64, typ ondisk.KeyType, name []byte) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: typ, Offset: uint64(checksum.NameHash(name))}
}

// place says where an error happened.
func place(t *btree.Tree, ino uint64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("inode %d of subvolume %d: %w", ino, uint64(t.ID()), err)
}

func corrupt(t *btree.Tree, k ondisk.Key, reason string, got any) error {
	return &ondisk.CorruptError{What: "item " + k.String(), Tree: t.ID(), Slot: -1, Reason: reason, Got: got}
}

// ReadInode reads an inode; fs.ErrNotExist if there is none.
func ReadInode(ctx context.Context, t *btree.Tree, ino uint64) (ondisk.InodeItem, error) {
	b, err := t.Get(ctx, inodeKey(ino))
	if err != nil {
		return ondisk.InodeItem{}, place(t, ino, err)
	}
	it, err := ondisk.DecodeInodeItem(b)
	return it, place(t, ino, err)
}

// Entry is a name in a directory.
type Entry struct {
	Name     []byte
	Location ondisk.Key // of the inode, or of a nested subvolume's ROOT_ITEM
	Type     uint8      // ondisk.FTFile …
	Index    uint64     // place in the directory; 0 when Lookup made the entry
	Transid  ondisk.Generation
}

func entryOf(e ondisk.DirEntry, index uint64) Entry {
	return Entry{Name: bytes.Clone(e.Name), Location: e.Location, Type: e.Type, Index: index, Transid: e.Transid}
}

// IsSubvolume tells whether the entry is a nested subvolume.
func (e Entry) IsSubvolume() bool { return e.Location.Type == ondisk.TypeRootItem }

// Lookup finds a name in a directory; fs.ErrNotExist if there is none.
func Lookup(ctx context.Context, t *btree.Tree, dir uint64, name []byte) (Entry, error) {
	list, err := hashed(ctx, t, hashKey(dir, ondisk.TypeDirItem, name))
	if err != nil {
		return Entry{}, err
	}
	if i := indexOf(list, name); i >= 0 {
		return entryOf(list[i], 0), nil
	}
	return Entry{}, fmt.Errorf("%q in directory %d of subvolume %d: %w", name, dir, uint64(t.ID()), fs.ErrNotExist)
}

// hashed reads the entries of an item that is found by a hash. The entries are
// bytes of the tree. No item gives no entries.
func hashed(ctx context.Context, t *btree.Tree, k ondisk.Key) ([]ondisk.DirEntry, error) {
	b, err := t.Get(ctx, k)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, place(t, k.Objectid, err)
	}
	list, err := ondisk.DecodeDirEntries(b)
	return list, place(t, k.Objectid, err)
}

func indexOf(list []ondisk.DirEntry, name []byte) int {
	for i := range list {
		if bytes.Equal(list[i].Name, name) {
			return i
		}
	}
	return -1
}

// each calls fn for all items of from's objectid and type, from from on. It ends
// early without an error when fn returns fs.SkipAll.
func each(ctx context.Context, t *btree.Tree, from ondisk.Key, fn func(k ondisk.Key, data []byte) error) error {
	c, err := t.Seek(ctx, from)
	if err != nil {
		return place(t, from.Objectid, err)
	}
	return eachFrom(ctx, t, c, from, fn)
}

// eachFrom is each with a cursor that stands at from.
func eachFrom(ctx context.Context, t *btree.Tree, c *btree.Cursor, from ondisk.Key, fn func(k ondisk.Key, data []byte) error) error {
	for c.Valid() {
		k := c.Key()
		if k.Objectid != from.Objectid || k.Type != from.Type {
			return nil
		}
		if err := fn(k, c.Data()); err == fs.SkipAll {
			return nil
		} else if err != nil {
			return err
		}
		if err := c.Next(ctx); err != nil {
			return place(t, from.Objectid, err)
		}
	}
	return nil
}

// ReadDir calls fn for the entries of a directory whose index is not below from,
// in the order of the index. fn may return fs.SkipAll to end early.
func ReadDir(ctx context.Context, t *btree.Tree, dir, from uint64, fn func(Entry) error) error {
	return each(ctx, t, ondisk.Key{Objectid: dir, Type: ondisk.TypeDirIndex, Offset: from}, func(k ondisk.Key, data []byte) error {
		list, err := ondisk.DecodeDirEntries(data)
		if err != nil {
			return place(t, dir, err)
		}
		if len(list) != 1 {
			return corrupt(t, k, "a DIR_INDEX item has one entry", len(list))
		}
		return fn(entryOf(list[0], k.Offset))
	})
}

// Link is one name of an inode.
type Link struct {
	Parent uint64 // inode of the directory
	Index  uint64
	Name   []byte
}

// Links gives all names of an inode. The root directory has the name ".." in
// itself.
func Links(ctx context.Context, t *btree.Tree, ino uint64) ([]Link, error) {
	var out []Link
	err := each(ctx, t, ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeRef}, func(k ondisk.Key, data []byte) error {
		refs, err := ondisk.DecodeInodeRefs(data)
		for _, r := range refs {
			out = append(out, Link{k.Offset, r.Index, bytes.Clone(r.Name)})
		}
		return place(t, ino, err)
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, t, ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeExtref}, func(_ ondisk.Key, data []byte) error {
		refs, err := ondisk.DecodeInodeExtrefs(data)
		for _, r := range refs {
			out = append(out, Link{r.Parent, r.Index, bytes.Clone(r.Name)})
		}
		return place(t, ino, err)
	})
	return out, err
}

// Xattr reads an extended attribute; fs.ErrNotExist if there is none.
func Xattr(ctx context.Context, t *btree.Tree, ino uint64, name string) ([]byte, error) {
	list, err := hashed(ctx, t, hashKey(ino, ondisk.TypeXattrItem, []byte(name)))
	if err != nil {
		return nil, err
	}
	if i := indexOf(list, []byte(name)); i >= 0 {
		return append([]byte{}, list[i].Data...), nil
	}
	return nil, place(t, ino, fmt.Errorf("attribute %q: %w", name, fs.ErrNotExist))
}

// ListXattr calls fn for all extended attributes in the order of their hashes.
// The value is fn's to keep. fn may return fs.SkipAll to end early.
func ListXattr(ctx context.Context, t *btree.Tree, ino uint64, fn func(name string, value []byte) error) error {
	return each(ctx, t, ondisk.Key{Objectid: ino, Type: ondisk.TypeXattrItem}, xattrsIn(t, ino, fn))
}

// xattrsIn gives what calls fn for the extended attributes of an item.
func xattrsIn(t *btree.Tree, ino uint64, fn func(name string, value []byte) error) func(ondisk.Key, []byte) error {
	return func(_ ondisk.Key, data []byte) error {
		list, err := ondisk.DecodeDirEntries(data)
		if err != nil {
			return place(t, ino, err)
		}
		for _, e := range list {
			if err := fn(string(e.Name), append([]byte{}, e.Data...)); err != nil {
				return err
			}
		}
		return nil
	}
}

// Readlink reads the target of a symbolic link.
func Readlink(ctx context.Context, t *btree.Tree, ino uint64) ([]byte, error) {
	k := ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData}
	b, err := t.Get(ctx, k)
	if err != nil {
		return nil, place(t, ino, err)
	}
	e, err := ondisk.DecodeFileExtent(b)
	if err != nil {
		return nil, place(t, ino, err)
	}
	if e.Type != ondisk.ExtentInline || e.Compression != ondisk.CompressNone {
		return nil, corrupt(t, k, "the target of a symbolic link is plain and inline", e.Type)
	}
	it, err := ReadInode(ctx, t, ino)
	if err != nil {
		return nil, err
	}
	// mkfs.btrfs --rootdir stores a zero byte more than the size tells.
	return bytes.Clone(e.Inline[:min(uint64(len(e.Inline)), it.Size)]), nil
}

// Span is the number of bytes of the file that an extent stands for.
func Span(e ondisk.FileExtent) uint64 {
	if e.Type == ondisk.ExtentInline {
		return e.RAMBytes
	}
	return e.NumBytes
}

// Extents calls fn for the extents that have bytes in [from, to), in order, holes
// that are items among them. Inline data are bytes of the tree. fn may return
// fs.SkipAll to end early.
func Extents(ctx context.Context, t *btree.Tree, ino, from, to uint64, fn func(off uint64, e ondisk.FileExtent) error) error {
	k := ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData, Offset: from}
	c, err := t.SeekLast(ctx, k)
	if err != nil {
		return place(t, ino, err)
	}
	if c.Valid() && c.Key().Objectid == ino && c.Key().Type == ondisk.TypeExtentData {
		k.Offset = c.Key().Offset // may reach into the range
	}
	return each(ctx, t, k, extentsIn(t, ino, from, to, fn))
}

// extentsIn gives what calls fn for the extent of an item, if it has bytes in
// [from, to).
func extentsIn(t *btree.Tree, ino, from, to uint64, fn func(off uint64, e ondisk.FileExtent) error) func(ondisk.Key, []byte) error {
	return func(k ondisk.Key, data []byte) error {
		if k.Offset >= to {
			return fs.SkipAll
		}
		e, err := ondisk.DecodeFileExtent(data)
		if err != nil {
			return place(t, ino, err)
		}
		end := k.Offset + Span(e)
		if end < k.Offset {
			return corrupt(t, k, "an extent ends beyond the largest offset", e.NumBytes)
		}
		if end <= from {
			return nil
		}
		return fn(k.Offset, e)
	}
}
