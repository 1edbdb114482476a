package forensic

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const (
	blockCost     = 256 // bytes of memory that a remembered block takes, about
	defaultMemory = 512 << 20
	mostPlaces    = 4 // copies of one block that are remembered
)

// id tells blocks apart: two of one address and generation may differ, when one of them is forged or torn.
type id struct {
	at  ondisk.Bytenr
	gen ondisk.Generation
	sum uint64 // the first bytes of the checksum
}

func idOf(b ondisk.Block) id {
	return id{b.Bytenr(), b.Generation(), binary.LittleEndian.Uint64(b.Csum())}
}

// place is where a block lies: a device, by its index, and an offset.
type place struct {
	dev int
	off int64
}

// found is what is remembered of a block.
type found struct {
	id
	owner       ondisk.TreeID
	level       uint8
	items       int
	first, last ondisk.Key // zero when the block is empty
	places      []place
}

func (f *found) root() btree.RootPtr {
	return btree.RootPtr{Bytenr: f.at, Generation: f.gen, Level: f.level}
}

func (f *found) leaf() leaf {
	return leaf{first: f.first, last: f.last, at: f.at, gen: f.gen}
}

// index is all blocks that were found.
type index struct {
	mu        sync.Mutex // guards the rest during the search
	blocks    map[id]*found
	limit     int // of blocks; those of the chunk tree and the root tree have as much again
	forgotten int // that found no room

	at     map[ondisk.Bytenr][]*found // newest first; made when the search is over
	leaves map[ondisk.TreeID][]*found // by owner, in the order of their first keys
	tops   map[ondisk.TreeID][]*found // by owner: the highest blocks of each generation, newest first
}

func newIndex(memory int64) *index {
	if memory <= 0 {
		memory = defaultMemory
	}
	return &index{blocks: map[id]*found{}, limit: int(max(memory/blockCost/2, 16))}
}

// add remembers a block that is whole.
func (x *index) add(b ondisk.Block, p place) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := idOf(b)
	if f := x.blocks[k]; f != nil {
		if len(f.places) < mostPlaces {
			f.places = append(f.places, p)
		}
		return
	}
	limit := x.limit
	if o := b.Owner(); o == ondisk.ChunkTree || o == ondisk.RootTree {
		limit *= 2
	}
	if len(x.blocks) >= limit {
		x.forgotten++
		return
	}
	f := &found{id: k, owner: b.Owner(), level: b.Level(), items: b.NrItems(), places: []place{p}}
	if f.items > 0 {
		f.first, f.last = b.Key(0), b.Key(f.items-1)
	}
	x.blocks[k] = f
}

// newest is the highest generation of a block.
func (x *index) newest() (g ondisk.Generation) {
	for k := range x.blocks {
		g = max(g, k.gen)
	}
	return g
}

// keep forgets the places that ok refuses, and blocks without any.
func (x *index) keep(ok func(f *found, p place) bool) {
	for k, f := range x.blocks {
		f.places = slices.DeleteFunc(f.places, func(p place) bool { return !ok(f, p) })
		if len(f.places) == 0 {
			delete(x.blocks, k)
		}
	}
	x.arrange()
}

// arrange makes the lists, each in an order that the order of finding does not change.
func (x *index) arrange() {
	x.at, x.leaves, x.tops = map[ondisk.Bytenr][]*found{}, map[ondisk.TreeID][]*found{}, map[ondisk.TreeID][]*found{}
	all := make([]*found, 0, len(x.blocks))
	for _, f := range x.blocks {
		slices.SortFunc(f.places, func(a, b place) int { return cmp.Or(cmp.Compare(a.dev, b.dev), cmp.Compare(a.off, b.off)) })
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *found) int {
		return cmp.Or(cmp.Compare(b.gen, a.gen), cmp.Compare(b.level, a.level), cmp.Compare(a.id.at, b.id.at), cmp.Compare(a.sum, b.sum))
	})
	for _, f := range all {
		x.at[f.id.at] = append(x.at[f.id.at], f)
		if f.level == 0 && f.items > 0 {
			x.leaves[f.owner] = append(x.leaves[f.owner], f)
		}
		if t := x.tops[f.owner]; len(t) == 0 || t[len(t)-1].gen != f.gen || t[len(t)-1].level == f.level {
			x.tops[f.owner] = append(t, f)
		}
	}
	for _, l := range x.leaves {
		slices.SortStableFunc(l, func(a, b *found) int { return a.first.Compare(b.first) })
	}
}
