// Package volume opens a Btrfs volume for reading: superblocks, devices, chunk
// map, the store of tree blocks, and the trees.
//
// It is what both the writing side (package transaction) and the judge (package
// check) stand on; it changes nothing but superblocks, when it is told to.
// FORMAT: "Bootstrap".
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/forensic"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Options tell how to open a volume.
type Options struct {
	ReadOnly   bool
	CacheBytes int64
	// SuperCopy is the superblock copy to use, from 0; negative: the newest valid.
	SuperCopy int
	// BackupRoot is the backup root to use, 0 the newest; negative: the current root.
	BackupRoot int
	// Forensic, if not nil, searches the devices for the volume's blocks and reads the trees that are found. The volume must be opened
	// read-only.
	Forensic *forensic.Options
	// IgnoreDataChecksums gives data that no checksum proves right where there is nothing better, and counts it. The volume must be
	// opened read-only.
	IgnoreDataChecksums bool
}

// Volume is an open volume. Its methods may be called from many goroutines,
// except WriteSupers, SetDevItem and Close.
type Volume struct {
	opt Options
	sb  *ondisk.Superblock // live
	// What never changes, to be read while a commit replaces sb.
	sectorsize, nodesize uint32
	csum                 checksum.Type

	all     []device.Device // all that Close closes
	devs    map[ondisk.DevID]device.Device
	uuids   map[ondisk.DevID]ondisk.UUID // of devs, as their superblocks say
	missing []ondisk.DevID
	stale   int
	behind  map[ondisk.DevID]found // of the volume, but left out because stale
	seeds   int
	fsids   []ondisk.UUID

	chunks *chunk.Map
	io     *chunk.IO
	store  *treeblock.Store
	root   *btree.Tree
	chunk  *btree.Tree

	search *forensic.Result // nil: the volume was opened by its superblock alone

	rescued  atomic.Int64 // sectors of data
	unproven atomic.Int64 // sectors of data

	mu    sync.Mutex // guards items
	items []ondisk.DevItem
}

// found is a device with its superblock.
type found struct {
	dev device.Device
	sb  *ondisk.Superblock
}

// Open opens the volume on devs, given in any order. When it fails it leaves
// the devices open.
func Open(ctx context.Context, devs []device.Device, opt Options) (*Volume, error) {
	v := &Volume{opt: opt, all: devs, devs: map[ondisk.DevID]device.Device{}, uuids: map[ondisk.DevID]ondisk.UUID{}, chunks: chunk.NewMap()}
	list, err := v.find(ctx, devs)
	if err != nil {
		return nil, err
	}
	v.sectorsize, v.nodesize, v.csum = v.sb.Sectorsize, v.sb.Nodesize, checksum.Type(v.sb.CsumType)
	if err := v.assemble(list); err != nil {
		return nil, err
	}
	if err := v.readChunks(ctx); err != nil {
		return nil, err
	}
	if err := v.openRoot(ctx); err != nil {
		return nil, err
	}
	v.io.SetClaims(v.Claims)
	return v, nil
}

// find finds the superblock to go by, and which device is which.
func (v *Volume) find(ctx context.Context, devs []device.Device) ([]found, error) {
	if v.opt.Forensic != nil {
		return v.findForensic(ctx, devs)
	}
	list, err := probe(devs, v.opt)
	if err != nil {
		return nil, err
	}
	return list, v.goBy(newest(list))
}

// goBy takes a superblock for that of the volume.
func (v *Volume) goBy(main *ondisk.Superblock) error {
	if err := checkFeatures(main); err != nil {
		return err
	}
	sb := *main
	v.sb = &sb
	if v.opt.BackupRoot >= 0 {
		return v.useBackup(v.opt.BackupRoot)
	}
	return nil
}

func probe(devs []device.Device, opt Options) ([]found, error) {
	if len(devs) == 0 {
		return nil, refuse("no device given")
	}
	var list []found
	for i, d := range devs {
		sb, err := bestSuper(d, opt.SuperCopy)
		if err != nil {
			if len(devs) > 1 {
				return nil, fmt.Errorf("device %d of %d: %w", i+1, len(devs), err)
			}
			return nil, err
		}
		list = append(list, found{d, sb})
	}
	return list, nil
}

