// Package forensic finds the trees of a volume whose chunk tree or root tree is lost, by the blocks themselves.
//
// It reads every byte of the devices once and remembers each tree block that is whole: right checksum, right file system,
// and what package treecheck asks for. Each block names its address, so blocks can be read without a chunk map. From them come
// the chunk map, the root tree, and for each tree whose inner blocks are lost its leaves. What must hold:
//
//   - Nothing is written. What is made anew (the root tree, the chunk tree, nodes above leaves) lives in memory, at addresses
//     that no chunk holds, and is read like any other block: checked, by package treeblock.
//   - What a tree's sound root leads to is used as it is. Only what is lost is replaced, newest first, never by something
//     newer than what is lost.
//   - Memory is bounded by an option, whatever the devices hold. What was not remembered is told.
//   - Whatever may be missing is told: Report.Losses is empty only if every block that the newest superblock leads to was found
//     and every device extent belongs to a known chunk.
//
// A block that lies where the chunk map says that another belongs, in file data for example, is not one of the volume's.
package forensic

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Device is a device of the volume.
type Device struct {
	Dev   device.Device
	Super *ondisk.Superblock // nil: none is valid
}

// Options bound and watch the search.
type Options struct {
	// Memory is about how many bytes may be used to remember blocks; 0: 512 MiB.
	Memory int64
	// Progress is told now and then how many bytes were read, and of how many.
	Progress func(done, total uint64)
}

// Report tells what was found, for people.
type Report struct {
	Generation ondisk.Generation // the state that was looked for
	Blocks     int               // tree blocks that were found
	Read       uint64            // bytes read by the search
	Notes      []string          // what was found, and how
	Losses     []string          // what is missing, or may be
}

func (r *Report) note(format string, a ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, a...)) }
func (r *Report) lost(format string, a ...any) {
	r.Losses = append(r.Losses, fmt.Sprintf(format, a...))
}

// Result is what is needed to read the volume.
type Result struct {
	Super   *ondisk.Superblock // leads to the trees that were found
	Devices []Device           // those that belong to the volume; Super tells their numbers
	Report  *Report

	overlay overlay
}

// Backend gives the volume's blocks: those made anew, those that were found, and what io knows by its chunk map.
func (r *Result) Backend(io treeblock.Backend) treeblock.Backend {
	o := r.overlay
	o.io = io
	return &o
}

// search is one run of Open.
type search struct {
	devs []Device
	sb   *ondisk.Superblock // a copy; fields change as they are found out
	sure bool               // sb is of the volume, not guessed
	opt  Options
	rep  *Report

	index  *index
	chunks *chunk.Map
	made   *maker
	store  *treeblock.Store
	memo   map[id]bool // nodes that were walked: whether all below is there
	live   *btree.Tree // the extent tree, if it can tell which blocks are in use; else nil

	complete answer // whether all leaves in use were found
}

// answer is one that may not have been looked for yet.
type answer uint8

const (
	unknown answer = iota
	yes
	no
)

// ErrNothing: the devices hold no block of a volume.
var ErrNothing = errors.New("no tree block was found: this is no btrfs volume, or all of its metadata is gone")

// Open searches devs. main is the superblock to go by; nil: none is valid.
func Open(ctx context.Context, devs []Device, main *ondisk.Superblock, opt Options) (*Result, error) {
	s := &search{devs: devs, opt: opt, rep: &Report{}, memo: map[id]bool{}, chunks: chunk.NewMap()}
	if main != nil {
		sb := *main
		s.sb, s.sure = &sb, true
	} else if err := s.guess(ctx); err != nil {
		return nil, err
	}
	s.sb.LogRoot, s.sb.SysChunks = 0, nil
	if err := s.scan(ctx); err != nil {
		return nil, err
	}
	if len(s.index.blocks) == 0 {
		return nil, ErrNothing
	}
	if !s.sure {
		s.sb.Generation = s.index.newest()
	}
	s.rep.Generation = s.sb.Generation
	s.made = newMaker(s.sb)
	if err := s.findChunks(ctx); err != nil {
		return nil, err
	}
	if err := s.findRoots(ctx); err != nil {
		return nil, err
	}
	s.store.Close()
	s.rep.Blocks = len(s.index.blocks)
	res := &Result{Super: s.sb, Report: s.rep, overlay: overlay{found: s.index, devs: s.devs, made: s.made.blocks}}
	for _, d := range s.devs {
		if d.Super != nil {
			res.Devices = append(res.Devices, d)
		}
	}
	return res, nil
}

// open makes the store that the search itself reads by, anew when more is known.
func (s *search) open() {
	if s.store != nil {
		s.store.Close()
	}
	devs := map[ondisk.DevID]device.Device{}
	for _, d := range s.devs {
		if d.Super != nil {
			devs[d.Super.Dev.DevID] = d.Dev
		}
	}
	o := &overlay{found: s.index, devs: s.devs, made: s.made.blocks, io: chunk.NewIO(s.chunks, devs)}
	s.store = treeblock.New(o, treeblock.Options{
		Nodesize: s.sb.Nodesize, Sectorsize: s.sb.Sectorsize, Csum: checksum.Type(s.sb.CsumType), FSIDs: s.fsids(),
		SuperGeneration: s.sb.Generation, Incompat: s.sb.Incompat, CacheBytes: 16 << 20,
	})
}

// fsids are the ids that headers of the volume's blocks carry.
func (s *search) fsids() []ondisk.UUID {
	out := []ondisk.UUID{s.sb.TreeUUID()}
	for _, d := range s.devs {
		if d.Super != nil && d.Super.Flags&ondisk.SuperFlagSeeding != 0 {
			out = append(out, d.Super.TreeUUID())
		}
	}
	return out
}

// overlay is a backend that needs no chunk map for the blocks that were found.
type overlay struct {
	io    treeblock.Backend
	devs  []Device
	found *index
	made  map[ondisk.Bytenr]ondisk.Block // not changed any more when others read
}

// Mirrors counts the places of a block that were found, and then those that the chunk map tells.
func (o *overlay) Mirrors(at ondisk.Bytenr) int {
	if o.made[at] != nil {
		return 1
	}
	n := 0
	for _, b := range o.found.at[at] {
		n += len(b.places)
	}
	return n + o.io.Mirrors(at)
}

func (o *overlay) ReadBlock(ctx context.Context, at ondisk.Bytenr, mirror int, p []byte) error {
	if b := o.made[at]; b != nil {
		copy(p, b)
		return nil
	}
	for _, b := range o.found.at[at] {
		if mirror < len(b.places) {
			pl := b.places[mirror]
			if _, err := o.devs[pl.dev].Dev.ReadAt(p, pl.off); err != nil {
				return fmt.Errorf("read device %d of %d at %d: %w", pl.dev+1, len(o.devs), pl.off, err)
			}
			return nil
		}
		mirror -= len(b.places)
	}
	return o.io.ReadBlock(ctx, at, mirror, p)
}

// WriteBlocks refuses: the volume is only read.
func (o *overlay) WriteBlocks(context.Context, ondisk.Bytenr, []byte) error {
	return device.ErrReadOnly
}
