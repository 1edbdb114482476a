package fstree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Rename moves a name, over another one if that is there and may be replaced.
func (t *Tree) Rename(ctx context.Context, odir uint64, oname []byte, ndir uint64, nname []byte) error {
	src, err := t.bound(ctx, odir, oname)
	if err != nil {
		return err
	}
	dst, err := t.bound(ctx, ndir, nname)
	replaces := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if replaces && dst.Location == src.Location {
		return nil // two names of one inode, or one name: nothing to do
	}
	if replaces {
		err = t.replaceable(ctx, src, dst)
	} else {
		_, err = t.vacant(ctx, ndir, nname)
	}
	if err != nil {
		return err
	}
	to, err := t.moved(ctx, src, ndir, nname)
	if err != nil {
		return err
	}
	e := t.edit(ctx)
	if replaces {
		e.unbind(dst)
		e.dirChanged(ndir, -len(nname))
		e.dropLink(dst)
	}
	e.move(src, to)
	return e.done()
}

// Exchange exchanges what two names are bound to.
func (t *Tree) Exchange(ctx context.Context, adir uint64, aname []byte, bdir uint64, bname []byte) error {
	a, err := t.bound(ctx, adir, aname)
	if err != nil {
		return err
	}
	b, err := t.bound(ctx, bdir, bname)
	if err != nil {
		return err
	}
	if a.Location == b.Location {
		return nil
	}
	toB, err := t.moved(ctx, a, bdir, bname)
	if err != nil {
		return err
	}
	toA, err := t.moved(ctx, b, adir, aname)
	if err != nil {
		return err
	}
	if adir == bdir {
		toA.Index++ // both asked for the same next index
	}
	e := t.edit(ctx)
	e.unbind(a)
	e.unbind(b)
	e.dirChanged(adir, -len(aname))
	e.dirChanged(bdir, -len(bname))
	e.settle(toB)
	e.settle(toA)
	return e.done()
}

// replaceable checks that src may take the place of dst.
func (t *Tree) replaceable(ctx context.Context, src, dst bound) error {
	switch {
	case dst.isDir() && !src.isDir():
		return ErrIsDir
	case !dst.isDir() && src.isDir():
		return ErrNotDir
	case dst.isDir():
		return t.emptyDir(ctx, dst)
	}
	return nil
}

// moved is what src becomes as name in directory dir, if that may be.
func (t *Tree) moved(ctx context.Context, src bound, dir uint64, name []byte) (bound, error) {
	if _, err := t.liveDir(ctx, dir); err != nil {
		return bound{}, err
	}
	if src.isDir() && !src.IsSubvolume() && src.dir != dir {
		if err := t.notInside(ctx, src.ino(), dir); err != nil {
			return bound{}, err
		}
	}
	if !src.IsSubvolume() {
		if err := t.refRoom(ctx, src.ino(), dir, name); err != nil {
			return bound{}, err
		}
	}
	index, err := t.nextIndex(ctx, dir)
	to := src
	to.dir, to.Name, to.Index = dir, bytes.Clone(name), index
	return to, err
}

// move unbinds src and binds it as to.
func (e *edit) move(src, to bound) {
	e.unbind(src)
	e.dirChanged(src.dir, -len(src.Name))
	e.settle(to)
}

// settle binds what was unbound, in its new place.
func (e *edit) settle(to bound) {
	e.bind(to)
	e.dirChanged(to.dir, len(to.Name))
	if !to.IsSubvolume() {
		e.inode(to.ino(), func(it *ondisk.InodeItem) { it.Ctime = e.tx.Now() })
	}
}

// maxDepth bounds the walk to the root, which a bad tree may make a circle.
const maxDepth = 1 << 16

// notInside checks that directory ino is not dir and does not hold it.
func (t *Tree) notInside(ctx context.Context, ino, dir uint64) error {
	for depth := 0; dir != RootIno; depth++ {
		if dir == ino {
			return fmt.Errorf("a directory cannot move into itself: %w", fs.ErrInvalid)
		}
		links, err := Links(ctx, t.t, dir)
		if err != nil {
			return err
		}
		if len(links) == 0 {
			return place(t.t, dir, fs.ErrNotExist)
		}
		if depth > maxDepth {
			return corrupt(t.t, inodeKey(ino), "directories form a circle", dir)
		}
		dir = links[0].Parent
	}
	return nil
}