// newest gives the superblock to go by: that of the volume itself (not of a seed
// device) with the highest generation.
func newest(list []found) *ondisk.Superblock {
	best := list[0].sb
	for _, f := range list[1:] {
		seed, bestSeed := f.sb.Flags&ondisk.SuperFlagSeeding != 0, best.Flags&ondisk.SuperFlagSeeding != 0
		if bestSeed && !seed || bestSeed == seed && f.sb.Generation > best.Generation {
			best = f.sb
		}
	}
	return best
}

// useBackup puts backup root n, 0 the newest, in place of the current roots.
func (v *Volume) useBackup(n int) error {
	list := append([]ondisk.BackupRoot{}, v.sb.Backups[:]...)
	sort.SliceStable(list, func(i, j int) bool { return list[i].Root.Generation > list[j].Root.Generation })
	if n >= len(list) || list[n].Root.Bytenr == 0 {
		return refuse("there is no backup root %d", n+1)
	}
	b := list[n]
	v.sb.Root, v.sb.Generation, v.sb.RootLevel = b.Root.Bytenr, b.Root.Generation, b.Root.Level
	v.sb.ChunkRoot, v.sb.ChunkRootGeneration, v.sb.ChunkRootLevel = b.Chunk.Bytenr, b.Chunk.Generation, b.Chunk.Level
	v.sb.BytesUsed, v.sb.LogRoot = b.BytesUsed, 0
	return nil
}

// assemble matches devices to their numbers and makes the store, which knows
// only the system chunks yet.
func (v *Volume) assemble(list []found) error {
	v.fsids = []ondisk.UUID{v.sb.TreeUUID()}
	for _, f := range list {
		own := f.sb.FSID == v.sb.FSID
		seed := f.sb.Flags&ondisk.SuperFlagSeeding != 0
		if !own && !seed && f.sb.TreeUUID() != v.sb.TreeUUID() {
			return refuse("devices belong to different volumes: %v and %v", v.sb.FSID, f.sb.FSID)
		}
		if !own && seed {
			v.seeds++
			v.fsids = append(v.fsids, f.sb.TreeUUID())
		}
		if own && f.sb.Generation < v.sb.Generation && v.opt.BackupRoot < 0 {
			v.stale++
			v.leaveOut(f)
			continue // its bytes may be old
		}
		id := f.sb.Dev.DevID
		if _, twice := v.devs[id]; twice {
			return refuse("device %d is given twice", id)
		}
		v.devs[id], v.uuids[id] = f.dev, f.sb.Dev.UUID
	}
	for _, c := range v.sb.SysChunks {
		if c.Chunk.Type&ondisk.BlockGroupSystem == 0 {
			return &ondisk.CorruptError{What: "superblock", Slot: -1, Reason: fmt.Sprintf("chunk %d among the system chunks is none", c.Logical), Got: c.Chunk.Type}
		}
		if err := v.chunks.Insert(chunk.Chunk{Logical: c.Logical, ChunkItem: c.Chunk}); err != nil {
			return err
		}
	}
	v.io = chunk.NewIO(v.chunks, v.devs)
	var backend treeblock.Backend = v.io
	if v.search != nil {
		backend = v.search.Backend(v.io)
	}
	v.store = treeblock.New(backend, treeblock.Options{
		Nodesize: v.sb.Nodesize, Sectorsize: v.sb.Sectorsize, Csum: checksum.Type(v.sb.CsumType), FSIDs: v.fsids,
		SuperGeneration: v.sb.Generation, Incompat: v.sb.Incompat, CacheBytes: v.opt.CacheBytes,
	})
	return nil
}

// leaveOut remembers a device that missed commits.
func (v *Volume) leaveOut(f found) {
	if v.behind == nil {
		v.behind = map[ondisk.DevID]found{}
	}
	v.behind[f.sb.Dev.DevID] = f
}

