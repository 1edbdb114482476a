package forensic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treecheck"
)

const (
	window = 1 << 20 // what is read at once
	piece  = 4096    // what is tried where a window cannot be read
)

// farAway is a generation that nothing is newer than, for checks while the real one is not known.
const farAway = ondisk.Generation(1) << 62

// scan finds all blocks of the volume, reading the devices side by side.
func (s *search) scan(ctx context.Context) error {
	s.index = newIndex(s.opt.Memory)
	limit := farAway
	if s.sure {
		limit = s.sb.Generation
	}
	sc := &scanner{index: s.index, fsids: map[ondisk.UUID]bool{}, newest: limit, csum: checksum.Type(s.sb.CsumType), progress: s.opt.Progress}
	sc.check = treecheck.Context{
		Nodesize: s.sb.Nodesize, Sectorsize: s.sb.Sectorsize, SuperGeneration: limit, Incompat: s.sb.Incompat, CsumSize: sc.csum.Size(),
	}
	for _, id := range s.fsids() {
		sc.fsids[id] = true
	}
	for _, d := range s.devs {
		sc.total += uint64(max(d.Dev.Size(), 0))
	}
	if !s.sure {
		sc.others = map[ondisk.UUID]int{}
	}
	errs := make([]error, len(s.devs))
	var wg sync.WaitGroup
	for i, d := range s.devs {
		wg.Go(func() {
			errs[i] = windows(ctx, d.Dev, int(s.sb.Nodesize), int(s.sb.Sectorsize), sc.count, func(off int64, b []byte) int { return sc.block(b, place{i, off}) })
		})
	}
	wg.Wait()
	s.rep.Read = sc.done
	s.tellOthers(sc.others)
	if sc.bad > 0 {
		s.rep.lost("%d bytes of the devices cannot be read", sc.bad)
	}
	if s.index.forgotten > 0 {
		s.rep.lost("%d tree blocks found no room in memory and were not remembered", s.index.forgotten)
	}
	s.index.arrange()
	return errors.Join(errs...)
}

// scanner looks for blocks.
type scanner struct {
	index  *index
	fsids  map[ondisk.UUID]bool
	check  treecheck.Context
	csum   checksum.Type
	newest ondisk.Generation

	mu          sync.Mutex // guards the rest
	progress    func(done, total uint64)
	total, done uint64
	bad         uint64              // bytes that cannot be read
	others      map[ondisk.UUID]int // blocks of other volumes; nil: superblocks told which one is meant
}

// mostOthers bounds how many other volumes are counted.
const mostOthers = 64

// other counts a block that is not of the volume.
func (sc *scanner) other(b ondisk.Block) {
	if !plausible(b) || !checksum.Verify(sc.csum, b[:sc.csum.Size()], b[32:]) {
		return
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if _, known := sc.others[b.FSID()]; known || len(sc.others) < mostOthers {
		sc.others[b.FSID()]++
	}
}

// tellOthers tells of blocks of other volumes when no superblock told which volume is meant. They may be left from an older volume, or that of a seeding
// device and the one that grew from it: which, the blocks do not tell, and to read one volume by another's blocks would show files that never were.
func (s *search) tellOthers(others map[ondisk.UUID]int) {
	for _, id := range slices.SortedFunc(maps.Keys(others), func(a, b ondisk.UUID) int { return bytes.Compare(a[:], b[:]) }) {
		s.rep.lost("%d blocks are of another volume, %v: if one grew from the other as from a seeding device, only %v is read, in the state in which its own blocks are; "+
			"a copy of the superblock would tell", others[id], id, s.sb.FSID)
	}
}

func (sc *scanner) count(read, bad int) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.done += uint64(read)
	sc.bad += uint64(bad)
	if sc.progress != nil {
		sc.progress(sc.done, sc.total)
	}
}

// block remembers b if it is a block of the volume, and gives its length; else 0.
func (sc *scanner) block(p []byte, at place) int {
	b := ondisk.Block(p)
	if !sc.fsids[b.FSID()] && sc.others != nil {
		sc.other(b)
	}
	if !sc.fsids[b.FSID()] || string(b[64:72]) == ondisk.SuperMagic || b.Generation() > sc.newest || b.Bytenr() == 0 {
		return 0
	}
	if !checksum.Verify(sc.csum, b[:sc.csum.Size()], b[32:]) || treecheck.Check(b, sc.check) != nil {
		return 0
	}
	sc.index.add(b, at)
	return len(b)
}

// windows reads a device once from its start to its end and gives fn each size bytes that start at a multiple of step, and where. fn
// tells how many bytes to go on; 0: one step. count is told of what was read, and how much of it could not be.
func windows(ctx context.Context, d device.Device, size, step int, count func(read, bad int), fn func(off int64, b []byte) int) error {
	buf := make([]byte, window+size)
	start, have := int64(0), 0 // buf[:have] are the bytes from start
	skip := int64(0)           // bytes to be passed by
	for off := int64(0); off < d.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[have : have+int(min(window, d.Size()-off))]
		count(len(p), fill(ctx, d, p, off))
		off, have = off+int64(len(p)), have+len(p)
		at := int(min(skip-start, int64(have)))
		for at = max(at, 0); at+size <= have; {
			n := fn(start+int64(at), buf[at:at+size])
			at += max((n+step-1)/step*step, step)
		}
		skip = start + int64(at)
		at = min(at, have)
		copy(buf, buf[at:have])
		start, have = start+int64(at), have-at
	}
	return nil
}

