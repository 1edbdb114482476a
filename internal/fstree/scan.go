package fstree

import (
	"context"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Scanner reads all items of one inode after the other. Inodes that follow each
// other in the tree cost one pass over its leaves and no searches. It holds until
// the tree changes.
type Scanner struct {
	t   *btree.Tree
	c   *btree.Cursor
	ino uint64
}

// NewScanner gives a scanner of a subvolume's tree.
func NewScanner(t *btree.Tree) *Scanner { return &Scanner{t: t} }

// Tree is the tree that is scanned.
func (s *Scanner) Tree() *btree.Tree { return s.t }

// to moves the cursor to the first item from k on.
func (s *Scanner) to(ctx context.Context, k ondisk.Key) (err error) {
	if s.c == nil || !s.c.Valid() || k.Less(s.c.Key()) {
		s.c, err = s.t.Seek(ctx, k)
		return err
	}
	return s.c.Advance(ctx, k)
}

// Inode moves to an inode and reads it; fs.ErrNotExist if there is none.
func (s *Scanner) Inode(ctx context.Context, ino uint64) (ondisk.InodeItem, error) {
	s.ino = ino
	if err := s.to(ctx, inodeKey(ino)); err != nil {
		return ondisk.InodeItem{}, place(s.t, ino, err)
	}
	if !s.c.Valid() || s.c.Key() != inodeKey(ino) {
		return ondisk.InodeItem{}, place(s.t, ino, fs.ErrNotExist)
	}
	it, err := ondisk.DecodeInodeItem(s.c.Data())
	return it, place(s.t, ino, err)
}

// OnlyName tells whether the inode itself says that it has one name, and that at index of
// directory parent.
func (s *Scanner) OnlyName(ctx context.Context, parent, index uint64) (bool, error) {
	k := ondisk.Key{Objectid: s.ino, Type: ondisk.TypeInodeRef, Offset: parent}
	n, is := 0, false
	c, err := s.t.Seek(ctx, ondisk.Key{Objectid: s.ino, Type: ondisk.TypeInodeRef})
	for ; err == nil && n < 2 && c.Valid() && c.Key().Objectid == s.ino && c.Key().Type <= ondisk.TypeInodeExtref; err = c.Next(ctx) {
		refs, derr := ondisk.DecodeInodeRefs(c.Data())
		if c.Key().Type != ondisk.TypeInodeRef || derr != nil || len(refs) != 1 {
			return false, nil
		}
		n++
		is = c.Key() == k && refs[0].Index == index
	}
	return is && n == 1, place(s.t, s.ino, err)
}

// Xattrs is ListXattr for the inode.
func (s *Scanner) Xattrs(ctx context.Context, fn func(name string, value []byte) error) error {
	k := ondisk.Key{Objectid: s.ino, Type: ondisk.TypeXattrItem}
	if err := s.to(ctx, k); err != nil {
		return place(s.t, s.ino, err)
	}
	return eachFrom(ctx, s.t, s.c, k, xattrsIn(s.t, s.ino, fn))
}

// Extents is Extents for the inode from its beginning.
func (s *Scanner) Extents(ctx context.Context, to uint64, fn func(off uint64, e ondisk.FileExtent) error) error {
	k := ondisk.Key{Objectid: s.ino, Type: ondisk.TypeExtentData}
	if err := s.to(ctx, k); err != nil {
		return place(s.t, s.ino, err)
	}
	return eachFrom(ctx, s.t, s.c, k, extentsIn(s.t, s.ino, 0, to, fn))
}
