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

// kept is how much metadata only deletions and commits may use: enough to copy the trees that a deletion changes, but
// not more than an eighth of what there is.
func (m *Manager) kept(meta space.Room) uint64 {
	var n uint64
	m.treeMu.Lock()
	for _, id := range []ondisk.TreeID{ondisk.ExtentTree, ondisk.CsumTree, ondisk.FreeSpaceTree, ondisk.RootTree} {
		if t := m.trees[id]; t != nil {
			n += t.item.BytesUsed
		}
	}
	m.treeMu.Unlock()
	size := uint64(m.sb.Nodesize)
	return min(max(n, 2*baseBlocks*size), 512<<20, meta.Total/8)
}

// reserve makes sure that a change can be made and committed: it makes chunks, or commits to get back what was
// freed.
func (m *Manager) reserve(ctx context.Context, need Need) error {
	committed := false
	for {
		m.start(ctx)
		short := m.short(need)
		if short == 0 {
			return nil
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
	blocks := uint64(baseBlocks + 2*need.Items + m.ext.Queued()/4)
	if need.Deleting {
		blocks = baseBlocks
	}
	bytes := blocks * uint64(m.sb.Nodesize)
	if !need.Deleting {
		bytes += m.kept(meta)
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
