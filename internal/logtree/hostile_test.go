package logtree

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// TestHostile replays logs whose blocks were changed at random, with their checksums put right: whatever comes, it is
// an error or a replay, and never a panic.
func TestHostile(t *testing.T) {
	ctx := context.Background()
	seed := testenv.Seed(t, 1)
	paths := testenv.ReadImages(t, "log-tree")
	f, err := device.OpenFile(paths[0], device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole := device.NewMem(f.Size())
	buf := make([]byte, 1<<20)
	for off := int64(0); off < f.Size(); off += int64(len(buf)) {
		n := min(int64(len(buf)), f.Size()-off)
		if _, err := f.ReadAt(buf[:n], off); err != nil {
			t.Fatal(err)
		}
		if _, err := whole.WriteAt(buf[:n], off); err != nil {
			t.Fatal(err)
		}
	}
	failed := 0
	rounds := testenv.Rounds(300)
	for round := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), uint64(round)))
		m := whole.Clone()
		v := openMem(t, m)
		l, err := readLog(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		damage(t, rng, v, m, l.blocks[rng.IntN(len(l.blocks))])
		mgr, err := transaction.Open(ctx, openMem(t, m), transaction.Options{DropLog: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := Replay(ctx, mgr); err != nil {
			failed++
		}
	}
	t.Logf("%d of %d replays failed", failed, rounds)
}

func openMem(t *testing.T, m *device.Mem) *volume.Volume {
	t.Helper()
	v, err := volume.Open(context.Background(), []device.Device{m}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// damage changes a few bytes of all copies of a block.
func damage(t *testing.T, rng *rand.Rand, v *volume.Volume, m *device.Mem, at ondisk.Bytenr) {
	t.Helper()
	b := make(ondisk.Block, v.Nodesize())
	if err := v.IO().ReadBlock(context.Background(), at, 0, b); err != nil {
		t.Fatal(err)
	}
	heads := b.NrItems() * ondisk.ItemSize
	bodies := len(b) - ondisk.HeaderSize - heads
	if b.Level() == 0 {
		bodies -= b.FreeBytes()
	}
	for range 1 + rng.IntN(3) {
		i := ondisk.HeaderSize + rng.IntN(heads+1)
		if b.Level() == 0 && rng.IntN(2) == 0 { // in a body
			i = len(b) - 1 - rng.IntN(bodies)
		}
		b[i] ^= byte(1 + rng.IntN(255))
	}
	checksum.Sum(v.CsumType(), b[:v.CsumType().Size()], b[32:])
	c, _ := v.Chunks().Find(at)
	for _, s := range c.Stripes {
		if _, err := m.WriteAt(b, int64(s.Offset+uint64(at-c.Logical))); err != nil {
			t.Fatal(err)
		}
	}
}