// fill reads len(p) bytes; what cannot be read is zero. It gives the number of such bytes.
func fill(ctx context.Context, d device.Device, p []byte, off int64) (bad int) {
	if n, err := d.ReadAt(p, off); n == len(p) && (err == nil || err == io.EOF) {
		return 0
	}
	for i := 0; i < len(p); i += piece {
		q := p[i:min(i+piece, len(p))]
		if n, err := d.ReadAt(q, off+int64(i)); ctx.Err() != nil || n < len(q) || err != nil && err != io.EOF {
			clear(q)
			bad += len(q)
		}
	}
	return bad
}

// votesWanted is the number of blocks that tell of one kind of volume before it is taken for the one that is there, and mostGuesses
// the number of headers that are looked at.
const (
	votesWanted = 64
	mostGuesses = 1 << 16
)

// kind is what must be known of a volume to know its blocks.
type kind struct {
	fsid ondisk.UUID
	size uint32
	csum checksum.Type
}

// guess finds out what kind of volume this is when no superblock tells: what most blocks tell.
func (s *search) guess(ctx context.Context) error {
	votes, tries, sector := map[kind]int{}, 0, uint32(0)
	var ext alignment // a last resort
	var best kind
	for _, d := range s.devs {
		stop, cancel := context.WithCancel(ctx)
		err := windows(stop, d.Dev, 64<<10, piece, func(int, int) {}, func(_ int64, b []byte) int {
			if !plausible(b) {
				return 0
			}
			if tries++; tries >= mostGuesses {
				cancel()
			}
			k, ok := kindOf(b)
			if !ok {
				return 0
			}
			if votes[k]++; votes[k] > votes[best] {
				best = k
			}
			if sector == 0 {
				sector = sectorOf(b[:k.size], k)
				ext.look(b[:k.size])
			}
			if sector != 0 && votes[k] >= votesWanted {
				cancel()
			}
			return int(k.size)
		})
		ended := stop.Err() != nil
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
		if err != nil && !ended {
			return err
		}
		if ended {
			break
		}
	}
	if votes[best] == 0 {
		return fmt.Errorf("no superblock is valid: %w", ErrNothing)
	}
	if sector == 0 {
		sector = min(ext.sector(), best.size)
	}
	s.sb = &ondisk.Superblock{
		FSID: best.fsid, Flags: ondisk.SuperFlagWritten, Sectorsize: sector, Nodesize: best.size, Leafsize: best.size, Stripesize: sector,
		CsumType: uint16(best.csum), RootDirObjectid: ondisk.RootDirObjectid, NumDevices: uint64(len(s.devs)), Incompat: guessIncompat,
	}
	s.rep.lost("no superblock is valid; by its blocks this is volume %v with %v checksums and blocks of %d bytes", best.fsid, best.csum, best.size)
	return nil
}

// guessIncompat are the features that a volume of which nothing is known is read with.
const guessIncompat = ondisk.IncompatMixedBackref | ondisk.IncompatMixedGroups | ondisk.IncompatBigMetadata | ondisk.IncompatExtendedIref |
	ondisk.IncompatSkinnyMetadata | ondisk.IncompatNoHoles

// sectorOf gives the size of sectors if the block tells it: if it is a leaf of chunks. Else 0.
func sectorOf(p []byte, k kind) uint32 {
	b := ondisk.Block(p)
	if b.Owner() != ondisk.ChunkTree || b.Level() > 0 {
		return 0
	}
	c := treecheck.Context{Nodesize: k.size, SuperGeneration: farAway, Incompat: guessIncompat, CsumSize: k.csum.Size()}
	for c.Sectorsize = 4096; c.Sectorsize <= 64<<10; c.Sectorsize *= 2 {
		if treecheck.Check(b, c) == nil && b.Key(b.NrItems()-1).Type == ondisk.TypeChunkItem {
			return c.Sectorsize
		}
	}
	return 0
}

// alignment gathers what addresses and lengths of data extents are multiples of.
type alignment struct {
	all uint64 // all of them, one over the other
	n   int
}

// fewExtents are too few to tell the size of sectors.
const fewExtents = 8

// look looks at a block that did not pass treecheck.
func (a *alignment) look(p []byte) {
	b := ondisk.Block(p)
	if b.Owner() != ondisk.ExtentTree || b.Level() > 0 || ondisk.HeaderSize+b.NrItems()*ondisk.ItemSize > len(b) {
		return
	}
	for i := range b.NrItems() {
		if k := b.Key(i); k.Type == ondisk.TypeExtentItem {
			a.all |= k.Objectid | k.Offset
			a.n++
		}
	}
}

func (a *alignment) sector() uint32 {
	if a.n < fewExtents {
		return 4096
	}
	return 1 << min(max(bits.TrailingZeros64(a.all), 12), 16)
}

// plausible tells whether b looks like the header of a block, of whatever volume.
func plausible(p []byte) bool {
	b := ondisk.Block(p)
	return b.Flags()>>56 == 1 && b.IsWritten() && b.Level() <= ondisk.MaxLevel && b.Owner() != 0 && b.Bytenr() != 0 && b.Bytenr()%4096 == 0 &&
		!b.FSID().IsZero() && b.NrItems() > 0 && b.NrItems() < len(b)/ondisk.ItemSize
}

// kindOf tells what kind of volume a block of up to len(b) bytes belongs to: the length and the kind of checksum with which it is right.
func kindOf(b []byte) (kind, bool) {
	types := []checksum.Type{checksum.SHA256, checksum.Blake2b}
	switch {
	case allZero(b[4:32]):
		types = []checksum.Type{checksum.CRC32C}
	case allZero(b[8:32]):
		types = []checksum.Type{checksum.XXHash64}
	}
	for size := 4096; size <= len(b); size *= 2 {
		for _, t := range types {
			if checksum.Verify(t, b[:t.Size()], b[32:size]) {
				return kind{ondisk.Block(b).FSID(), uint32(size), t}, true
			}
		}
	}
	return kind{}, false
}

func allZero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}
