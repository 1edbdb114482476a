package space_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/btree/btreetest"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/space"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

const (
	nodesize = 16384
	sector   = btreetest.Sectorsize
	mib      = 1 << 20
)

// world is a Space over trees in memory, with a model of every sector.
type world struct {
	t        *testing.T
	ctx      context.Context
	vol      *btreetest.Volume
	fst, bgt *btree.Tree
	chunks   *chunk.Map
	s        *space.Space
	used     map[ondisk.Bytenr]bool // sectors that are in use
	pinned   map[ondisk.Bytenr]bool // sectors freed since the last commit that were in use then
	fresh    map[ondisk.Bytenr]bool // sectors handed out since the last commit
	extents  []extent
}

type extent struct {
	at ondisk.Bytenr
	n  uint64
}

// newWorld makes three groups: metadata, data, and data over the second superblock copy.
func newWorld(t *testing.T) *world {
	w := &world{t: t, ctx: context.Background(), vol: btreetest.NewVolume(nodesize, 0), chunks: chunk.NewMap(),
		used: map[ondisk.Bytenr]bool{}, pinned: map[ondisk.Bytenr]bool{}, fresh: map[ondisk.Bytenr]bool{}}
	var err error
	w.fst, err = w.vol.NewTree(ondisk.FreeSpaceTree)
	w.must(err)
	w.bgt, err = w.vol.NewTree(ondisk.BlockGroupTree)
	w.must(err)
	for _, c := range []struct {
		at   ondisk.Bytenr
		n    uint64
		typ  uint64
		phys uint64
	}{{100 * mib, 8 * mib, ondisk.BlockGroupMetadata, 8 * mib}, {200 * mib, 8 * mib, ondisk.BlockGroupData, 20 * mib}, {300 * mib, 16 * mib, ondisk.BlockGroupData, 60 * mib}} {
		w.must(w.chunks.Insert(chunk.Chunk{Logical: c.at, ChunkItem: ondisk.ChunkItem{Length: c.n, Owner: 2, StripeLen: 65536, Type: c.typ,
			IOAlign: 65536, IOWidth: 65536, SectorSize: sector, SubStripes: 1, Stripes: []ondisk.Stripe{{DevID: 1, Offset: c.phys}}}}))
		w.must(w.bgt.Insert(w.ctx, ondisk.Key{Objectid: uint64(c.at), Type: ondisk.TypeBlockGroupItem, Offset: c.n},
			ondisk.BlockGroupItem{ChunkObjectid: 256, Flags: c.typ}.Append(nil)))
		w.must(w.fst.Insert(w.ctx, ondisk.Key{Objectid: uint64(c.at), Type: ondisk.TypeFreeSpaceInfo, Offset: c.n}, ondisk.FreeSpaceInfo{ExtentCount: 1}.Append(nil)))
		w.must(w.fst.Insert(w.ctx, ondisk.Key{Objectid: uint64(c.at), Type: ondisk.TypeFreeSpaceExtent, Offset: c.n}, nil))
	}
	w.must(w.vol.Commit(w.ctx))
	w.s = w.open()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open() *space.Space {
	w.t.Helper()
	fst, bgt := w.fst.Root(), w.bgt.Root()
	s, err := space.Open(w.ctx, space.Config{Nodesize: nodesize, Sectorsize: sector, Map: w.chunks, FreeSpaceTree: true, BlockGroupTree: true,
		Committed: func(_ context.Context, id ondisk.TreeID) (*btree.Tree, error) {
			if id == ondisk.FreeSpaceTree {
				return btree.New(w.vol.Store, id, fst, nil), nil
			}
			return btree.New(w.vol.Store, id, bgt, nil), nil
		}})
	w.must(err)
	return s
}

// got checks an extent that was handed out against the model.
func (w *world) got(at ondisk.Bytenr, n uint64) {
	w.t.Helper()
	for a := at; a < at+ondisk.Bytenr(n); a += sector {
		if w.used[a] || w.pinned[a] {
			w.t.Fatalf("sector %d is handed out; used %v, pinned %v", a, w.used[a], w.pinned[a])
		}
		if a >= 304*mib && a < 304*mib+65536 {
			w.t.Fatalf("sector %d lies under a superblock", a)
		}
		w.used[a], w.fresh[a] = true, true
	}
	w.extents = append(w.extents, extent{at, n})
}

func (w *world) free(i int) {
	e := w.extents[i]
	w.extents[i] = w.extents[len(w.extents)-1]
	w.extents = w.extents[:len(w.extents)-1]
	w.must(w.s.Free(w.ctx, e.at, e.n))
	for a := e.at; a < e.at+ondisk.Bytenr(e.n); a += sector {
		delete(w.used, a)
		if !w.fresh[a] {
			w.pinned[a] = true
		}
		delete(w.fresh, a)
	}
}

// commit writes the items and opens another Space from them, which must see the same.
func (w *world) commit() {
	w.t.Helper()
	for {
		changed, err := w.s.Flush(w.ctx, w.fst, w.bgt)
		w.must(err)
		if !changed {
			break
		}
	}
	w.must(w.vol.Commit(w.ctx))
	w.s.Committed()
	clear(w.pinned)
	clear(w.fresh)
	w.s = w.open()
	if got, want := w.s.UsedBytes(), uint64(len(w.used))*sector; got != want {
		w.t.Fatalf("%d bytes are used, want %d", got, want)
	}
}

// TestModel hands out and takes back at random, with a model of each sector. The group that becomes fragmented goes
// over to bitmaps and back.
func TestModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(uint64(testenv.Seed(t, 1)), 0))
	w := newWorld(t)
	bitmaps := 0
	for round := range testenv.Rounds(4000) {
		mode := round / 1000 % 2 // take much, then give much
		switch n := rng.IntN(100); {
		case n < 10:
			at, err := w.s.AllocBlock(w.ctx, ondisk.BlockGroupMetadata)
			if err == nil {
				if at/65536 != (at+nodesize-1)/65536 {
					t.Fatalf("block at %d crosses a stripe", at)
				}
				w.got(at, nodesize)
			}
		case n < 70-40*mode:
			at, got, err := w.s.AllocData(w.ctx, uint64(1+rng.IntN(3))*sector)
			if err == nil {
				w.got(at, got)
			}
		case n < 98 && len(w.extents) > 0:
			for range 1 + 3*mode {
				if len(w.extents) > 0 {
					w.free(rng.IntN(len(w.extents)))
				}
			}
		case n >= 98:
			w.commit()
			if b, err := w.fst.Seek(w.ctx, ondisk.Key{Objectid: 200 * mib, Type: ondisk.TypeFreeSpaceBitmap}); err == nil && b.Valid() && b.Key().Type == ondisk.TypeFreeSpaceBitmap {
				bitmaps++
			}
		}
	}
	w.commit()
	t.Logf("%d extents at the end, bitmaps seen %d times", len(w.extents), bitmaps)
}

