package btrfs

import (
	"context"
	"io"

	"github.com/gobtrfs/gobtrfs/internal/dump"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// DumpSuper prints the superblock, as btrfs inspect-internal dump-super does.
func (v *Volume) DumpSuper(w io.Writer) error { return dump.Super(w, v.vol.Super()) }

// DumpTree prints one tree, or all when id is 0, as btrfs inspect-internal
// dump-tree does; block, if not 0, prints only the block at that address.
func (v *Volume) DumpTree(ctx context.Context, w io.Writer, id, block uint64) error {
	return dump.Tree(ctx, w, v.vol, ondisk.TreeID(id), dump.Options{Block: ondisk.Bytenr(block)})
}
