package cleaner

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// blocks reads the blocks of dead trees for package drop. They are committed, so the devices have them; they are read once and never again, so they
// stay out of the cache.
type blocks struct {
	v     *volume.Volume
	bufs  sync.Pool // of blocks
	runs  sync.Pool // of maxRun bytes
	ahead *ahead

	merged atomic.Uint64 // runs of several blocks
}

func newBlocks(v *volume.Volume) *blocks {
	return &blocks{v: v, bufs: sync.Pool{New: func() any { b := make([]byte, v.Nodesize()); return &b }}}
}

// Prefetch begins to read what the next calls of Node ask for.
func (b *blocks) Prefetch(ctx context.Context, ps []drop.Ptr) {
	b.stop()
	b.ahead = readAhead(ctx, b.v, &b.runs, ps)
	for _, r := range b.ahead.runs {
		if r.left.Load() > 1 {
			b.merged.Add(1)
		}
	}
}

// stop ends reading ahead.
func (b *blocks) stop() {
	if b.ahead != nil {
		b.ahead.stop()
		b.ahead = nil
	}
}

// Node implements drop.Blocks. What was read ahead and is not good is read again, from every copy.
func (b *blocks) Node(ctx context.Context, p drop.Ptr, data []ref.Ref) (n drop.Node, err error) {
	promise := treeblock.Promise{
		Bytenr: p.At, Generation: p.Generation, Level: p.Level, FirstKey: p.Key, HasKey: p.Key != ondisk.Key{},
	}
	if b.ahead != nil && b.ahead.with(ctx, p.At, func(block ondisk.Block) error {
		err := b.v.Store().Verify(promise, block)
		if err == nil {
			n, err = nodeOf(block, data)
		}
		return err
	}) {
		return n, nil
	}
	buf := b.bufs.Get().(*[]byte)
	defer b.bufs.Put(buf)
	block, err := b.v.Store().ReadInto(ctx, promise, *buf)
	if err != nil {
		return drop.Node{}, err
	}
	return nodeOf(block, data)
}

// nodeOf copies out of a block what drop needs.
func nodeOf(block ondisk.Block, data []ref.Ref) (n drop.Node, err error) {
	n = drop.Node{Owner: block.Owner(), Reloc: block.Flags()&ondisk.FlagReloc != 0}
	if block.Level() == 0 {
		n.Data, err = ref.Of(block, false, data)
		return n, err
	}
	n.Ptrs = make([]drop.Ptr, block.NrItems())
	for i := range n.Ptrs {
		c := &n.Ptrs[i]
		c.At, c.Generation = block.Ptr(i)
		c.Level, c.Key = block.Level()-1, block.Key(i)
	}
	return n, nil
}