// readChunks reads the chunk tree: all chunks and devices.
func (v *Volume) readChunks(ctx context.Context) error {
	v.chunk = btree.New(v.store, ondisk.ChunkTree, btree.RootPtr{Bytenr: v.sb.ChunkRoot, Generation: v.sb.ChunkRootGeneration, Level: v.sb.ChunkRootLevel}, nil)
	c, err := v.chunk.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		if err := v.chunkItem(c.Key(), c.Data()); err != nil {
			return fmt.Errorf("%w: %w", ErrChunks, err)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrChunks, err)
	}
	return v.checkDevices()
}

func (v *Volume) chunkItem(k ondisk.Key, data []byte) error {
	switch k.Type {
	case ondisk.TypeDevItem:
		d, err := ondisk.DecodeDevItem(data)
		if err != nil {
			return err
		}
		v.items = append(v.items, d)
		if d.FSID != v.sb.TreeUUID() && !v.knows(d.FSID) {
			v.seeds++
			v.fsids = append(v.fsids, d.FSID) // shared with the store
			v.store.AddFSID(d.FSID)
		}
	case ondisk.TypeChunkItem:
		item, err := ondisk.DecodeChunkItem(data)
		if err != nil {
			return err
		}
		return v.chunks.Insert(chunk.Chunk{Logical: ondisk.Bytenr(k.Offset), ChunkItem: item})
	}
	return nil
}

func (v *Volume) knows(id ondisk.UUID) bool {
	for _, f := range v.fsids {
		if f == id {
			return true
		}
	}
	return false
}

// checkDevices finds out which devices are missing and whether what is left can
// be read.
func (v *Volume) checkDevices() error {
	lost := map[ondisk.DevID]bool{}
	for _, c := range v.chunks.All() {
		gone := 0
		for _, s := range c.Stripes {
			if _, ok := v.devs[s.DevID]; !ok {
				lost[s.DevID] = true
				gone++
			}
		}
		if c.Profile() == ondisk.BlockGroupDUP {
			gone /= 2
		}
		if v.search == nil && gone > c.Tolerated() && c.Type&(ondisk.BlockGroupMetadata|ondisk.BlockGroupSystem) != 0 && c.Profile() != ondisk.BlockGroupRAID10 {
			return refuse("chunk %d needs devices that are missing: name all devices of the volume, separated by commas (%d of %d given)", c.Logical, len(v.devs), v.sb.NumDevices)
		}
	}
	for _, d := range v.items {
		switch id, ok := v.uuids[d.DevID]; {
		case !ok:
			lost[d.DevID] = true
		case id != d.UUID:
			return refuse("device %d is not the one that the volume had: it has uuid %v, the volume knows %v", d.DevID, id, d.UUID)
		}
	}
	for id := range lost {
		v.missing = append(v.missing, id)
	}
	sort.Slice(v.missing, func(i, j int) bool { return v.missing[i] < v.missing[j] })
	return nil
}

// ErrRoots: the tree of roots, to which the superblock points, cannot be read. A
// backup root may lead to an older one that can.
var ErrRoots = errors.New("the root tree cannot be read")

// ErrChunks: the chunk tree, which tells where everything lies, cannot be read. Options.Forensic may do without.
var ErrChunks = errors.New("the chunk tree cannot be read")

func (v *Volume) openRoot(ctx context.Context) error {
	v.root = btree.New(v.store, ondisk.RootTree, btree.RootPtr{Bytenr: v.sb.Root, Generation: v.sb.Generation, Level: v.sb.RootLevel}, nil)
	if _, err := v.root.RootBlock(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrRoots, err)
	}
	return nil
}

// Tree gives a read-only handle of the tree as the last commit left it.
func (v *Volume) Tree(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error) {
	switch id {
	case ondisk.RootTree:
		return v.root, nil
	case ondisk.ChunkTree:
		return v.chunk, nil
	}
	_, item, err := roots.Find(ctx, v.root, id)
	if err != nil {
		return nil, err
	}
	return v.TreeAt(id, item), nil
}

