package treeblock

import (
	"cmp"
	"context"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treecheck"
)

// Create returns a new, zeroed, dirty block at the address. Whatever was known about that address is forgotten.
func (s *Store) Create(at ondisk.Bytenr) *Block {
	b := &Block{data: make(ondisk.Block, s.opt.Nodesize), born: s.seq.Add(1)}
	b.data.SetBytenr(at)
	sh := s.shard(at)
	sh.mu.Lock()
	if sh.dirty[at] == nil {
		s.dirty.Add(1)
	}
	sh.drop(at)
	sh.dirty[at] = b
	sh.mu.Unlock()
	return b
}

// Drop forgets the block at the address, dirty or not.
func (s *Store) Drop(at ondisk.Bytenr) {
	sh := s.shard(at)
	sh.mu.Lock()
	if sh.dirty[at] != nil {
		s.dirty.Add(-1)
	}
	sh.drop(at)
	sh.mu.Unlock()
}

// Seq returns the Born of the newest block.
func (s *Store) Seq() uint64 { return s.seq.Load() }

// Dirty returns how many blocks wait to be written.
func (s *Store) Dirty() int { return int(s.dirty.Load()) }

// Abandon forgets all dirty blocks.
func (s *Store) Abandon() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		s.dirty.Add(-int64(len(sh.dirty)))
		clear(sh.dirty)
		sh.mu.Unlock()
	}
}

// WriteDirty checks, seals and writes every dirty block, sorted by address. When it returns nil all of them are
// committed blocks (the caller still has to flush the devices). After an error all are still dirty.
// No tree may be changed meanwhile.
func (s *Store) WriteDirty(ctx context.Context) error {
	return s.writeOut(ctx, s.collect(func(*Block) bool { return true }))
}

// WriteLeaves writes the dirty leaves of a tree before the rest of the transaction, so that they need not stay in memory. Nothing that is committed
// leads to them yet. They are no longer private: who changes one again copies it.
func (s *Store) WriteLeaves(ctx context.Context, tree ondisk.TreeID) error {
	blocks := s.collect(func(b *Block) bool { return b.Level() == 0 && b.Owner() == tree })
	s.early.Add(int64(len(blocks)))
	return s.writeOut(ctx, blocks)
}

func (s *Store) writeOut(ctx context.Context, blocks []*Block) error {
	if err := s.writeAll(ctx, blocks); err != nil {
		return err
	}
	for _, b := range blocks {
		at := b.Bytenr()
		sh := s.shard(at)
		sh.mu.Lock()
		b.born = 0
		delete(sh.dirty, at)
		sh.put(at, b)
		sh.mu.Unlock()
	}
	s.dirty.Add(-int64(len(blocks)))
	s.written.Add(int64(len(blocks)))
	return nil
}

// collect lists dirty blocks by address.
func (s *Store) collect(want func(*Block) bool) []*Block {
	blocks := make([]*Block, 0, s.Dirty())
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, b := range sh.dirty {
			if want(b) {
				blocks = append(blocks, b)
			}
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(blocks, func(a, b *Block) int { return cmp.Compare(a.Bytenr(), b.Bytenr()) })
	return blocks
}

// maxRun is how many neighbouring blocks are written at once.
const maxRun = 32

// writeAll writes in runs of neighbours, several runs at a time.
func (s *Store) writeAll(ctx context.Context, blocks []*Block) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	size := ondisk.Bytenr(s.opt.Nodesize)
	for len(blocks) > 0 {
		n := 1
		for n < min(len(blocks), maxRun) && blocks[n].Bytenr() == blocks[n-1].Bytenr()+size {
			n++
		}
		run := blocks[:n]
		g.Go(func() error { return s.writeRun(ctx, run) })
		blocks = blocks[n:]
	}
	return g.Wait()
}

// writeRun writes neighbours.
func (s *Store) writeRun(ctx context.Context, run []*Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, b := range run {
		if err := s.seal(b.data); err != nil {
			return err
		}
	}
	if len(run) == 1 {
		return s.backend.WriteBlocks(ctx, run[0].Bytenr(), run[0].data)
	}
	buf, _ := s.runs.Get().(*[]byte)
	if buf == nil {
		b := make([]byte, 0, maxRun*int(s.opt.Nodesize))
		buf = &b
	}
	defer s.runs.Put(buf)
	p := (*buf)[:0]
	for _, b := range run {
		p = append(p, b.data...)
	}
	return s.backend.WriteBlocks(ctx, run[0].Bytenr(), p)
}

// seal checks a block once more and gives it its checksum.
func (s *Store) seal(b ondisk.Block) error {
	b.SetFlags(b.Flags() | ondisk.FlagWritten)
	if err := treecheck.Check(b, s.context(true)); err != nil {
		return err
	}
	clear(b[:32])
	checksum.Sum(s.opt.Csum, b[:s.opt.Csum.Size()], b[32:])
	return nil
}
