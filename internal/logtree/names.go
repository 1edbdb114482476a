package logtree

import (
	"bytes"
	"context"
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// The names of a subvolume, changed with indexes that the log gives. Sizes of directories and counts of links are put
// right at the end, for all inodes in r.touched.

func refKey(ino, dir uint64) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeRef, Offset: dir}
}

func extrefKey(ino uint64, n name) ondisk.Key {
	return ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeExtref, Offset: uint64(checksum.ExtrefHash(n.dir, []byte(n.name)))}
}

func hashKey(dir uint64, s string) ondisk.Key {
	return ondisk.Key{Objectid: dir, Type: ondisk.TypeDirItem, Offset: uint64(checksum.NameHash([]byte(s)))}
}

func indexKey(dir, index uint64) ondisk.Key {
	return ondisk.Key{Objectid: dir, Type: ondisk.TypeDirIndex, Offset: index}
}

// get returns a copy of an item's body, nil if there is none.
func (r *replay) get(ctx context.Context, k ondisk.Key) ([]byte, error) {
	b, err := r.t.Get(ctx, k)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return bytes.Clone(b), err
}

// put stores an item, or deletes it if nothing is left of it.
func (r *replay) put(ctx context.Context, k ondisk.Key, body []byte) error {
	if len(body) > 0 {
		return r.t.Put(ctx, k, body)
	}
	if err := r.t.Delete(ctx, k); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// entryNamed returns the entry that a directory has under a name.
func (r *replay) entryNamed(ctx context.Context, dir uint64, s string) (ondisk.DirEntry, bool, error) {
	b, err := r.get(ctx, hashKey(dir, s))
	if err != nil {
		return ondisk.DirEntry{}, false, err
	}
	es, err := ondisk.DecodeDirEntries(b)
	for _, e := range es {
		if string(e.Name) == s {
			return e, true, err
		}
	}
	return ondisk.DirEntry{}, false, err
}

// entryAt returns the entry that a directory has at an index.
func (r *replay) entryAt(ctx context.Context, dir, index uint64) (ondisk.DirEntry, bool, error) {
	b, err := r.get(ctx, indexKey(dir, index))
	if err != nil || b == nil {
		return ondisk.DirEntry{}, false, err
	}
	es, err := ondisk.DecodeDirEntries(b)
	if err != nil || len(es) != 1 {
		return ondisk.DirEntry{}, false, err
	}
	return es[0], true, nil
}

// addName gives an inode a name, in the place of whatever has that name or index.
func (r *replay) addName(ctx context.Context, ino uint64, typ uint8, n name) error {
	e, found, err := r.entryNamed(ctx, n.dir, n.name)
	if err != nil {
		return err
	}
	x, taken, err := r.entryAt(ctx, n.dir, n.index)
	if err != nil {
		return err
	}
	want := ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeItem}
	if found && taken && e.Location == want && x.Location == want && string(x.Name) == n.name {
		return nil // as it is
	}
	if found {
		if err := r.removeName(ctx, n.dir, e); err != nil {
			return err
		}
	}
	if taken && string(x.Name) != n.name {
		if err := r.removeName(ctx, n.dir, x); err != nil {
			return err
		}
	}
	d := ondisk.AppendDirEntry(nil, ondisk.DirEntry{Location: want, Transid: r.tx.Generation(), Type: typ, Name: []byte(n.name)})
	old, err := r.get(ctx, hashKey(n.dir, n.name))
	if err != nil {
		return err
	}
	if err := r.put(ctx, hashKey(n.dir, n.name), append(old, d...)); err != nil {
		return err
	}
	if err := r.t.Put(ctx, indexKey(n.dir, n.index), d); err != nil {
		return err
	}
	r.touch(n.dir)
	r.touch(ino)
	return r.addRef(ctx, ino, n)
}

