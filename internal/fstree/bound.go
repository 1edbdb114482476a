package fstree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
)

// bound is a name with all that it is bound to.
type bound struct {
	Entry
	dir   uint64
	inode ondisk.InodeItem // of anything but a nested subvolume
	stub  bool             // a nested subvolume's name in a snapshot, bound to nothing
}

func (b bound) isDir() bool { return b.Type == ondisk.FTDir }

func (b bound) ino() uint64 { return b.Location.Objectid }

// bound finds a name and what it is bound to.
func (t *Tree) bound(ctx context.Context, dir uint64, name []byte) (bound, error) {
	if err := checkName(name); err != nil {
		return bound{}, err
	}
	ent, err := Lookup(ctx, t.t, dir, name)
	if err != nil {
		return bound{}, err
	}
	b := bound{Entry: ent, dir: dir}
	if ent.IsSubvolume() {
		return b, t.boundSubvolume(ctx, &b)
	}
	if b.inode, err = ReadInode(ctx, t.t, b.ino()); err != nil {
		return b, err
	}
	b.Index, err = t.refIndex(ctx, b.ino(), dir, name)
	return b, err
}

// refIndex finds the index that the inode has noted for one of its names.
func (t *Tree) refIndex(ctx context.Context, ino, dir uint64, name []byte) (uint64, error) {
	data, err := t.t.Get(ctx, refKey(ino, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, place(t.t, ino, err)
	}
	refs, err := ondisk.DecodeInodeRefs(data)
	if err != nil {
		return 0, place(t.t, ino, err)
	}
	for _, r := range refs {
		if bytes.Equal(r.Name, name) {
			return r.Index, nil
		}
	}
	data, err = t.t.Get(ctx, extrefKey(ino, dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, place(t.t, ino, err)
	}
	ext, err := ondisk.DecodeInodeExtrefs(data)
	if err != nil {
		return 0, place(t.t, ino, err)
	}
	for _, r := range ext {
		if r.Parent == dir && bytes.Equal(r.Name, name) {
			return r.Index, nil
		}
	}
	return 0, corrupt(t.t, refKey(ino, dir), fmt.Sprintf("the inode does not know its name %q", name), nil)
}

// boundSubvolume finds the index of a nested subvolume's name.
func (t *Tree) boundSubvolume(ctx context.Context, b *bound) error {
	k := ondisk.Key{Objectid: uint64(t.id), Type: ondisk.TypeRootRef, Offset: b.ino()}
	data, err := t.tx.RootTree().Get(ctx, k)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		ref, err := ondisk.DecodeRootRef(data)
		if err != nil {
			return err
		}
		if ref.Dirid == b.dir && bytes.Equal(ref.Name, b.Name) {
			b.Index = ref.Sequence
			return nil
		}
	}
	b.stub = true
	found := false
	err = ReadDir(ctx, t.t, b.dir, 0, func(e Entry) error {
		if !bytes.Equal(e.Name, b.Name) {
			return nil
		}
		b.Index, found = e.Index, true
		return fs.SkipAll
	})
	if err == nil && !found {
		err = corrupt(t.t, hashKey(b.dir, ondisk.TypeDirItem, b.Name), "the name has no DIR_INDEX item", nil)
	}
	return err
}

// bind adds the name b to its directory.
func (e *edit) bind(b bound) {
	e.addEntry(b.dir, b.Entry)
	switch {
	case b.stub:
	case b.IsSubvolume():
		e.addRootRef(b)
	default:
		e.addRef(b.ino(), b.dir, b.Name, b.Index)
	}
}

// unbind is the opposite of bind.
func (e *edit) unbind(b bound) {
	e.removeEntry(b.dir, b.Entry)
	switch {
	case b.stub:
	case b.IsSubvolume():
		e.removeRootRef(b)
	default:
		e.removeRef(b.ino(), b.dir, b.Name)
	}
}

// addRootRef writes the ROOT_REF and ROOT_BACKREF of a nested subvolume.
func (e *edit) addRootRef(b bound) {
	if e.err == nil {
		e.err = roots.AddRef(e.ctx, e.tx.RootTree(), roots.Ref{
			Child: ondisk.TreeID(b.ino()), Parent: e.id, Dirid: b.dir, Sequence: b.Index, Name: b.Name,
		})
	}
}

func (e *edit) removeRootRef(b bound) {
	if e.err == nil {
		e.err = roots.RemoveRef(e.ctx, e.tx.RootTree(), e.id, ondisk.TreeID(b.ino()))
	}
}

// emptyDir checks that a directory has no names.
func (t *Tree) emptyDir(ctx context.Context, b bound) error {
	if b.stub {
		return nil
	}
	if b.IsSubvolume() {
		return fmt.Errorf("%q in directory %d: %w", b.Name, b.dir, ErrSubvolume)
	}
	for _, typ := range []ondisk.KeyType{ondisk.TypeDirItem, ondisk.TypeDirIndex} {
		err := each(ctx, t.t, ondisk.Key{Objectid: b.ino(), Type: typ}, func(ondisk.Key, []byte) error {
			return place(t.t, b.ino(), ErrNotEmpty)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
