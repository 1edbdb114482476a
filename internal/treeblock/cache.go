package treeblock

import (
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// shards is the number of independently locked parts of the cache.
const shards = 32

// shard holds a part of the cached and of the dirty blocks.
//
// Eviction is SIEVE: a queue by age in which a hit only sets a mark, and a hand that walks from old to new, spares
// marked blocks (once) and evicts the first unmarked one. A scan passes through without driving out what is used.
type shard struct {
	mu    sync.Mutex
	dirty map[ondisk.Bytenr]*Block
	clean map[ondisk.Bytenr]*entry
	limit int    // most clean blocks to keep
	head  *entry // newest
	tail  *entry // oldest
	hand  *entry // next to look at; nil: start at the tail
	reads map[ondisk.Bytenr]*flight
}

type entry struct {
	block        *Block
	at           ondisk.Bytenr
	newer, older *entry
	used         bool
}

// flight is a read in progress that others may wait for.
type flight struct {
	done  chan struct{}
	want  Promise
	stale bool // the address was given to a new block meanwhile
	block *Block
	err   error
}

func (s *shard) get(at ondisk.Bytenr) (b *Block, dirty bool) {
	if b := s.dirty[at]; b != nil {
		return b, true
	}
	if e := s.clean[at]; e != nil {
		e.used = true
		return e.block, false
	}
	return nil, false
}

func (s *shard) put(at ondisk.Bytenr, b *Block) {
	if e := s.clean[at]; e != nil {
		e.block = b
		return
	}
	for len(s.clean) >= s.limit && s.tail != nil {
		s.evict()
	}
	e := &entry{block: b, at: at, older: s.head}
	if s.head != nil {
		s.head.newer = e
	} else {
		s.tail = e
	}
	s.head = e
	s.clean[at] = e
}

func (s *shard) evict() {
	e := s.hand
	if e == nil {
		e = s.tail
	}
	for e.used { // ends: each step clears a mark
		e.used = false
		if e = e.newer; e == nil {
			e = s.tail
		}
	}
	s.hand = e.newer
	s.unlink(e)
}

func (s *shard) drop(at ondisk.Bytenr) {
	delete(s.dirty, at)
	if e := s.clean[at]; e != nil {
		s.unlink(e)
	}
	if f := s.reads[at]; f != nil {
		f.stale = true
	}
}

func (s *shard) unlink(e *entry) {
	if s.hand == e {
		s.hand = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.head = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.tail = e.newer
	}
	delete(s.clean, e.at)
}
