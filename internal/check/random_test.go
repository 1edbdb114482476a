package check_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// overlay is a device with some bytes replaced.
type overlay struct {
	device.Device
	at   int64
	data []byte
}

func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.Device.ReadAt(p, off)
	from, to := max(off, o.at), min(off+int64(n), o.at+int64(len(o.data)))
	if from < to {
		copy(p[from-off:to-off], o.data[from-o.at:])
	}
	return n, err
}

func openDevice(t *testing.T, d device.Device) (*volume.Volume, error) {
	t.Helper()
	return volume.Open(context.Background(), []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
}

// blocksOf lists all tree blocks of a volume with one copy of metadata at the
// same place as its logical address says, by its extent tree.
func blocksOf(t *testing.T, v *volume.Volume) (all []ondisk.Bytenr) {
	t.Helper()
	ctx := context.Background()
	tree, err := v.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		t.Fatal(err)
	}
	for cur, err := tree.Seek(ctx, ondisk.Key{}); cur.Valid(); err = cur.Next(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		k, b := cur.Key(), cur.Data()
		if k.Type == ondisk.TypeMetadataItem || k.Type == ondisk.TypeExtentItem && le.Uint64(b[16:])&ondisk.ExtentFlagTreeBlock != 0 {
			all = append(all, ondisk.Bytenr(cur.Key().Objectid))
		}
	}
	return all
}

// TestRandomBytes changes random bytes of random tree blocks and makes the
// checksum right again: whatever comes, the check ends without a panic.
func TestRandomBytes(t *testing.T) {
	seed := testenv.Seed(t, 20)
	rounds := testenv.Rounds(60)
	rnd := rand.New(rand.NewPCG(uint64(seed), 1))
	for _, name := range []string{"mixed", "half-drop", "fst-bitmaps"} {
		d, err := device.OpenFile(testenv.ReadImages(t, name)[0], device.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		v, err := openDevice(t, d)
		if err != nil {
			t.Fatal(err)
		}
		blocks := blocksOf(t, v)
		sound := 0
		for round := range rounds {
			at := blocks[rnd.IntN(len(blocks))]
			b := make(ondisk.Block, v.Nodesize())
			if err := v.IO().Read(context.Background(), at, 0, b); err != nil {
				t.Fatal(err)
			}
			scramble(rnd, b)
			checksum.Sum(v.CsumType(), b[:v.CsumType().Size()], b[32:])
			ch, _ := v.Chunks().Find(at)
			begin := time.Now()
			damaged, err := openDevice(t, &overlay{d, int64(ch.Stripes[0].Offset + uint64(at-ch.Logical)), b})
			if err != nil {
				continue
			}
			r, err := check.Check(context.Background(), damaged, check.Options{})
			if err != nil {
				t.Fatalf("seed %d, %s, round %d: %v", seed, name, round, err)
			}
			if r.OK() {
				sound++
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Fatalf("seed %d, %s, round %d: took %v", seed, name, round, took)
			}
		}
		if name == "mixed" && sound > rounds*3/4 {
			t.Errorf("seed %d, %s: %d of %d damages were not seen", seed, name, sound, rounds)
		}
	}
}

// scramble changes a few bytes of the block's contents, mostly of an item.
func scramble(rnd *rand.Rand, b ondisk.Block) {
	n, free := b.NrItems(), ondisk.HeaderSize
	if b.Level() == 0 {
		free += n*ondisk.ItemSize + b.FreeBytes()
	}
	level := b.Level()
	for range 1 + rnd.IntN(3) {
		switch {
		case n == 0 || rnd.IntN(8) == 0:
			b[48+rnd.IntN(53)] = byte(rnd.Uint32())
		case level > 0:
			b[ondisk.HeaderSize+rnd.IntN(n*ondisk.KeyPtrSize)] = byte(rnd.Uint32())
		case rnd.IntN(4) == 0:
			b[ondisk.HeaderSize+rnd.IntN(n*ondisk.ItemSize)] ^= 1 << rnd.IntN(8)
		default:
			if free < len(b) {
				b[free+rnd.IntN(len(b)-free)] ^= 1 << rnd.IntN(8)
			}
		}
	}
}
