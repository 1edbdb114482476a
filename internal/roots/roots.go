// Package roots reads and changes the root tree, the tree of trees: root items,
// the places of subvolumes (root refs), orphans and the default subvolume.
//
// It only moves items; what their values must be is the business of who changes
// them. Functions take the root tree as their first tree argument and need its
// lock as package btree says.
package roots

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Find gives the root item of a tree and its key. Of several with one id the
// one with the largest key offset counts.
func Find(ctx context.Context, rt *btree.Tree, id ondisk.TreeID) (ondisk.Key, ondisk.RootItem, error) {
	last := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem, Offset: ^uint64(0)}
	c, err := rt.SeekLast(ctx, last)
	if err != nil {
		return ondisk.Key{}, ondisk.RootItem{}, err
	}
	if !c.Valid() || c.Key().Objectid != uint64(id) || c.Key().Type != ondisk.TypeRootItem {
		return ondisk.Key{}, ondisk.RootItem{}, fmt.Errorf("root item of %v: %w", id, fs.ErrNotExist)
	}
	item, err := ondisk.DecodeRootItem(c.Data())
	return c.Key(), item, err
}

// Put writes a root item, new or changed.
func Put(ctx context.Context, rt *btree.Tree, key ondisk.Key, item ondisk.RootItem) error {
	return rt.Put(ctx, key, item.Append(nil))
}

// All gives every root item to fn in the order of the keys. fn may not change
// the tree.
func All(ctx context.Context, rt *btree.Tree, fn func(key ondisk.Key, item ondisk.RootItem) error) error {
	return each(ctx, rt, ondisk.Key{}, func(k ondisk.Key, data []byte) (bool, error) {
		if k.Type != ondisk.TypeRootItem {
			return true, nil
		}
		item, err := ondisk.DecodeRootItem(data)
		if err != nil {
			return false, fmt.Errorf("root item %v: %w", k, err)
		}
		return true, fn(k, item)
	})
}

// each gives items from key on to fn until it says stop.
func each(ctx context.Context, t *btree.Tree, from ondisk.Key, fn func(k ondisk.Key, data []byte) (bool, error)) error {
	c, err := t.Seek(ctx, from)
	if err != nil {
		return err
	}
	for c.Valid() {
		more, err := fn(c.Key(), c.Data())
		if err != nil || !more {
			return err
		}
		if err := c.Next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// HighestID gives the highest id that a subvolume has, or the lowest free one
// minus 1 when there is none.
func HighestID(ctx context.Context, rt *btree.Tree) (ondisk.TreeID, error) {
	c, err := rt.SeekLast(ctx, ondisk.Key{Objectid: ondisk.LastFreeObjectid, Type: 255, Offset: ^uint64(0)})
	if err != nil {
		return 0, err
	}
	if !c.Valid() || c.Key().Objectid < ondisk.FirstFreeObjectid {
		return ondisk.TreeID(ondisk.FirstFreeObjectid - 1), nil
	}
	return ondisk.TreeID(c.Key().Objectid), nil
}

// Ref is the place of subvolume Child in subvolume Parent.
type Ref struct {
	Child, Parent ondisk.TreeID
	Dirid         uint64 // inode of the directory
	Sequence      uint64 // index of the directory entry
	Name          []byte
}

// Refs lists the subvolumes nested in parent.
func Refs(ctx context.Context, rt *btree.Tree, parent ondisk.TreeID) ([]Ref, error) {
	return refs(ctx, rt, uint64(parent), ondisk.TypeRootRef)
}

// Backrefs lists the places of child; sound volumes have one at most.
func Backrefs(ctx context.Context, rt *btree.Tree, child ondisk.TreeID) ([]Ref, error) {
	return refs(ctx, rt, uint64(child), ondisk.TypeRootBackref)
}

func refs(ctx context.Context, rt *btree.Tree, id uint64, typ ondisk.KeyType) ([]Ref, error) {
	var out []Ref
	err := each(ctx, rt, ondisk.Key{Objectid: id, Type: typ}, func(k ondisk.Key, data []byte) (bool, error) {
		if k.Objectid != id || k.Type != typ {
			return false, nil
		}
		r, err := ondisk.DecodeRootRef(data)
		if err != nil {
			return false, fmt.Errorf("root ref %v: %w", k, err)
		}
		ref := Ref{Child: ondisk.TreeID(k.Offset), Parent: ondisk.TreeID(id), Dirid: r.Dirid, Sequence: r.Sequence, Name: append([]byte{}, r.Name...)}
		if typ == ondisk.TypeRootBackref {
			ref.Child, ref.Parent = ref.Parent, ref.Child
		}
		out = append(out, ref)
		return true, nil
	})
	return out, err
}

func refKeys(parent, child ondisk.TreeID) (ref, back ondisk.Key) {
	return ondisk.Key{Objectid: uint64(parent), Type: ondisk.TypeRootRef, Offset: uint64(child)},
		ondisk.Key{Objectid: uint64(child), Type: ondisk.TypeRootBackref, Offset: uint64(parent)}
}

// AddRef writes ROOT_REF and ROOT_BACKREF.
func AddRef(ctx context.Context, rt *btree.Tree, r Ref) error {
	ref, back := refKeys(r.Parent, r.Child)
	body := ondisk.RootRef{Dirid: r.Dirid, Sequence: r.Sequence, Name: r.Name}.Append(nil)
	if err := rt.Insert(ctx, ref, body); err != nil {
		return err
	}
	return rt.Insert(ctx, back, body)
}

// RemoveRef removes ROOT_REF and ROOT_BACKREF.
func RemoveRef(ctx context.Context, rt *btree.Tree, parent, child ondisk.TreeID) error {
	ref, back := refKeys(parent, child)
	if err := rt.Delete(ctx, ref); err != nil {
		return err
	}
	return rt.Delete(ctx, back)
}

func orphanKey(id ondisk.TreeID) ondisk.Key {
	return ondisk.Key{Objectid: ondisk.OrphanObjectid, Type: ondisk.TypeOrphanItem, Offset: uint64(id)}
}

// Orphans lists the trees that have an orphan item: subvolumes to be dropped.
func Orphans(ctx context.Context, rt *btree.Tree) ([]ondisk.TreeID, error) {
	var out []ondisk.TreeID
	err := each(ctx, rt, orphanKey(0), func(k ondisk.Key, _ []byte) (bool, error) {
		if k.Objectid != ondisk.OrphanObjectid || k.Type != ondisk.TypeOrphanItem {
			return false, nil
		}
		out = append(out, ondisk.TreeID(k.Offset))
		return true, nil
	})
	return out, err
}

// AddOrphan marks a tree as one to be dropped; doing it twice is no error.
func AddOrphan(ctx context.Context, rt *btree.Tree, id ondisk.TreeID) error {
	err := rt.Insert(ctx, orphanKey(id), nil)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// RemoveOrphan takes the mark away; fs.ErrNotExist when there is none.
func RemoveOrphan(ctx context.Context, rt *btree.Tree, id ondisk.TreeID) error {
	return rt.Delete(ctx, orphanKey(id))
}
