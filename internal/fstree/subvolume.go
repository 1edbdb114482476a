package fstree

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// AddSubvolume puts the name of a subvolume into directory dir; location is the
// key of its root item as entries have it. It gives the index of the entry, which
// the root ref must tell too.
func (t *Tree) AddSubvolume(ctx context.Context, dir uint64, name []byte, location ondisk.Key) (uint64, error) {
	if _, err := t.vacant(ctx, dir, name); err != nil {
		return 0, err
	}
	index, err := t.nextIndex(ctx, dir)
	if err != nil {
		return 0, err
	}
	e := t.edit(ctx)
	e.addEntry(dir, Entry{Name: name, Location: location, Type: ondisk.FTDir, Index: index})
	e.dirChanged(dir, len(name))
	return index, e.done()
}

// Vacant tells whether a directory can get a name: fs.ErrExist when it has it.
func (t *Tree) Vacant(ctx context.Context, dir uint64, name []byte) error {
	_, err := t.vacant(ctx, dir, name)
	return err
}

// RemoveSubvolume takes the name of a subvolume out of directory dir; index is
// what its root ref tells.
func (t *Tree) RemoveSubvolume(ctx context.Context, dir uint64, name []byte, index uint64) error {
	ent, err := Lookup(ctx, t.t, dir, name)
	if err != nil {
		return err
	}
	if !ent.IsSubvolume() {
		return ErrNotDir
	}
	ent.Index = index
	e := t.edit(ctx)
	e.removeEntry(dir, ent)
	e.dirChanged(dir, -len(name))
	return e.done()
}
