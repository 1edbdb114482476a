package transaction

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// grow makes a new chunk of the type, with the profile that the last such chunk has. It returns chunk.ErrNoRoom if the
// devices are full, and no chunk of another type is empty.
func (m *Manager) grow(ctx context.Context, typ uint64) error {
	full := typ
	for _, g := range m.space.Groups() {
		if g.Flags&typ != 0 {
			full = g.Flags
		}
	}
	err := chunk.ErrNoRoom
	if !m.full[full] {
		err = m.newChunk(ctx, typ, full)
	}
	if !errors.Is(err, chunk.ErrNoRoom) {
		return err
	}
	m.full[full] = true
	removed, err := m.removeEmpty(ctx, full)
	if err != nil {
		return err
	}
	if !removed {
		return chunk.ErrNoRoom
	}
	return m.newChunk(ctx, typ, full)
}

// newChunk makes a chunk of the type with the profile in full.
func (m *Manager) newChunk(ctx context.Context, typ, full uint64) error {
	system := m.space.Room(ondisk.BlockGroupSystem)
	if typ != ondisk.BlockGroupSystem && system.Free < baseBlocks*uint64(m.sb.Nodesize) {
		if err := m.grow(ctx, ondisk.BlockGroupSystem); err != nil && system.Free < baseBlocks/3*uint64(m.sb.Nodesize) {
			return err
		}
	}
	devTree, err := m.handle(ctx, ondisk.DevTree)
	if err != nil {
		return err
	}
	devs, err := deviceSpace(ctx, devTree, m.v.DevItems())
	if err != nil {
		return err
	}
	c, err := chunk.Plan(m.v.Chunks(), devs, full, m.sb.Sectorsize)
	if err != nil {
		return err
	}
	if typ == ondisk.BlockGroupSystem {
		sys := ondisk.SysChunk{Logical: c.Logical, Chunk: c.ChunkItem}
		grown := m.sb
		grown.SysChunks = append(append([]ondisk.SysChunk(nil), m.sb.SysChunks...), sys)
		if grown.SysArraySize() > ondisk.SysArrayMax {
			return chunk.ErrNoRoom
		}
		m.sb.SysChunks = grown.SysChunks
	}
	if err := m.addChunk(ctx, c, devTree); err != nil {
		return m.abort(fmt.Errorf("new chunk: %w", err))
	}
	return nil
}

// addChunk enters a planned chunk into map, trees and space.
func (m *Manager) addChunk(ctx context.Context, c chunk.Chunk, devTree *btree.Tree) error {
	chunks, err := m.handle(ctx, ondisk.ChunkTree)
	if err != nil {
		return err
	}
	if err := m.v.Chunks().Insert(c); err != nil {
		return err
	}
	m.undo = append(m.undo, func() { m.v.Chunks().Remove(c.Logical) })
	m.space.AddGroup(&c)
	if err := chunks.Insert(ctx, chunkKey(c.Logical), c.ChunkItem.Append(nil)); err != nil {
		return err
	}
	root, err := chunks.RootBlock(ctx)
	if err != nil {
		return err
	}
	for _, s := range c.Stripes {
		e := ondisk.DevExtent{ChunkTree: ondisk.ChunkTree, ChunkObjectid: ondisk.FirstChunkTreeObjectid, ChunkOffset: c.Logical,
			Length: c.DevExtentLen(), ChunkTreeUUID: root.Data().ChunkTreeUUID()}
		key := ondisk.Key{Objectid: uint64(s.DevID), Type: ondisk.TypeDevExtent, Offset: s.Offset}
		if err := devTree.Insert(ctx, key, e.Append(nil)); err != nil {
			return err
		}
		if err := m.useDevice(ctx, chunks, s.DevID, int64(c.DevExtentLen())); err != nil {
			return err
		}
	}
	return nil
}

// useDevice adds to the bytes that a device's item counts as used.
func (m *Manager) useDevice(ctx context.Context, chunks *btree.Tree, id ondisk.DevID, n int64) error {
	for _, d := range m.v.DevItems() {
		if d.DevID != id {
			continue
		}
		old := d
		m.undo = append(m.undo, func() { m.v.SetDevItem(old) })
		d.BytesUsed = uint64(int64(d.BytesUsed) + n)
		m.v.SetDevItem(d)
		key := ondisk.Key{Objectid: ondisk.DevItemsObjectid, Type: ondisk.TypeDevItem, Offset: uint64(id)}
		return chunks.Update(ctx, key, d.Append(nil))
	}
	return fmt.Errorf("device %d is not known", id)
}

// deviceSpace reads which parts of each device chunks use.
func deviceSpace(ctx context.Context, t *btree.Tree, items []ondisk.DevItem) ([]chunk.DevSpec, error) {
	var out []chunk.DevSpec
	for _, d := range items {
		s := chunk.DevSpec{ID: d.DevID, UUID: d.UUID, Total: d.TotalBytes}
		c, err := t.Seek(ctx, ondisk.Key{Objectid: uint64(d.DevID), Type: ondisk.TypeDevExtent})
		for ; err == nil && c.Valid(); err = c.Next(ctx) {
			k := c.Key()
			if k.Objectid != uint64(d.DevID) || k.Type != ondisk.TypeDevExtent {
				break
			}
			e, err := ondisk.DecodeDevExtent(c.Data())
			if err != nil {
				return nil, err
			}
			s.Used = append(s.Used, [2]uint64{k.Offset, k.Offset + e.Length})
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
