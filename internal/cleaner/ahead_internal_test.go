package cleaner

import (
	"context"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// A block may be asked for again, or twice at once, or without notice.
func TestBlocksMayBeReadAgain(t *testing.T) {
	ctx := context.Background()
	d, err := device.OpenFile(testenv.ReadImages(t, "snap30")[0], device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	tree, err := v.Tree(ctx, ondisk.FSTree)
	if err != nil {
		t.Fatal(err)
	}
	r := tree.Root()
	root := drop.Ptr{At: r.Bytenr, Generation: r.Generation, Level: r.Level}
	b := newBlocks(v)
	defer b.stop()
	b.Prefetch(ctx, []drop.Ptr{root, root})
	for range 4 {
		if n, err := b.Node(ctx, root, nil); err != nil || n.Owner != ondisk.FSTree {
			t.Fatalf("%+v, %v", n, err)
		}
	}
	for range 3 * runsAhead { // given up without being read
		b.Prefetch(ctx, []drop.Ptr{root})
	}
}
