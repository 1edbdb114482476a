// Package btreetest is test gear for everything that stands on trees: a backend in memory with faults, a space that
// hands out blocks and counts them, and a verifier of a tree's structure.
package btreetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// Sectorsize is that of every volume made here.
const Sectorsize = 4096

// FSID is in the header of each block made here.
func FSID() ondisk.UUID { return ondisk.UUID{1, 2, 3, 4} }

// Mem is a treeblock.Backend in memory.
type Mem struct {
	Copies int // of each block
	// Fault, if not nil, may change the bytes of a copy that is read, or return an error.
	Fault func(at ondisk.Bytenr, mirror int, p []byte) error

	size   int // of a block
	mu     sync.Mutex
	blocks map[ondisk.Bytenr][]byte
	reads  int
}

// Mirrors implements treeblock.Backend.
func (m *Mem) Mirrors(ondisk.Bytenr) int { return m.Copies }

// ReadBlock implements treeblock.Backend.
func (m *Mem) ReadBlock(_ context.Context, at ondisk.Bytenr, mirror int, p []byte) error {
	m.mu.Lock()
	b := m.blocks[at]
	m.reads++
	m.mu.Unlock()
	if b == nil {
		return fmt.Errorf("nothing was written at %d", uint64(at))
	}
	copy(p, b)
	if m.Fault != nil {
		return m.Fault(at, mirror, p)
	}
	return nil
}

// WriteBlocks implements treeblock.Backend.
func (m *Mem) WriteBlocks(_ context.Context, at ondisk.Bytenr, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; len(p) > 0; at, p = at+ondisk.Bytenr(m.size), p[m.size:] {
		m.blocks[at] = append([]byte(nil), p[:m.size]...)
	}
	return nil
}

// Reads returns how many copies were read.
func (m *Mem) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// Volume is a store in memory with the space of its trees. Nothing in it is shared between trees.
type Volume struct {
	*Mem
	Store *treeblock.Store
	Space *Space
}

// NewVolume returns an empty volume.
func NewVolume(nodesize uint32, cacheBytes int64) *Volume {
	m := &Mem{Copies: 2, size: int(nodesize), blocks: map[ondisk.Bytenr][]byte{}}
	store := treeblock.New(m, treeblock.Options{Nodesize: nodesize, Sectorsize: Sectorsize,
		FSIDs: []ondisk.UUID{FSID()}, SuperGeneration: 1, CacheBytes: cacheBytes})
	return &Volume{Mem: m, Store: store, Space: &Space{
		store: store, size: nodesize, gen: 2, next: 1 << 20, Live: map[ondisk.Bytenr]bool{}}}
}

// Reopen returns a volume with an empty cache over the same blocks, for reading.
func (v *Volume) Reopen(cacheBytes int64) *Volume {
	return &Volume{Mem: v.Mem, Space: v.Space, Store: treeblock.New(v.Mem, treeblock.Options{Nodesize: v.Space.size,
		Sectorsize: Sectorsize, FSIDs: []ondisk.UUID{FSID()}, SuperGeneration: v.Space.gen, CacheBytes: cacheBytes})}
}

// NewTree returns a new tree that is an empty leaf.
func (v *Volume) NewTree(id ondisk.TreeID) (*btree.Tree, error) {
	b, err := v.Space.New(id, 0)
	if err != nil {
		return nil, err
	}
	root := btree.RootPtr{Bytenr: b.Bytenr(), Generation: b.Generation()}
	return btree.New(v.Store, id, root, v.Space), nil
}

// Commit writes what is dirty and begins the next transaction.
func (v *Volume) Commit(ctx context.Context) error {
	if err := v.Store.WriteDirty(ctx); err != nil {
		return err
	}
	v.Space.free = append(v.Space.free, v.Space.pinned...)
	v.Space.pinned = nil
	v.Store.SetGeneration(v.Space.gen)
	v.Space.gen++
	return nil
}

// Space is a btree.Space that knows which blocks are in use.
type Space struct {
	Made, Copied, Freed int // calls
	Live                map[ondisk.Bytenr]bool
	// FailAt makes the n-th call from now fail with ErrSpace, if it is not 0.
	FailAt int

	store  *treeblock.Store
	size   uint32
	gen    ondisk.Generation
	next   ondisk.Bytenr
	free   []ondisk.Bytenr
	pinned []ondisk.Bytenr
}

// ErrSpace is the error of a Space that was told to fail.
var ErrSpace = errors.New("btreetest: told to fail")

// Writable implements btree.Space.
func (s *Space) Writable(_ ondisk.TreeID, b *treeblock.Block) bool { return b.Born() > 0 }

// New implements btree.Space.
func (s *Space) New(owner ondisk.TreeID, level uint8) (*treeblock.Block, error) {
	s.Made++
	if err := s.fail(); err != nil {
		return nil, err
	}
	b := s.store.Create(s.address())
	d := b.Data()
	d.SetFSID(FSID())
	d.SetFlags(ondisk.HeaderFlagsNew)
	d.SetGeneration(s.gen)
	d.SetOwner(owner)
	d.SetLevel(level)
	return b, nil
}

// Copy implements btree.Space.
func (s *Space) Copy(owner ondisk.TreeID, b *treeblock.Block) (*treeblock.Block, error) {
	s.Copied++
	if err := s.fail(); err != nil {
		return nil, err
	}
	n := s.store.Create(s.address())
	at := n.Bytenr()
	d := n.Data()
	copy(d, b.Data())
	d.SetBytenr(at)
	d.SetFlags(ondisk.HeaderFlagsNew)
	d.SetGeneration(s.gen)
	d.SetOwner(owner)
	return n, s.release(b)
}

// Free implements btree.Space.
func (s *Space) Free(_ ondisk.TreeID, b *treeblock.Block) error {
	s.Freed++
	return s.release(b)
}

func (s *Space) fail() error {
	if s.FailAt > 0 {
		if s.FailAt--; s.FailAt == 0 {
			return ErrSpace
		}
	}
	return nil
}

func (s *Space) address() ondisk.Bytenr {
	at := s.next
	if n := len(s.free); n > 0 {
		at = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		s.next += ondisk.Bytenr(s.size)
	}
	s.Live[at] = true
	return at
}

func (s *Space) release(b *treeblock.Block) error {
	at := b.Bytenr()
	if !s.Live[at] {
		return fmt.Errorf("btreetest: block %d is freed but not in use", uint64(at))
	}
	delete(s.Live, at)
	if b.Born() > 0 {
		s.free = append(s.free, at) // never written: nobody can miss it
	} else {
		s.pinned = append(s.pinned, at)
	}
	s.store.Drop(at)
	return nil
}
