// Package dump shows the structures of a volume as text, in the form that `btrfs inspect-internal dump-super` and `dump-tree`
// have, so that who can read those can read these, and so that the two can be compared line by line.
//
// It only reads. What it shows comes from a device: names are quoted where they hold bytes that are no text, and an item that
// cannot be decoded is reported in its place, without ending the dump.
package dump

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Options tell what of a tree to show.
type Options struct {
	Block ondisk.Bytenr // this block and what is below it; 0: from the root
	Quiet bool          // heads of blocks and items only, not what the items say
}

// Tree shows a tree, or all trees if id is 0. Blocks that cannot be read are reported in the text; the first such error is
// returned at the end, except of blocks that are dropped already.
func Tree(ctx context.Context, w io.Writer, v *volume.Volume, id ondisk.TreeID, opt Options) error {
	d := &dumper{w: bufio.NewWriterSize(w, 64<<10), v: v, opt: opt}
	err := d.trees(ctx, id)
	if ferr := d.w.Flush(); err == nil {
		err = ferr
	}
	if err == nil {
		err = d.lost
	}
	return err
}

// dumper is a dump in progress. Errors of w stay in w until its Flush.
type dumper struct {
	w    *bufio.Writer
	v    *volume.Volume
	opt  Options
	lost error // the first block that could not be read
}

func (d *dumper) line(format string, args ...any) {
	fmt.Fprintf(d.w, format, args...)
	d.w.WriteByte('\n')
}

func (d *dumper) trees(ctx context.Context, id ondisk.TreeID) error {
	if d.opt.Block != 0 {
		return d.at(ctx, d.opt.Block)
	}
	if id == 0 || id == ondisk.RootTree {
		d.line("root tree")
		if err := d.tree(ctx, d.v.RootTree()); err != nil {
			return err
		}
	}
	if id == 0 || id == ondisk.ChunkTree {
		d.line("chunk tree")
		if err := d.tree(ctx, d.v.ChunkTree()); err != nil {
			return err
		}
	}
	if err := d.log(ctx, id); err != nil {
		return err
	}
	found := id == 0 || id == ondisk.LogTree || id == ondisk.RootTree || id == ondisk.ChunkTree
	err := roots.All(ctx, d.v.RootTree(), func(k ondisk.Key, item ondisk.RootItem) error {
		if id != 0 && ondisk.TreeID(k.Objectid) != id {
			return nil
		}
		found = true
		d.line("%s key %s ", treeTitle(ondisk.TreeID(k.Objectid)), keyText(k))
		return d.treeFrom(ctx, d.v.TreeAt(ondisk.TreeID(k.Objectid), item), item)
	})
	if err == nil && !found {
		return fmt.Errorf("%v: %w", id, btree.ErrNotFound)
	}
	if id == 0 && err == nil {
		sb := d.v.Super()
		d.line("total bytes %d", sb.TotalBytes)
		d.line("bytes used %d", sb.BytesUsed)
		d.line("uuid %v", sb.FSID)
	}
	return err
}

// log shows what fsync left since the last commit, if it did: the tree of log trees, and those.
func (d *dumper) log(ctx context.Context, id ondisk.TreeID) error {
	sb := d.v.Super()
	if sb.LogRoot == 0 || id != 0 && id != ondisk.LogTree {
		return nil
	}
	d.line("log root tree")
	t := btree.New(d.v.Store(), ondisk.LogTree, btree.RootPtr{Bytenr: sb.LogRoot, Generation: sb.Generation + 1, Level: sb.LogRootLevel}, nil)
	if err := d.tree(ctx, t); err != nil {
		return err
	}
	return roots.All(ctx, t, func(k ondisk.Key, item ondisk.RootItem) error {
		d.line("log tree key %s ", keyText(k))
		return d.tree(ctx, d.v.TreeAt(ondisk.LogTree, item))
	})
}

// tree shows a whole tree.
func (d *dumper) tree(ctx context.Context, t *btree.Tree) error {
	return d.treeFrom(ctx, t, ondisk.RootItem{})
}

// treeFrom shows a whole tree, also what is dropped of it already, as far as that can be read.
func (d *dumper) treeFrom(ctx context.Context, t *btree.Tree, item ondisk.RootItem) error {
	p := t.Promise()
	p.Owner = 0 // show what is there
	cut, ok := item.Dropped()
	return d.block(ctx, t.ID(), p, dropped{cut: cut, way: ok})
}

