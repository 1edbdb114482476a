package fstree

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// maxAtOnce is the number of extents of an inode that is removed together with
// its last name. It bounds what one change may need.
const maxAtOnce = 64

// Unlink removes a name of anything but a directory.
func (t *Tree) Unlink(ctx context.Context, dir uint64, name []byte) error {
	b, err := t.bound(ctx, dir, name)
	if err != nil {
		return err
	}
	if b.isDir() {
		return ErrIsDir
	}
	return t.removeName(ctx, b)
}

// Rmdir removes an empty directory.
func (t *Tree) Rmdir(ctx context.Context, dir uint64, name []byte) error {
	b, err := t.bound(ctx, dir, name)
	if err != nil {
		return err
	}
	if !b.isDir() {
		return ErrNotDir
	}
	if err := t.emptyDir(ctx, b); err != nil {
		return err
	}
	return t.removeName(ctx, b)
}

func (t *Tree) removeName(ctx context.Context, b bound) error {
	e := t.edit(ctx)
	e.unbind(b)
	e.dirChanged(b.dir, -len(b.Name))
	e.dropLink(b)
	return e.done()
}

// dropLink takes one link from the inode of a name that was unbound.
func (e *edit) dropLink(b bound) {
	if b.stub || e.err != nil {
		return
	}
	left := uint32(0)
	e.inode(b.ino(), func(it *ondisk.InodeItem) {
		if it.Mode&ModeType == ModeDir || it.Nlink == 0 {
			it.Nlink = 0
		} else {
			it.Nlink--
		}
		it.Ctime = e.tx.Now()
		left = it.Nlink
	})
	if left > 0 || e.err != nil {
		return
	}
	if !e.KeepOrphans {
		if small, err := e.small(b.ino()); err != nil || small {
			e.err = err
			e.remove(b.ino())
			return
		}
	}
	e.insert(orphanKey(b.ino()), nil)
	e.orphaned = append(e.orphaned, b.ino())
}

// small tells whether an inode has few extents.
func (e *edit) small(ino uint64) (bool, error) {
	n := 0
	err := each(e.ctx, e.t, ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData}, func(ondisk.Key, []byte) error {
		if n++; n > maxAtOnce {
			return fs.SkipAll
		}
		return nil
	})
	return n <= maxAtOnce, err
}

// remove takes away all items of an inode and the references of its extents.
func (e *edit) remove(ino uint64) {
	if e.err != nil {
		return
	}
	e.err = each(e.ctx, e.t, ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData}, func(k ondisk.Key, data []byte) error {
		x, err := ondisk.DecodeFileExtent(data)
		if err != nil {
			return place(e.t, ino, err)
		}
		return e.refer(ino, k.Offset, x, -1)
	})
	if e.err == nil {
		_, e.err = e.t.DeleteRange(e.ctx, ondisk.Key{Objectid: ino}, ondisk.Key{Objectid: ino + 1})
	}
}

func orphanKey(ino uint64) ondisk.Key {
	return ondisk.Key{Objectid: ondisk.OrphanObjectid, Type: ondisk.TypeOrphanItem, Offset: ino}
}

// Orphans lists the inodes of a subvolume that have an orphan item.
func Orphans(ctx context.Context, t *btree.Tree) ([]uint64, error) {
	var out []uint64
	err := each(ctx, t, orphanKey(0), func(k ondisk.Key, _ []byte) error {
		out = append(out, k.Offset)
		return nil
	})
	return out, err
}

func (t *Tree) forgetOrphan(ino uint64) {
	t.orphaned = slices.DeleteFunc(t.orphaned, func(o uint64) bool { return o == ino })
}

// RemoveOrphan removes an inode without names and its orphan item, if it has at
// most n extents; else it removes n of its extents. done tells that nothing is
// left to do. An orphan item of an inode that has names is removed alone.
func (t *Tree) RemoveOrphan(ctx context.Context, ino uint64, n int) (done bool, err error) {
	if _, err := t.t.Get(ctx, orphanKey(ino)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		return false, err
	}
	it, err := ReadInode(ctx, t.t, ino)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return false, err
	}
	if !gone && it.Nlink == 0 {
		delta, at, err := t.TrimExtents(ctx, ino, 0, n)
		if err != nil {
			return false, err
		}
		if at > 0 {
			return false, t.EditInode(ctx, ino, func(it *ondisk.InodeItem) { it.Nbytes += uint64(delta) })
		}
	}
	e := t.edit(ctx)
	if !gone && it.Nlink == 0 {
		e.remove(ino)
	}
	e.delete(orphanKey(ino))
	t.forgetOrphan(ino)
	return true, e.done()
}
