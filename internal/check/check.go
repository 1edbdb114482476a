// Package check judges a volume: it recounts everything that can be recounted
// and reports what does not fit.
//
// It shares only the reading side with the rest of the program. Nothing of the
// accounting, the file system or the dropping code is used, so that a mistake
// there can not hide itself here.
//
// How it works. The extent tree is read first, into a sorted table with one entry
// per extent: what is stated, and a fingerprint (a sum of hashes) of the recorded
// back references. Then every tree is walked from its root, each block once, however
// many trees share it. Each block adds the references that leave it to the
// fingerprints of their targets (invariants W and O of FORMAT: reference
// counting), and, in subvolumes, gives a summary of its inodes. Summaries of
// neighbours add up (see summary), so that what is shared is judged once and a
// hundred snapshots cost little more than one. In the end equal fingerprints mean
// equal sets of references; only where they differ a second walk collects details.
//
// What must hold: whatever the bytes, Check ends, never panics, and uses memory
// in proportion to the number of extents, not of references.
package check

import (
	"context"
	"errors"
	"hash/maphash"
	"io/fs"
	"runtime"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Options tell how to check.
type Options struct {
	Data        bool                            // read every copy of all data that has checksums
	Progress    func(stage string, done uint64) // told about the way, from one goroutine at a time; nil: nobody
	MaxFindings int                             // keep no more; 0: 1000
	Workers     int                             // 0: as many as there are processors, at least 4
}

// checker is one run over a volume.
type checker struct {
	v      *volume.Volume
	sb     *ondisk.Superblock
	store  *treeblock.Store
	opt    Options
	rep    *reporter
	node   uint64 // nodesize
	sector uint64

	ext     table
	sums    ranges // of the logical address space that have checksums
	tops    []top
	groups  []group
	spare   chan struct{} // slots for goroutines beside the first
	scratch sync.Pool
	seed    maphash.Seed

	mu       sync.Mutex
	stray    map[ondisk.Bytenr]bool // blocks visited that the extent tree does not know
	owners   []ownerCheck
	walked   uint64
	extentOK bool // the whole extent tree could be read
	walkOK   bool // all trees could be read

	quotas  *qgroups   // nil: there is nothing to recount
	links   graph      // while quotas is not nil
	collect *collector // second walk: gathers references instead of judging
}

// Check judges v. An error means that it could not be done to the end; what is
// wrong with the volume is in the report.
func Check(ctx context.Context, v *volume.Volume, opt Options) (*Report, error) {
	if opt.MaxFindings <= 0 {
		opt.MaxFindings = 1000
	}
	if opt.Workers <= 0 {
		opt.Workers = max(4, runtime.GOMAXPROCS(0))
	}
	c := newChecker(v, opt)
	for _, step := range []struct {
		name string
		run  func(context.Context)
	}{
		{"superblock", c.super},
		{"root tree", c.readRoots},
		{"extent tree", c.readExtents},
		{"checksum tree", c.readSums},
		{"quota tree", c.readQuota},
		{"trees", c.walk},
		{"references", c.compare},
		{"chunks", c.chunks},
		{"free space", c.freeSpace},
		{"roots", c.judgeRoots},
		{"log", c.logs},
		{"quota", c.quota},
		{"data", c.data},
	} {
		c.stage(step.name)
		step.run(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	if bad := c.store.Stats().BadMirrors; bad > 0 {
		c.rep.warn(Place{Slot: -1}, "the volume still works, scrubbing would mend them", "%d copies of tree blocks could not be used", bad)
	}
	c.paths(ctx)
	return c.rep.report(), nil
}

func newChecker(v *volume.Volume, opt Options) *checker {
	c := &checker{
		v: v, sb: v.Super(), store: v.Store(), opt: opt, rep: newReporter(opt.MaxFindings), node: uint64(v.Nodesize()),
		sector: uint64(v.Sectorsize()), spare: make(chan struct{}, opt.Workers-1), seed: maphash.MakeSeed(),
		stray: map[ondisk.Bytenr]bool{}, extentOK: true, walkOK: true,
	}
	c.scratch.New = func() any { return &scratch{buf: make([]byte, v.Nodesize())} }
	return c
}

func (c *checker) stage(name string) {
	c.rep.next()
	if c.opt.Progress != nil {
		c.opt.Progress(name, 0)
	}
}

// tree opens a tree by its id; nil if there is none. What is wrong is reported.
func (c *checker) tree(ctx context.Context, id ondisk.TreeID) *btree.Tree {
	switch id {
	case ondisk.RootTree:
		return c.v.RootTree()
	case ondisk.ChunkTree:
		return c.v.ChunkTree()
	}
	t, err := c.v.Tree(ctx, id)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.rep.bad(Place{Tree: id, Slot: -1}, "the tree can not be checked", "can not be opened: %v", err)
		}
		return nil
	}
	return t
}

// super judges the superblock beyond what opening it needed.
func (c *checker) super(context.Context) {
	sb, at := c.sb, Place{Slot: -1}
	if sb.BytesUsed < 6*c.node {
		c.rep.bad(at, "the superblock is damaged", "super bytes_used %d is less than six tree blocks", sb.BytesUsed)
	}
	if sb.CompatRO&ondisk.CompatROBlockGroupTree != 0 &&
		(sb.Incompat&ondisk.IncompatNoHoles == 0 || sb.CompatRO&ondisk.CompatROFreeSpaceTreeValid == 0) {
		c.rep.bad(at, "Linux refuses to mount it", "block-group-tree without no-holes and a valid free space tree")
	}
	if m := c.v.Missing(); len(m) > 0 {
		c.rep.warn(at, "fewer copies are left than there should be", "devices %v are missing", m)
	}
	if sb.LogRoot != 0 {
		c.rep.warn(at, "what was synced after the last commit is not seen by this check", "there is a log to replay")
	}
}
