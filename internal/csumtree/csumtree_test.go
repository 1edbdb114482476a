package csumtree_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/btree/btreetest"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

var layout = csumtree.Layout{Sectorsize: 4096, Nodesize: 4096, Size: 4}

func newTree(t *testing.T) *btree.Tree {
	t.Helper()
	tree, err := btreetest.NewVolume(layout.Nodesize, 1<<20).NewTree(ondisk.CsumTree)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// sum is the checksum that the tests give to a sector.
func sum(sector int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(sector)*2654435761) }

func sums(from, n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, sum(from+i)...)
	}
	return b
}

// Ranges of sectors are filled in a random order; look-ups must find exactly
// what was put, wherever items begin and end.
func TestLookupFindsWhatWasInserted(t *testing.T) {
	const seed, sectors = 1, 6000
	rng := rand.New(rand.NewPCG(seed, 0))
	ctx, tree := context.Background(), newTree(t)
	have := make([]bool, sectors)
	for round := range 400 {
		from := rng.IntN(sectors)
		n := 0
		for from+n < sectors && !have[from+n] && n < 1200 {
			have[from+n] = true
			n++
		}
		if rng.IntN(3) == 0 { // sometimes leave the end free
			for n > 1 && rng.IntN(4) > 0 {
				n--
				have[from+n] = false
			}
		}
		if err := csumtree.Insert(ctx, tree, layout, ondisk.Bytenr(from*4096), sums(from, n)); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		lookup(t, tree, rng.IntN(sectors-1500), rng.IntN(1500), have)
	}
	lookup(t, tree, 0, sectors, have)
}

func lookup(t *testing.T, tree *btree.Tree, from, n int, have []bool) {
	t.Helper()
	got, err := csumtree.Lookup(context.Background(), tree, layout, ondisk.Bytenr(from*4096), n)
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	for i := range n {
		b, ok := got.At(i)
		if ok != have[from+i] || ok && !bytes.Equal(b, sum(from+i)) {
			t.Fatalf("sector %d: got %x %v, want %x %v", from+i, b, ok, sum(from+i), have[from+i])
		}
		if !ok {
			missing++
		}
	}
	if got.Len() != n || got.Missing() != missing {
		t.Fatalf("%d of %d missing, want %d of %d", got.Missing(), got.Len(), missing, n)
	}
}

// A file that is written piece by piece must not leave an item per piece.
func TestInsertFillsItems(t *testing.T) {
	ctx, tree := context.Background(), newTree(t)
	const pieces, each = 300, 10
	for i := range pieces {
		if err := csumtree.Insert(ctx, tree, layout, ondisk.Bytenr(i*each*4096), sums(i*each, each)); err != nil {
			t.Fatal(err)
		}
	}
	items := 0
	c, err := tree.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		if n := len(c.Data()) / 4; n > layout.MaxEntries() {
			t.Fatalf("an item of %d sums, the most is %d", n, layout.MaxEntries())
		}
		items++
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := (pieces*each + layout.MaxEntries() - 1) / layout.MaxEntries(); items != want {
		t.Fatalf("%d items, want %d", items, want)
	}
}

func TestInsertRefusesOverlap(t *testing.T) {
	ctx, tree := context.Background(), newTree(t)
	if err := csumtree.Insert(ctx, tree, layout, 8192, sums(2, 4)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []ondisk.Bytenr{8192, 12288, 20480} {
		if err := csumtree.Insert(ctx, tree, layout, at, sums(9, 1)); err == nil {
			t.Errorf("a second checksum for the sector at %d was taken", at)
		}
	}
}
