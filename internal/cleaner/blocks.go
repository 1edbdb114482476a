package cleaner

import (
	"context"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// blocks reads the blocks of dead trees for package drop. They are read once and never again, so they stay out of the cache.
type blocks struct {
	store *treeblock.Store
	bufs  sync.Pool
}

func newBlocks(s *treeblock.Store) *blocks {
	return &blocks{store: s, bufs: sync.Pool{New: func() any { b := make([]byte, s.Nodesize()); return &b }}}
}

// Prefetch does nothing: the workers read in the order of addresses.
func (b *blocks) Prefetch(context.Context, []drop.Ptr) {}

func (b *blocks) Node(ctx context.Context, p drop.Ptr, data []ref.Ref) (drop.Node, error) {
	buf := b.bufs.Get().(*[]byte)
	defer b.bufs.Put(buf)
	block, err := b.store.ReadInto(ctx, treeblock.Promise{
		Bytenr: p.At, Generation: p.Generation, Level: p.Level, FirstKey: p.Key, HasKey: p.Key != ondisk.Key{},
	}, *buf)
	if err != nil {
		return drop.Node{}, err
	}
	n := drop.Node{Owner: block.Owner(), Reloc: block.Flags()&ondisk.FlagReloc != 0}
	if p.Level == 0 {
		n.Data, err = ref.Of(block, false, data)
		return n, err
	}
	n.Ptrs = make([]drop.Ptr, block.NrItems())
	for i := range n.Ptrs {
		c := &n.Ptrs[i]
		c.At, c.Generation = block.Ptr(i)
		c.Level, c.Key = p.Level-1, block.Key(i)
	}
	return n, nil
}
