package treeblock

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treecheck"
)

// Backend moves whole tree blocks between memory and the volume's logical address space.
type Backend interface {
	// Mirrors returns how many copies the address has, 0 if it is not mapped.
	Mirrors(at ondisk.Bytenr) int
	ReadBlock(ctx context.Context, at ondisk.Bytenr, mirror int, p []byte) error
	// WriteBlocks writes all copies of one or more neighbouring blocks. It does not keep p.
	WriteBlocks(ctx context.Context, at ondisk.Bytenr, p []byte) error
}

// Options describe the volume whose blocks a Store handles.
type Options struct {
	Nodesize        uint32
	Sectorsize      uint32
	Csum            checksum.Type
	FSIDs           []ondisk.UUID // ids that a block's header may carry
	SuperGeneration ondisk.Generation
	Incompat        uint64
	CacheBytes      int64 // for clean blocks; 0: 64 MiB
}

// Stats counts a Store's work.
type Stats struct {
	Hits       int64 // reads answered from memory
	Misses     int64 // reads that went to the backend
	Reads      int64 // copies read
	BadMirrors int64 // copies that could not be read or were not what the parent promised
	Rescued    int64 // blocks read from another copy because of a bad one
	Written    int64 // blocks written
	Early      int64 // of them, before their transaction was complete
}

// Store reads, caches and writes the tree blocks of one volume.
type Store struct {
	backend    Backend
	opt        Options
	generation atomic.Uint64
	seq        atomic.Uint64
	dirty      atomic.Int64
	shards     [shards]shard
	ahead      chan struct{} // slots for reads ahead
	wg         sync.WaitGroup
	hits, misses, reads, badMirrors,
	rescued, written atomic.Int64
	early atomic.Int64
	runs  sync.Pool // of buffers for blocks that are written together
}

// New returns a Store over backend.
func New(backend Backend, opt Options) *Store {
	if opt.CacheBytes <= 0 {
		opt.CacheBytes = 64 << 20
	}
	limit := max(4, int(opt.CacheBytes/int64(opt.Nodesize)/shards))
	s := &Store{backend: backend, opt: opt, ahead: make(chan struct{}, readsAhead)}
	for i := range s.shards {
		s.shards[i] = shard{
			dirty: map[ondisk.Bytenr]*Block{}, clean: map[ondisk.Bytenr]*entry{},
			reads: map[ondisk.Bytenr]*flight{}, limit: limit,
		}
	}
	s.generation.Store(uint64(opt.SuperGeneration))
	return s
}

// AddFSID accepts blocks that carry this UUID too: those of a seed device. It is
// for the time when a volume is being opened, before others use the store.
func (s *Store) AddFSID(id ondisk.UUID) {
	s.opt.FSIDs = append(append([]ondisk.UUID{}, s.opt.FSIDs...), id)
}

// Nodesize returns the size of every block.
func (s *Store) Nodesize() uint32 { return s.opt.Nodesize }

// Sectorsize returns the volume's sector size.
func (s *Store) Sectorsize() uint32 { return s.opt.Sectorsize }

// SetGeneration tells the store which generation is the newest a block may carry.
func (s *Store) SetGeneration(g ondisk.Generation) { s.generation.Store(uint64(g)) }

// Stats returns the work done so far.
func (s *Store) Stats() Stats {
	return Stats{Hits: s.hits.Load(), Misses: s.misses.Load(), Reads: s.reads.Load(),
		BadMirrors: s.badMirrors.Load(), Rescued: s.rescued.Load(), Written: s.written.Load(), Early: s.early.Load()}
}

func (s *Store) shard(at ondisk.Bytenr) *shard {
	n := uint64(at) / uint64(s.opt.Nodesize)
	return &s.shards[(n*0x9e3779b97f4a7c15)>>59]
}

// Read returns the promised block: a dirty one, a cached one, or one read from the first copy that keeps the promise.
func (s *Store) Read(ctx context.Context, p Promise) (*Block, error) {
	sh := s.shard(p.Bytenr)
	for {
		sh.mu.Lock()
		b, dirty := sh.get(p.Bytenr)
		if b == nil {
			break // with the lock
		}
		sh.mu.Unlock()
		err := p.check(b.data)
		if err == nil {
			s.hits.Add(1)
			return b, nil
		}
		if dirty {
			return nil, err
		}
		// The cache may hold an older life of this address; the devices decide.
		sh.mu.Lock()
		if e := sh.clean[p.Bytenr]; e != nil && e.block == b {
			sh.unlink(e)
		}
		sh.mu.Unlock()
	}
	s.misses.Add(1)
	if f := sh.reads[p.Bytenr]; f != nil {
		sh.mu.Unlock()
		return s.join(ctx, f, p)
	}
	f := &flight{done: make(chan struct{}), want: p}
	sh.reads[p.Bytenr] = f
	sh.mu.Unlock()
	s.fly(ctx, sh, f)
	return f.block, f.err
}

