package transaction

import (
	"context"
	"fmt"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// maxRounds bounds the rounds of settle. Each round copies blocks only if their parents were not copied before, so
// a handful is enough; more would be an error in this program.
const maxRounds = 64

// commit makes the running transaction durable. The caller holds the write lock. After an error it is aborted.
func (m *Manager) commit(ctx context.Context) error {
	if !m.running || m.opt.InMemory {
		return nil
	}
	if m.idle() {
		m.running = false
		m.v.Store().SetGeneration(m.v.Super().Generation)
		return nil
	}
	// A caller who goes away in the middle must not cost everybody the transaction.
	if err := m.write(context.WithoutCancel(ctx)); err != nil {
		return m.abort(err)
	}
	m.running, m.forced, m.undo = false, false, nil
	m.commits++
	m.space.Committed()
	m.v.SetRoots()
	m.treeMu.Lock()
	for _, t := range m.trees {
		t.original, t.written = t.t.Root().Bytenr, false
	}
	m.treeMu.Unlock()
	return nil
}

// idle tells whether the transaction has changed nothing.
func (m *Manager) idle() bool {
	if m.forced || m.v.Store().Dirty() > 0 || m.ext.Queued() > 0 {
		return false
	}
	for _, t := range m.trees {
		if t.touched {
			return false
		}
	}
	return true
}

// write puts everything on the devices, the superblocks last.
func (m *Manager) write(ctx context.Context) error {
	if err := m.markQuota(ctx); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	sb, err := m.nextSuper(ctx)
	if err != nil {
		return err
	}
	if err := m.v.Store().WriteDirty(ctx); err != nil {
		return err
	}
	if err := m.v.IO().Flush(); err != nil {
		return err
	}
	if err := m.v.WriteSupers(ctx, sb); err != nil {
		return err
	}
	m.sb = *sb
	m.sb.SysChunks = slices.Clone(sb.SysChunks)
	return nil
}

// settle repeats what keeps the trees of account up to date, until doing it changes nothing more: each of these steps
// may copy blocks, which the others must then account for.
func (m *Manager) settle(ctx context.Context) error {
	fst, groups, err := m.spaceTrees(ctx)
	if err != nil {
		return err
	}
	for range maxRounds {
		if err := m.ext.Drain(ctx); err != nil {
			return err
		}
		changed, err := m.space.Flush(ctx, fst, groups)
		if err != nil {
			return err
		}
		moved, err := m.writeRoots(ctx)
		if err != nil {
			return err
		}
		if !changed && !moved && m.ext.Queued() == 0 {
			return nil
		}
	}
	return fmt.Errorf("transaction: trees do not settle in %d rounds", maxRounds)
}

// spaceTrees returns the tree of free space, nil if it is not kept, and the tree with the items of block groups.
func (m *Manager) spaceTrees(ctx context.Context) (fst, groups *btree.Tree, err error) {
	const valid = ondisk.CompatROFreeSpaceTree | ondisk.CompatROFreeSpaceTreeValid
	if m.sb.CompatRO&valid == valid {
		if fst, err = m.handle(ctx, ondisk.FreeSpaceTree); err != nil {
			return nil, nil, err
		}
	}
	id := ondisk.ExtentTree
	if m.sb.CompatRO&ondisk.CompatROBlockGroupTree != 0 {
		id = ondisk.BlockGroupTree
	}
	groups, err = m.handle(ctx, id)
	return fst, groups, err
}

// writeRoots writes the root items of all trees that moved or whose items changed.
func (m *Manager) writeRoots(ctx context.Context) (moved bool, err error) {
	root := m.trees[ondisk.RootTree].t
	for _, id := range m.sortedTrees() {
		t := m.trees[id]
		if t.key.Type == 0 {
			continue
		}
		m.stamp(t)
		if !m.syncRoot(t) && !t.touched {
			continue
		}
		moved, t.touched = true, false
		if err := root.Put(ctx, t.key, t.item.Append(nil)); err != nil {
			return true, err
		}
	}
	if root.Root().Generation == m.gen {
		return moved, nil
	}
	// The superblock's generation must be that of the root tree's root.
	_, err = root.Edit(ctx, m.trees[ondisk.ExtentTree].key)
	return true, err
}

func (m *Manager) sortedTrees() []ondisk.TreeID {
	ids := make([]ondisk.TreeID, 0, len(m.trees))
	for id := range m.trees {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// syncRoot makes the tree's root item point to its root. It tells whether the item changed.
func (m *Manager) syncRoot(t *tree) bool {
	r := t.t.Root()
	grown := m.ext.Grown(t.t.ID()) * int64(m.sb.Nodesize)
	i := &t.item
	if grown == 0 && r.Bytenr == i.Bytenr && r.Generation == i.Generation && r.Level == i.Level {
		i.GenerationV2 = i.Generation
		return false
	}
	i.Bytenr, i.Generation, i.GenerationV2, i.Level = r.Bytenr, r.Generation, r.Generation, r.Level
	i.BytesUsed = uint64(max(int64(m.sb.Nodesize), int64(i.BytesUsed)+grown))
	return true
}

// stamp notes in a subvolume's root item when it was last changed.
func (m *Manager) stamp(t *tree) {
	if !t.written || !t.t.ID().IsSubvolume() || t.t.Root().Bytenr == t.original || t.item.Ctransid == m.gen {
		return
	}
	now := m.opt.Now()
	t.item.Ctransid = m.gen
	t.item.Ctime = ondisk.Timespec{Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}
	t.touched = true
}

// markQuota tells whoever keeps quotas that this program does not.
func (m *Manager) markQuota(ctx context.Context) error {
	if !m.quota {
		return nil
	}
	t, err := m.handle(ctx, ondisk.QuotaTree)
	if err != nil {
		return err
	}
	key := ondisk.Key{Type: ondisk.TypeQgroupStatus}
	body, err := t.Get(ctx, key)
	if err != nil {
		return err
	}
	s, err := ondisk.DecodeQgroupStatus(body)
	if err != nil {
		return err
	}
	s.Flags |= ondisk.QgroupInconsistent
	s.Generation = m.gen
	return t.Update(ctx, key, s.Append(nil))
}

// nextSuper makes the superblock of this commit.
func (m *Manager) nextSuper(ctx context.Context) (*ondisk.Superblock, error) {
	sb := m.sb
	old := sb.Generation
	root, chunk := m.trees[ondisk.RootTree].t.Root(), m.trees[ondisk.ChunkTree].t.Root()
	sb.Generation = m.gen
	sb.Root, sb.RootLevel = root.Bytenr, root.Level
	sb.ChunkRoot, sb.ChunkRootGeneration, sb.ChunkRootLevel = chunk.Bytenr, chunk.Generation, chunk.Level
	sb.LogRoot, sb.LogRootLevel = 0, 0
	sb.BytesUsed = m.space.UsedBytes()
	sb.TotalBytes = 0
	for _, d := range m.v.DevItems() {
		sb.TotalBytes += d.TotalBytes
	}
	if sb.UUIDTreeGeneration == old {
		sb.UUIDTreeGeneration = m.gen
	}
	if sb.Nodesize > 4096 {
		sb.Incompat |= ondisk.IncompatBigMetadata
	}
	return &sb, m.backup(ctx, &sb)
}

// backup notes the roots of this commit in the backup root after the newest one.
func (m *Manager) backup(ctx context.Context, sb *ondisk.Superblock) error {
	newest := 0
	for i := range sb.Backups {
		if sb.Backups[i].Root.Generation > sb.Backups[newest].Root.Generation {
			newest = i
		}
	}
	b := &sb.Backups[(newest+1)%len(sb.Backups)]
	*b = ondisk.BackupRoot{TotalBytes: sb.TotalBytes, BytesUsed: sb.BytesUsed, NumDevices: sb.NumDevices}
	for _, x := range []struct {
		id ondisk.TreeID
		to *ondisk.BackupTree
	}{
		{ondisk.RootTree, &b.Root}, {ondisk.ChunkTree, &b.Chunk}, {ondisk.ExtentTree, &b.Extent},
		{ondisk.FSTree, &b.FS}, {ondisk.DevTree, &b.Dev}, {ondisk.CsumTree, &b.Csum},
	} {
		t, err := m.handle(ctx, x.id)
		if err != nil {
			return err
		}
		r := t.Root()
		*x.to = ondisk.BackupTree{Bytenr: r.Bytenr, Generation: r.Generation, Level: r.Level}
	}
	return nil
}