// TestFullGroups: when nothing is free the error is ENOSPC, and all that is free can be handed out.
func TestFullGroups(t *testing.T) {
	w := newWorld(t)
	n := 0
	for ; ; n++ {
		at, err := w.s.AllocBlock(w.ctx, ondisk.BlockGroupMetadata)
		if err != nil {
			if !errors.Is(err, space.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
		w.got(at, nodesize)
	}
	if n != 8*mib/nodesize {
		t.Errorf("%d blocks fit", n)
	}
	var data uint64
	for {
		at, got, err := w.s.AllocData(w.ctx, space.MaxDataExtent)
		if errors.Is(err, space.ErrNoSpace) {
			break
		}
		w.must(err)
		w.got(at, got)
		data += got
	}
	if data != 24*mib-65536 {
		t.Errorf("%d bytes of data fit", data)
	}
	w.commit()
}

// TestFreeTwice: what is free cannot be given back.
func TestFreeTwice(t *testing.T) {
	w := newWorld(t)
	at, n, err := w.s.AllocData(w.ctx, 8*sector)
	w.must(err)
	w.must(w.s.Free(w.ctx, at, n))
	var c *ondisk.CorruptError
	if err := w.s.Free(w.ctx, at, n); !errors.As(err, &c) {
		t.Errorf("got %v", err)
	}
	if err := w.s.Free(w.ctx, 1*mib, sector); !errors.As(err, &c) {
		t.Errorf("outside of all groups: got %v", err)
	}
}