// fly reads a block for its own caller and for all who wait.
func (s *Store) fly(ctx context.Context, sh *shard, f *flight) {
	buf := make(ondisk.Block, s.opt.Nodesize)
	err := s.load(ctx, f.want, buf)
	sh.mu.Lock()
	delete(sh.reads, f.want.Bytenr)
	if err == nil {
		f.block = &Block{data: buf}
		if !f.stale && sh.dirty[f.want.Bytenr] == nil {
			sh.put(f.want.Bytenr, f.block)
		}
	}
	f.err = err
	sh.mu.Unlock()
	close(f.done)
}

// join waits for somebody else's read. If that one failed, was cancelled, or promised something else, it reads itself.
func (s *Store) join(ctx context.Context, f *flight, p Promise) (*Block, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.err == nil && p.check(f.block.data) == nil {
		return f.block, nil
	}
	buf := make(ondisk.Block, s.opt.Nodesize)
	if err := s.load(ctx, p, buf); err != nil {
		return nil, err
	}
	return &Block{data: buf}, nil
}

// ReadInto returns the promised block in buf (nodesize bytes), without keeping it in the cache.
func (s *Store) ReadInto(ctx context.Context, p Promise, buf []byte) (ondisk.Block, error) {
	data := ondisk.Block(buf[:s.opt.Nodesize])
	sh := s.shard(p.Bytenr)
	sh.mu.Lock()
	b, dirty := sh.get(p.Bytenr)
	sh.mu.Unlock()
	if b != nil {
		err := p.check(b.data)
		if err == nil {
			s.hits.Add(1)
			copy(data, b.data)
			return data, nil
		}
		if dirty {
			return nil, err
		}
	}
	s.misses.Add(1)
	if err := s.load(ctx, p, data); err != nil {
		return nil, err
	}
	return data, nil
}

// load tries each copy until one is good.
func (s *Store) load(ctx context.Context, p Promise, buf ondisk.Block) error {
	if uint64(p.Bytenr)%uint64(s.opt.Sectorsize) != 0 {
		return p.broken("address is not aligned to a sector", p.Bytenr, s.opt.Sectorsize)
	}
	n := s.backend.Mirrors(p.Bytenr)
	errs := make([]error, 0, 2)
	for m := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.reads.Add(1)
		err := s.backend.ReadBlock(ctx, p.Bytenr, m, buf)
		if err == nil {
			err = s.verify(p, buf)
		}
		if err == nil {
			if m > 0 {
				s.rescued.Add(1)
			}
			return nil
		}
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.badMirrors.Add(1)
		errs = append(errs, err)
	}
	return &ReadError{Tree: p.Tree, Bytenr: p.Bytenr, Mirrors: errs}
}

// Verify decides whether bytes that the caller read himself are the promised block, as Read and ReadInto do.
func (s *Store) Verify(p Promise, b ondisk.Block) error {
	if len(b) != int(s.opt.Nodesize) {
		return p.broken("wrong length", len(b), s.opt.Nodesize)
	}
	return s.verify(p, b)
}

// verify decides whether bytes from a device are the promised block.
func (s *Store) verify(p Promise, b ondisk.Block) error {
	if size := s.opt.Csum.Size(); !checksum.Verify(s.opt.Csum, b[:size], b[32:]) {
		return p.broken("checksum does not match", hex.EncodeToString(b[:size]), nil)
	}
	if !s.knows(b.FSID()) {
		return p.broken("block of another file system", b.FSID(), s.opt.FSIDs)
	}
	if b.Bytenr() != p.Bytenr {
		return p.broken("block of another address", b.Bytenr(), p.Bytenr)
	}
	if b.Flags()&ondisk.FlagWritten == 0 {
		return p.broken("flag WRITTEN is missing", b.Flags(), nil)
	}
	if b.Level() > 7 {
		return p.broken("level", b.Level(), 7)
	}
	if err := treecheck.Check(b, s.context(false)); err != nil {
		return err
	}
	return p.check(b)
}

func (s *Store) knows(id ondisk.UUID) bool {
	for _, f := range s.opt.FSIDs {
		if f == id {
			return true
		}
	}
	return false
}

func (s *Store) context(write bool) treecheck.Context {
	return treecheck.Context{
		Nodesize: s.opt.Nodesize, Sectorsize: s.opt.Sectorsize, SuperGeneration: ondisk.Generation(s.generation.Load()),
		Incompat: s.opt.Incompat, CsumSize: s.opt.Csum.Size(), Write: write,
	}
}