// dropped tells what is dropped of a block.
type dropped struct {
	cut ondisk.DropCut
	way bool // the way to the cut leads through the block
	all bool // nothing holds the block any more
}

// child tells what is dropped of the block below slot i of node b.
func (d dropped) child(b ondisk.Block, i int) dropped {
	if !d.way {
		return d
	}
	slot, below := d.cut.Slot(b)
	return dropped{cut: d.cut, way: below && i == slot, all: i < slot}
}

// at shows the tree below a block of which only the address is known.
func (d *dumper) at(ctx context.Context, at ondisk.Bytenr) error {
	buf := make(ondisk.Block, d.v.Nodesize())
	var errs []error
	for mirror := range d.v.IO().Mirrors(at) {
		err := d.v.IO().ReadBlock(ctx, at, mirror, buf)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p := treeblock.Promise{Bytenr: at, Generation: buf.Generation(), Level: buf.Level(), Tree: buf.Owner()}
		if _, err = d.v.Store().Read(ctx, p); err == nil {
			return d.block(ctx, buf.Owner(), p, dropped{})
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("block %d: %w", at, errors.Join(append(errs, btree.ErrNotFound)...))
}

// block shows a block and, depth first, what is below it.
func (d *dumper) block(ctx context.Context, tree ondisk.TreeID, p treeblock.Promise, gone dropped) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	blk, err := d.v.Store().Read(ctx, p)
	if err != nil && gone.all {
		d.line("block %d of level %d was dropped, and holds something else by now: %v", p.Bytenr, p.Level, err)
		return nil
	}
	if err != nil {
		d.line("block %d of level %d cannot be read: %v", p.Bytenr, p.Level, err)
		if d.lost == nil {
			d.lost = err
		}
		return nil
	}
	b := blk.Data()
	d.head(b)
	if b.Level() == 0 {
		for i := range b.NrItems() {
			d.item(b, i)
		}
		return nil
	}
	for i := range b.NrItems() {
		at, g := b.Ptr(i)
		d.line("\tkey %s block %d gen %d", keyText(b.Key(i)), at, g)
	}
	for i := range b.NrItems() {
		child := btree.ChildPromise(tree, b, i)
		child.Owner = 0
		if err := d.block(ctx, tree, child, gone.child(b, i)); err != nil {
			return err
		}
	}
	return nil
}

// head shows the header of a block.
func (d *dumper) head(b ondisk.Block) {
	if b.Level() == 0 {
		d.line("leaf %d items %d free space %d generation %d owner %s", b.Bytenr(), b.NrItems(), b.FreeBytes(), b.Generation(), objectName(uint64(b.Owner()), ondisk.TypeRootItem))
		d.line("leaf %d flags %s backref revision %d", b.Bytenr(), blockFlags(b), b.Flags()>>56)
	} else {
		d.line("node %d level %d items %d free space %d generation %d owner %s", b.Bytenr(), b.Level(), b.NrItems(),
			ondisk.MaxPtrs(len(b))-b.NrItems(), b.Generation(), objectName(uint64(b.Owner()), ondisk.TypeRootItem))
		d.line("node %d flags %s backref revision %d", b.Bytenr(), blockFlags(b), b.Flags()>>56)
	}
	d.line("fs uuid %v", b.FSID())
	d.line("chunk uuid %v", b.ChunkTreeUUID())
}

func blockFlags(b ondisk.Block) string {
	f := b.Flags() & (1<<56 - 1)
	return fmt.Sprintf("%#x(%s)", f, flagNames(f, "none", "WRITTEN", "RELOC"))
}

// flagNames joins the names of set bits, lowest first.
func flagNames(bits uint64, none string, names ...string) string {
	var out []string
	for i, n := range names {
		if bits&(1<<i) != 0 && n != "" {
			out = append(out, n)
			bits &^= 1 << i
		}
	}
	if bits != 0 {
		out = append(out, fmt.Sprintf("UNKNOWN: %#x", bits))
	}
	if len(out) == 0 {
		return none
	}
	return strings.Join(out, "|")
}
