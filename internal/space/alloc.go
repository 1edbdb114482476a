package space

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// MaxDataExtent is the longest extent that is handed out for data.
const MaxDataExtent = 128 << 20

// AllocBlock hands out room for one tree block in a group of the type (BlockGroupMetadata or BlockGroupSystem).
func (s *Space) AllocBlock(ctx context.Context, typ uint64) (ondisk.Bytenr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := uint64(s.cfg.Nodesize)
	if g := s.hint[typ]; g != nil && g.free() >= size {
		if at, ok, err := s.blockIn(ctx, g); ok || err != nil {
			return at, err
		}
	}
	for _, g := range s.groups {
		if g.Flags&typ == 0 || g.free() < size || g.maxRun<<g.shift < int(size) {
			continue
		}
		at, ok, err := s.blockIn(ctx, g)
		if err != nil {
			return 0, err
		}
		if ok {
			s.hint[typ] = g
			return at, nil
		}
	}
	return 0, fmt.Errorf("tree block: %w", ErrNoSpace)
}

func (s *Space) blockIn(ctx context.Context, g *Group) (ondisk.Bytenr, bool, error) {
	if err := s.load(ctx, g); err != nil {
		return 0, false, err
	}
	step := int(s.cfg.Nodesize >> g.shift)
	i, ok := g.findBlock(g.cursor, g.n, step)
	if !ok {
		// What lies before the cursor was given back since it passed, or is too small.
		i, ok = g.findBlock(0, min(g.n, g.cursor+step), step)
	}
	if !ok {
		g.maxRun = min(g.maxRun, step-1)
		return 0, false, nil
	}
	s.touch(g)
	g.take(i, i+step)
	g.cursor = i + step
	return g.address(i), true, nil
}

// AllocData hands out up to want bytes in a row; less when there is no such run, but at least one sector.
func (s *Space) AllocData(ctx context.Context, want uint64) (ondisk.Bytenr, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sector := uint64(s.cfg.Sectorsize)
	want = min((want+sector-1)/sector*sector, MaxDataExtent)
	if want == 0 {
		return 0, 0, fmt.Errorf("space: no bytes wanted")
	}
	var best run
	for _, g := range s.groups {
		if g.Flags&ondisk.BlockGroupData == 0 || g.free() < sector {
			continue
		}
		n := int(want >> g.shift)
		if g.maxRun < n && g.maxRun <= best.to-best.from {
			continue // nothing longer here than what was found already
		}
		if err := s.load(ctx, g); err != nil {
			return 0, 0, err
		}
		r := g.searchRun(n)
		if r.to-r.from > best.to-best.from {
			best = r
		}
		if best.to-best.from >= n {
			break
		}
	}
	if best.g == nil {
		return 0, 0, fmt.Errorf("data: %w", ErrNoSpace)
	}
	s.touch(best.g)
	best.g.take(best.from, best.to)
	best.g.cursor = best.to
	return best.g.address(best.from), uint64(best.to-best.from) << best.g.shift, nil
}

// searchRun looks for n free sectors in a row, from the cursor on and then from the start.
func (g *Group) searchRun(n int) run {
	start, got := g.findRun(g.cursor, g.n, n)
	if got < n {
		if a, b := g.findRun(0, min(g.n, g.cursor+n), n); b > got {
			start, got = a, b
		}
	}
	if got < n {
		g.maxRun = got // both searches together saw every run
	}
	return run{g, start, start + got}
}

// Free gives an extent back. Nobody gets it before the next commit, unless it was handed out since the last one.
func (s *Space) Free(ctx context.Context, at ondisk.Bytenr, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.Group(at)
	if !ok || n > uint64(g.End()-at) || uint64(at-g.Start)%uint64(s.cfg.Sectorsize) != 0 {
		return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "lies outside block groups", Got: n}
	}
	if err := s.load(ctx, g); err != nil {
		return err
	}
	from, to := g.sectors(at, n)
	if got := g.used.count(from, to); got != to-from {
		return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "is given back but was free in part", Got: got, Want: to - from}
	}
	s.touch(g)
	g.used.clear(from, to)
	g.usedBytes -= n
	g.stale = true
	if g.fresh.count(from, to) == to-from {
		g.fresh.clear(from, to)
		g.busy.clear(from, to)
		g.busyBytes -= n
		g.cursor = min(g.cursor, from)
		g.maxRun = g.n
		return nil
	}
	s.pin += n
	if k := len(s.pinned); k > 0 && s.pinned[k-1].g == g && s.pinned[k-1].to == from {
		s.pinned[k-1].to = to // neighbours often go together
		return nil
	}
	s.pinned = append(s.pinned, run{g, from, to})
	return nil
}

// IsFresh tells whether the extent was handed out since the last commit.
func (s *Space) IsFresh(at ondisk.Bytenr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.Group(at)
	if !ok || g.fresh == nil {
		return false
	}
	i, _ := g.sectors(at, 0)
	return g.fresh.count(i, i+1) == 1
}

// Take marks a given range as used, for data extents that a log names. It fails if any of it is in use, or not for data.
func (s *Space) Take(ctx context.Context, at ondisk.Bytenr, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.Group(at)
	if !ok || n > uint64(g.End()-at) {
		return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "lies outside block groups", Got: n}
	}
	if g.Flags&ondisk.BlockGroupData == 0 {
		return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "of data lies where there is none", Got: g.Flags}
	}
	if err := s.load(ctx, g); err != nil {
		return err
	}
	from, to := g.sectors(at, n)
	if g.busy.count(from, to) > 0 {
		return &ondisk.CorruptError{What: "extent", Tree: ondisk.ExtentTree, Bytenr: at, Slot: -1, Reason: "overlaps one that is in use", Got: n}
	}
	s.touch(g)
	g.take(from, to)
	return nil
}

// Hold keeps a range that no tree knows (blocks of a log) from being handed out until the next commit.
func (s *Space) Hold(ctx context.Context, at ondisk.Bytenr, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.Group(at)
	if !ok || n > uint64(g.End()-at) {
		return &ondisk.CorruptError{What: "log block", Bytenr: at, Slot: -1, Reason: "lies outside block groups", Got: n}
	}
	if err := s.load(ctx, g); err != nil {
		return err
	}
	s.touch(g)
	from, to := g.sectors(at, n)
	for i := g.busy.nextClear(from, to); i < to; {
		end := g.busy.nextSet(i, to)
		g.busy.set(i, end)
		g.busyBytes += uint64(end-i) << g.shift
		s.pinned = append(s.pinned, run{g, i, end})
		i = g.busy.nextClear(end, to)
	}
	return nil
}