// TreeAt gives a read-only handle of the tree that a root item tells of.
func (v *Volume) TreeAt(id ondisk.TreeID, item ondisk.RootItem) *btree.Tree {
	return btree.New(v.store, id, btree.RootPtr{Bytenr: item.Bytenr, Generation: item.Generation, Level: item.Level}, nil)
}

// AddRescued counts sectors of data that were read from another copy because of a
// bad one.
func (v *Volume) AddRescued(n int) { v.rescued.Add(int64(n)) }

// IgnoresDataChecksums tells whether data may be given that no checksum proves right.
func (v *Volume) IgnoresDataChecksums() bool { return v.opt.IgnoreDataChecksums }

// AddUnproven counts sectors of data that were given although no checksum proves them right.
func (v *Volume) AddUnproven(n int) { v.unproven.Add(int64(n)) }

// Unproven tells how many sectors of data were given although no checksum proves them right.
func (v *Volume) Unproven() int64 { return v.unproven.Load() }

// Rescued tells how many sectors of data, and tree blocks, were read from another
// copy because of a bad one.
func (v *Volume) Rescued() (sectors, blocks int64) {
	return v.rescued.Load(), v.store.Stats().Rescued
}

// HasTree tells whether a tree is there.
func (v *Volume) HasTree(ctx context.Context, id ondisk.TreeID) (bool, error) {
	_, err := v.Tree(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Super gives the live superblock. Only a transaction changes it.
func (v *Volume) Super() *ondisk.Superblock { return v.sb }

// Chunks gives the chunk map.
func (v *Volume) Chunks() *chunk.Map { return v.chunks }

// IO gives the I/O through the chunk map.
func (v *Volume) IO() *chunk.IO { return v.io }

// Store gives the store of tree blocks.
func (v *Volume) Store() *treeblock.Store { return v.store }

// RootTree and ChunkTree give the trees that the superblock points to, as they
// were when the volume was opened.
func (v *Volume) RootTree() *btree.Tree  { return v.root }
func (v *Volume) ChunkTree() *btree.Tree { return v.chunk }

// SetRoots tells the volume where its trees are after a commit, as the live
// superblock says.
func (v *Volume) SetRoots() {
	v.root = btree.New(v.store, ondisk.RootTree, btree.RootPtr{Bytenr: v.sb.Root, Generation: v.sb.Generation, Level: v.sb.RootLevel}, nil)
	v.chunk = btree.New(v.store, ondisk.ChunkTree, btree.RootPtr{Bytenr: v.sb.ChunkRoot, Generation: v.sb.ChunkRootGeneration, Level: v.sb.ChunkRootLevel}, nil)
}

// Sectorsize, Nodesize and CsumType are the superblock's.
func (v *Volume) Sectorsize() uint32      { return v.sectorsize }
func (v *Volume) Nodesize() uint32        { return v.nodesize }
func (v *Volume) CsumType() checksum.Type { return v.csum }

// Devices gives the devices that are there, by number. Not to be changed.
func (v *Volume) Devices() map[ondisk.DevID]device.Device { return v.devs }

// Missing lists the devices that are not there.
func (v *Volume) Missing() []ondisk.DevID { return v.missing }

// ReadOnly tells whether the volume was opened read-only.
func (v *Volume) ReadOnly() bool { return v.opt.ReadOnly }

// DevItems lists the device items, those of missing devices too.
func (v *Volume) DevItems() []ondisk.DevItem {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]ondisk.DevItem{}, v.items...)
}

// SetDevItem replaces the device item that the superblocks of its device carry.
func (v *Volume) SetDevItem(d ondisk.DevItem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.items {
		if v.items[i].DevID == d.DevID {
			v.items[i] = d
		}
	}
}

func (v *Volume) devItem(id ondisk.DevID) (ondisk.DevItem, bool) {
	for _, d := range v.DevItems() {
		if d.DevID == id {
			return d, true
		}
	}
	return ondisk.DevItem{}, false
}

// Close closes the devices.
func (v *Volume) Close() error {
	v.store.Close()
	var errs []error
	for _, d := range v.all {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
