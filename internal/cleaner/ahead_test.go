package cleaner_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// counter counts reads, and spoils some ranges.
type counter struct {
	device.Device
	reads atomic.Int64
	spoil func(p []byte, off int64)
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.reads.Add(1)
	n, err := c.Device.ReadAt(p, off)
	if c.spoil != nil {
		c.spoil(p, off)
	}
	return n, err
}

func planOf(t *testing.T, name string, spoil bool) (blocks uint64, reads int64) {
	t.Helper()
	ctx := context.Background()
	d, err := device.OpenFile(testenv.ReadImages(t, name)[0], device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{Device: d}
	v, err := volume.Open(ctx, []device.Device{c}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var ids []ondisk.TreeID
	if err := roots.All(ctx, v.RootTree(), func(k ondisk.Key, _ ondisk.RootItem) error {
		if id := ondisk.TreeID(k.Objectid); id.IsSubvolume() && id != ondisk.FSTree {
			ids = append(ids, id)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if spoil {
		c.spoil = func(p []byte, off int64) { spoilFirstCopies(v, p, off) }
	}
	before := c.reads.Load()
	p, err := cleaner.Plan(ctx, v, ids)
	if err != nil {
		t.Fatal(err)
	}
	return p.Reads, c.reads.Load() - before
}

// spoilFirstCopies damages what lies in the first copy of metadata.
func spoilFirstCopies(v *volume.Volume, p []byte, off int64) {
	for _, c := range v.Chunks().All() {
		s := c.Stripes[0]
		if c.Type&ondisk.BlockGroupMetadata == 0 || c.Copies() < 2 {
			continue
		}
		from, to := max(off, int64(s.Offset)), min(off+int64(len(p)), int64(s.Offset+c.Length))
		for i := from; i < to; i += 1024 {
			p[i-off] ^= 0x5a
		}
	}
}

func TestNeighboursAreReadAtOnce(t *testing.T) {
	blocks, reads := planOf(t, "snap30", false)
	t.Logf("%d blocks, %d reads", blocks, reads)
	if blocks < 30 || reads*2 > int64(blocks) {
		t.Errorf("%d reads for %d blocks", reads, blocks)
	}
}

func TestBadCopiesAreReadElsewhere(t *testing.T) {
	want, _ := planOf(t, "snap30", false)
	got, reads := planOf(t, "snap30", true)
	if got != want || reads < int64(want) {
		t.Errorf("%d blocks with damage in %d reads, %d without", got, reads, want)
	}
}