// addRef notes the name in the inode.
func (r *replay) addRef(ctx context.Context, ino uint64, n name) error {
	old, err := r.get(ctx, refKey(ino, n.dir))
	if err != nil {
		return err
	}
	body := ondisk.AppendInodeRef(old, ondisk.InodeRef{Index: n.index, Name: []byte(n.name)})
	if len(body) <= ondisk.MaxItem(int(r.t.Nodesize())) {
		return r.t.Put(ctx, refKey(ino, n.dir), body)
	}
	k := extrefKey(ino, n)
	if old, err = r.get(ctx, k); err != nil {
		return err
	}
	return r.t.Put(ctx, k, ondisk.AppendInodeExtref(old, ondisk.InodeExtref{Parent: n.dir, Index: n.index, Name: []byte(n.name)}))
}

// removeName takes an entry out of a directory. Entries of subvolumes stay: they are not in logs.
func (r *replay) removeName(ctx context.Context, dir uint64, e ondisk.DirEntry) error {
	if e.Location.Type != ondisk.TypeInodeItem {
		return nil
	}
	ino, s := e.Location.Objectid, string(e.Name)
	index, err := r.removeRef(ctx, ino, dir, s)
	if err != nil {
		return err
	}
	b, err := r.get(ctx, hashKey(dir, s))
	if err != nil {
		return err
	}
	es, err := ondisk.DecodeDirEntries(b)
	if err != nil {
		return err
	}
	var left []byte
	for _, d := range es {
		if string(d.Name) != s {
			left = ondisk.AppendDirEntry(left, d)
		}
	}
	if err := r.put(ctx, hashKey(dir, s), left); err != nil {
		return err
	}
	r.touch(dir)
	r.touch(ino)
	if x, ok, err := r.entryAt(ctx, dir, index); err != nil || !ok || string(x.Name) != s {
		return err
	}
	return r.put(ctx, indexKey(dir, index), nil)
}

// removeRef takes a name out of an inode, and returns the index it had.
func (r *replay) removeRef(ctx context.Context, ino, dir uint64, s string) (uint64, error) {
	b, err := r.get(ctx, refKey(ino, dir))
	if err != nil {
		return 0, err
	}
	refs, err := ondisk.DecodeInodeRefs(b)
	if err != nil {
		return 0, err
	}
	index := uint64(0)
	var left []byte
	for _, x := range refs {
		if string(x.Name) == s {
			index = x.Index
		} else {
			left = ondisk.AppendInodeRef(left, x)
		}
	}
	if index != 0 {
		return index, r.put(ctx, refKey(ino, dir), left)
	}
	k := extrefKey(ino, name{dir: dir, name: s})
	if b, err = r.get(ctx, k); err != nil {
		return 0, err
	}
	ext, err := ondisk.DecodeInodeExtrefs(b)
	if err != nil {
		return 0, err
	}
	left = nil
	for _, x := range ext {
		if x.Parent == dir && string(x.Name) == s {
			index = x.Index
		} else {
			left = ondisk.AppendInodeExtref(left, x)
		}
	}
	if index == 0 {
		return 0, nil
	}
	return index, r.put(ctx, k, left)
}

// settle puts right what follows from the names: counts of links, sizes of directories, orphans.
func (r *replay) settle(ctx context.Context, ino uint64) error {
	i, ok, err := r.inode(ctx, ino)
	if err != nil || !ok {
		return err
	}
	links, err := fstree.Links(ctx, r.t, ino)
	if err != nil {
		return err
	}
	i.Nlink = uint32(len(links))
	if i.Mode&fstree.ModeType == fstree.ModeDir {
		i.Nlink, i.Size = uint32(min(1, len(links))), 0
		err := fstree.ReadDir(ctx, r.t, ino, 0, func(e fstree.Entry) error {
			i.Size += 2 * uint64(len(e.Name))
			return nil
		})
		if err != nil {
			return err
		}
	}
	orphan := ondisk.Key{Objectid: ondisk.OrphanObjectid, Type: ondisk.TypeOrphanItem, Offset: ino}
	if i.Nlink == 0 {
		if err := r.t.Put(ctx, orphan, nil); err != nil {
			return err
		}
	} else if err := r.put(ctx, orphan, nil); err != nil {
		return err
	}
	return r.t.Put(ctx, inodeKey(ino), i.Append(nil))
}
