package transaction

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/space"
)

// baseBlocks is what any change and its commit may copy: the paths in the trees of references, checksums, free
// space, block groups and roots.
const baseBlocks = 24

// daringBlocks is below what no commit is worth trying.
const daringBlocks = 4

// SpaceInfo tells how full the volume is.
type SpaceInfo struct {
	Data, Metadata, System space.Room
	Unallocated            uint64 // bytes of devices that no chunk uses
	Reserve                uint64 // metadata kept for deleting
	Mixed                  bool   // data and metadata share their chunks
}

// Usage returns how full the volume is.
func (m *Manager) Usage() SpaceInfo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i := SpaceInfo{
		Data: m.space.Room(ondisk.BlockGroupData), Metadata: m.space.Room(ondisk.BlockGroupMetadata),
		System: m.space.Room(ondisk.BlockGroupSystem), Mixed: m.mixed(),
	}
	i.Reserve = m.kept(i.Metadata)
	for _, d := range m.v.DevItems() {
		i.Unallocated += d.TotalBytes - min(d.TotalBytes, d.BytesUsed)
	}
	return i
}

func (m *Manager) mixed() bool { return m.sb.Incompat&ondisk.IncompatMixedGroups != 0 }

// accountTrees are the trees that change with every commit.
func accountTrees() []ondisk.TreeID {
	return []ondisk.TreeID{ondisk.RootTree, ondisk.ExtentTree, ondisk.CsumTree, ondisk.FreeSpaceTree, ondisk.BlockGroupTree}
}

// accounts returns how many bytes the blocks of those trees take.
func (m *Manager) accounts() uint64 {
	var n uint64
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	for _, id := range accountTrees() {
		if t := m.trees[id]; t != nil {
			n += t.item.BytesUsed
		}
	}
	return n
}

// kept is how much metadata only deletions may use: enough to copy the trees of account, but not more than an eighth of
// what there is. Deleting files that snapshots hold takes room and gives none back, so that half of it is for dropping
// subvolumes alone.
func (m *Manager) kept(meta space.Room) uint64 {
	base := baseBlocks * uint64(m.sb.Nodesize)
	return min(max(m.accounts()*7/4+4*base, 6*base), 512<<20, meta.Total/8)
}

// keptForDrops is the part of what is kept that deletions of files may not use.
func (m *Manager) keptForDrops(meta space.Room) uint64 { return m.kept(meta) / 2 }

// reserve makes sure that a change can be made and committed: it makes chunks, or commits to get back what was
// freed.
func (m *Manager) reserve(ctx context.Context, need Need) error {
	committed := false
	if (need.Alone || need.Daring) && m.running { // a failure must not take others along
		if err := m.commit(ctx); err != nil {
			return err
		}
		committed = true
	}
	for {
		m.start(ctx)
		short := m.short(need)
		if short == 0 {
			return nil
		}
		if !committed && need.Deleting { // what was deleted before makes room
			if err := m.commit(ctx); err != nil {
				return err
			}
			committed = true
			continue
		}
		err := m.grow(ctx, short)
		if err == nil {
			continue
		}
		if !errors.Is(err, chunk.ErrNoRoom) && !errors.Is(err, ErrNoSpace) {
			return m.abort(err)
		}
		if committed {
			return ErrNoSpace
		}
		if err := m.commit(ctx); err != nil {
			return err
		}
		committed = true
	}
}

// short returns the type of space that is missing for a change, 0 if none is.
func (m *Manager) short(need Need) uint64 {
	meta := m.space.Room(ondisk.BlockGroupMetadata)
	size := uint64(m.sb.Nodesize)
	if need.Daring {
		if meta.Free < daringBlocks*size {
			return ondisk.BlockGroupMetadata
		}
		return 0
	}
	bytes := baseBlocks*size + m.drainCost()
	// A leaf is copied for each item and one for its accounting; but a transaction copies no block twice, so not more
	// than all that there are and what the new items fill.
	items := uint64(need.Items)
	if need.Deleting {
		if !need.Dropping {
			bytes += m.keptForDrops(meta)
		}
		bytes += min(2*items*size, items*refBytes+m.accounts()+baseBlocks*size)
	} else {
		bytes += m.kept(meta) + min(2*items*size, items*itemBytes+meta.Used)
	}
	if m.mixed() {
		bytes += need.Data
	}
	if meta.Free < bytes {
		return ondisk.BlockGroupMetadata
	}
	if need.Data > 0 && m.space.Room(ondisk.BlockGroupData).Free < need.Data {
		return ondisk.BlockGroupData
	}
	return 0
}

// itemBytes is a generous mean of what an item and the accounting of what it refers to take; refBytes of what a
// change of references takes.
const (
	itemBytes = 400
	refBytes  = 64
)

// drainCost is how much metadata the queued changes can take: a leaf for each, but not more than all blocks of the
// trees of account, and what grows there.
func (m *Manager) drainCost() uint64 {
	n := uint64(m.ext.Queued())
	return min(n*uint64(m.sb.Nodesize), m.accounts()+n*refBytes)
}
