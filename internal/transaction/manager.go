// Package transaction changes a volume: it opens transactions, hands out writable trees and space, and commits.
//
// What must hold:
//
//   - One writer at a time: Begin takes the write lock, End gives it back. Readers of running trees hold the read lock.
//   - Many Begin … End pairs make up one transaction on disk; it becomes durable as a whole at Commit, or not at all.
//   - Space is reserved in Begin. ErrNoSpace comes from there, before anything has changed.
//   - An error in the middle of a change aborts (Tx.Fail): nothing of the transaction is kept, the volume takes no more
//     changes until it is opened again, and the last commit is intact (I9). Only a change that is alone in its
//     transaction may fail, for want of room or because it was cancelled, and cost nothing but itself.
package transaction

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/extent"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/space"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// ErrNoSpace is returned by Begin when there is no room left.
var ErrNoSpace = space.ErrNoSpace

// ErrLog is returned by Open for a volume whose log was not replayed.
var ErrLog = errors.New("the volume has a log of changes that was not replayed")

// AbortError is what every change meets after a transaction was aborted.
type AbortError struct{ Cause error }

func (e *AbortError) Error() string {
	return fmt.Sprintf("transaction aborted, the volume is read-only until it is opened again: %v", e.Cause)
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *AbortError) Unwrap() error { return e.Cause }

