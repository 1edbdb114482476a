package transaction

import (
	"context"
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/space"
)

// removeEmpty removes chunks of other types that hold nothing, so that chunks of the type can be made in their place.
// It tells whether it removed any. What lies there can be overwritten at once: the last commit has nothing there
// either.
func (m *Manager) removeEmpty(ctx context.Context, typ uint64) (bool, error) {
	empty := m.space.Empty(typ)
	for _, g := range empty {
		if err := m.removeGroup(ctx, g); err != nil {
			return true, m.abort(err)
		}
	}
	return len(empty) > 0, nil
}

// removeGroup deletes a block group and its chunk from all trees.
func (m *Manager) removeGroup(ctx context.Context, g *space.Group) error {
	c, ok := m.v.Chunks().Find(g.Start)
	if !ok {
		return &ondisk.CorruptError{What: "block group", Bytenr: g.Start, Slot: -1, Reason: "has no chunk"}
	}
	if err := m.removeGroupItems(ctx, g); err != nil {
		return err
	}
	chunks, err := m.handle(ctx, ondisk.ChunkTree)
	if err != nil {
		return err
	}
	devTree, err := m.handle(ctx, ondisk.DevTree)
	if err != nil {
		return err
	}
	for _, s := range c.Stripes {
		if err := devTree.Delete(ctx, ondisk.Key{Objectid: uint64(s.DevID), Type: ondisk.TypeDevExtent, Offset: s.Offset}); err != nil {
			return err
		}
		if err := m.useDevice(ctx, chunks, s.DevID, -int64(c.DevExtentLen())); err != nil {
			return err
		}
	}
	if err := chunks.Delete(ctx, chunkKey(c.Logical)); err != nil {
		return err
	}
	m.space.RemoveGroup(g)
	old := chunk.Chunk{Logical: c.Logical, ChunkItem: c.ChunkItem}
	m.v.Chunks().Remove(c.Logical)
	m.undo = append(m.undo, func() {
		// The map has room for it: what was made in its place is taken out first.
		if err := m.v.Chunks().Insert(old); err != nil {
			m.err = errors.Join(m.err, err)
		}
	})
	clear(m.full)
	return nil
}

// removeGroupItems deletes the group's own item and its free space items.
func (m *Manager) removeGroupItems(ctx context.Context, g *space.Group) error {
	fst, groups, err := m.spaceTrees(ctx)
	if err != nil {
		return err
	}
	key := ondisk.Key{Objectid: uint64(g.Start), Type: ondisk.TypeBlockGroupItem, Offset: g.Len}
	if err := groups.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if fst == nil {
		return nil
	}
	_, err = fst.DeleteRange(ctx, ondisk.Key{Objectid: uint64(g.Start)}, ondisk.Key{Objectid: uint64(g.End())})
	return err
}

func chunkKey(at ondisk.Bytenr) ondisk.Key {
	return ondisk.Key{Objectid: ondisk.FirstChunkTreeObjectid, Type: ondisk.TypeChunkItem, Offset: uint64(at)}
}