// Options tell how a volume is written.
type Options struct {
	// DirtyBytes is how many bytes of changed tree blocks may gather in memory before End commits, and before leaves of the trees of references and
	// checksums are written without waiting for the commit; 0: 64 MiB.
	DirtyBytes int64
	// DropLog lets a volume with a log be opened: it was replayed, will be, or is to be lost.
	DropLog bool
	// InMemory opens any volume, read-only ones too, and never writes: for looking at what replaying a log makes of it.
	InMemory bool
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Manager writes one volume.
type Manager struct {
	opt   Options
	v     *volume.Volume
	space *space.Space
	ext   *extent.Extents

	waiting atomic.Int64 // calls of Begin and RLock that wait for mu
	asked   atomic.Int64 // calls of Begin
	mu      sync.RWMutex // held by the writer, or by readers of running trees
	sb      ondisk.Superblock
	running bool // a transaction has begun
	forced  bool // it must be committed even if no tree changed
	gen     ondisk.Generation
	err     error           // aborted or closed
	full    map[uint64]bool // types of chunks that the devices have no room for
	undo    []func()        // puts back what an abort must put back in v
	quota   bool            // there is a quota tree
	commits int

	treeMu sync.Mutex
	trees  map[ondisk.TreeID]*tree
}

// tree is a tree with its root item.
type tree struct {
	t        *btree.Tree
	key      ondisk.Key // zero: the superblock points to the tree
	item     ondisk.RootItem
	touched  bool // the item changed
	written  bool // a writer asked for the tree: times follow its changes
	original ondisk.Bytenr
}

// Open takes a volume for writing.
func Open(ctx context.Context, v *volume.Volume, opt Options) (*Manager, error) {
	if err := allowed(ctx, v, opt); err != nil {
		return nil, err
	}
	if opt.DirtyBytes == 0 {
		opt.DirtyBytes = 64 << 20
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	m := &Manager{opt: opt, v: v, sb: *v.Super(), full: map[uint64]bool{}}
	var err error
	if m.space, err = space.Open(ctx, m.spaceConfig()); err != nil {
		return nil, err
	}
	if m.quota, err = v.HasTree(ctx, ondisk.QuotaTree); err != nil {
		return nil, err
	}
	root, err := v.ChunkTree().RootBlock(ctx)
	if err != nil {
		return nil, err
	}
	early := m.opt.DirtyBytes
	if m.opt.InMemory {
		early = 0
	}
	m.ext = extent.New(extent.Config{
		DirtyBytes: early,
		Store:      v.Store(), Space: m.space, Sectorsize: m.sb.Sectorsize, Skinny: m.sb.Incompat&ondisk.IncompatSkinnyMetadata != 0,
		CsumSize: v.CsumType().Size(), FSID: m.sb.TreeUUID(), ChunkTreeUUID: root.Data().ChunkTreeUUID(),
		Tree: m.handle, LastSnapshot: m.lastSnapshot,
	})
	m.reset()
	if err := m.openAccounts(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// openAccounts opens the trees of account, so that their sizes are known.
func (m *Manager) openAccounts(ctx context.Context) error {
	for _, id := range accountTrees() {
		if _, err := m.open(ctx, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (m *Manager) spaceConfig() space.Config {
	const valid = ondisk.CompatROFreeSpaceTree | ondisk.CompatROFreeSpaceTreeValid
	return space.Config{
		Nodesize: m.sb.Nodesize, Sectorsize: m.sb.Sectorsize, Map: m.v.Chunks(), Committed: m.v.Tree,
		FreeSpaceTree: m.sb.CompatRO&valid == valid, BlockGroupTree: m.sb.CompatRO&ondisk.CompatROBlockGroupTree != 0,
	}
}

// allowed tells why a volume must not be written.
func allowed(ctx context.Context, v *volume.Volume, opt Options) error {
	if opt.InMemory {
		return nil
	}
	if v.ReadOnly() {
		return &volume.RefusedError{Reason: "volume is opened read-only", Writing: true}
	}
	if err := v.WriteProblem(); err != nil {
		return err
	}
	if err := problem(ctx, v); err != nil {
		return err
	}
	if v.Super().LogRoot != 0 && !opt.DropLog {
		return ErrLog
	}
	return nil
}

// reset forgets all trees but those that the superblock of the last commit points to.
func (m *Manager) reset() {
	sb := m.v.Super()
	m.sb = *sb
	m.sb.SysChunks = append([]ondisk.SysChunk(nil), sb.SysChunks...)
	at := func(id ondisk.TreeID, b ondisk.Bytenr, g ondisk.Generation, l uint8) *tree {
		return &tree{t: btree.New(m.v.Store(), id, btree.RootPtr{Bytenr: b, Generation: g, Level: l}, m.ext), original: b}
	}
	m.treeMu.Lock()
	m.trees = map[ondisk.TreeID]*tree{
		ondisk.RootTree:  at(ondisk.RootTree, sb.Root, sb.Generation, sb.RootLevel),
		ondisk.ChunkTree: at(ondisk.ChunkTree, sb.ChunkRoot, sb.ChunkRootGeneration, sb.ChunkRootLevel),
	}
	m.treeMu.Unlock()
}

// open returns a tree of the running transaction.
func (m *Manager) open(ctx context.Context, id ondisk.TreeID) (*tree, error) {
	m.treeMu.Lock()
	defer m.treeMu.Unlock()
	if t := m.trees[id]; t != nil {
		return t, nil
	}
	key, item, err := roots.Find(ctx, m.trees[ondisk.RootTree].t, id)
	if err != nil {
		return nil, err
	}
	p := btree.RootPtr{Bytenr: item.Bytenr, Generation: item.Generation, Level: item.Level}
	t := &tree{t: btree.New(m.v.Store(), id, p, m.ext), key: key, item: item, original: item.Bytenr}
	m.trees[id] = t
	return t, nil
}

func (m *Manager) handle(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error) {
	t, err := m.open(ctx, id)
	if err != nil {
		return nil, err
	}
	return t.t, nil
}

func (m *Manager) lastSnapshot(ctx context.Context, id ondisk.TreeID) (ondisk.Generation, error) {
	t, err := m.open(ctx, id)
	if err != nil {
		return 0, err
	}
	return t.item.LastSnapshot, nil
}

// RLock lets the caller read running trees until RUnlock. It tells whether it had to wait for a writer.
func (m *Manager) RLock() (waited bool) {
	if m.mu.TryRLock() {
		return false
	}
	m.waiting.Add(1)
	m.mu.RLock()
	m.waiting.Add(-1)
	return true
}

// RUnlock ends what RLock began.
func (m *Manager) RUnlock() { m.mu.RUnlock() }

// Tree returns a tree as it is now, changes that are not committed yet included, for readers under RLock.
func (m *Manager) Tree(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error) {
	return m.handle(ctx, id)
}

// Volume returns the volume that is written.
func (m *Manager) Volume() *volume.Volume { return m.v }

// Super returns the superblock as the running transaction would write it, for readers under RLock.
func (m *Manager) Super() ondisk.Superblock { return m.sb }

// Generation returns the generation of the running transaction, or of the one that would run next.
func (m *Manager) Generation() ondisk.Generation {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.running {
		return m.gen
	}
	return m.v.Super().Generation + 1
}

// Err returns why the volume takes no more changes, or nil.
func (m *Manager) Err() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.err
}

// Stats returns the work done on references.
func (m *Manager) Stats() extent.Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ext.Stats()
}

// Acts is a number that changes whenever anything that counts references may have changed. The caller holds the lock, for reading at least.
func (m *Manager) Acts() uint64 { return m.ext.Acts() }

// Queued is how many extents have changes that wait. The caller holds the lock, for reading at least.
func (m *Manager) Queued() int { return m.ext.Queued() }

// Waiting is how many calls of Begin and RLock wait for a writer at the moment.
func (m *Manager) Waiting() int { return int(m.waiting.Load()) }

// Asked tells how many changes were asked for so far.
func (m *Manager) Asked() int { return int(m.asked.Load()) }

// Commits returns how many transactions became durable.
func (m *Manager) Commits() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.commits
}

// Commit makes all changes durable.
func (m *Manager) Commit(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	return m.commit(ctx)
}

// Close commits and takes no more changes. It leaves the volume open.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if err := m.commit(ctx); err != nil {
		return err
	}
	m.err = errors.New("volume is closed for writing")
	return nil
}

// abort gives the running transaction up. It returns the error for all who come later.
func (m *Manager) abort(cause error) error {
	if m.err != nil {
		return m.err
	}
	m.err = &AbortError{Cause: cause}
	m.v.Store().Abandon()
	for i := len(m.undo) - 1; i >= 0; i-- {
		m.undo[i]()
	}
	m.undo, m.running = nil, false
	m.v.Store().SetGeneration(m.v.Super().Generation)
	m.ext.Begin(context.Background(), 0)
	m.reset()
	return m.err
}
