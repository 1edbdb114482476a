package extent

import (
	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

var _ btree.Space = (*Extents)(nil)

// Writable implements btree.Space.
func (x *Extents) Writable(owner ondisk.TreeID, b *treeblock.Block) bool {
	x.acts++
	born := b.Born()
	return born > 0 && b.Owner() == owner && born > x.seals[owner]
}

// New implements btree.Space.
func (x *Extents) New(owner ondisk.TreeID, level uint8) (*treeblock.Block, error) {
	x.grown[owner]++
	return x.make(owner, level)
}

// make creates a private block with its header and its one reference.
func (x *Extents) make(owner ondisk.TreeID, level uint8) (*treeblock.Block, error) {
	x.acts++
	typ := ondisk.BlockGroupMetadata
	if owner == ondisk.ChunkTree {
		typ = ondisk.BlockGroupSystem
	}
	at, err := x.cfg.Space.AllocBlock(x.ctx, typ)
	if err != nil {
		return nil, err
	}
	b := x.cfg.Store.Create(at)
	x.setHeader(b.Data(), at, owner, level)
	x.addNew(ref.Change{Ref: x.ownRef(at, owner, level), Delta: 1}, b)
	return b, nil
}

// ownRef is the reference that a tree has to a block of its own.
func (x *Extents) ownRef(at ondisk.Bytenr, owner ondisk.TreeID, level uint8) ref.Ref {
	return ref.Ref{At: at, Len: uint64(x.size), Kind: ref.KindTreeBlock, Level: level, Root: owner}
}

func (x *Extents) setHeader(d ondisk.Block, at ondisk.Bytenr, owner ondisk.TreeID, level uint8) {
	d.SetFSID(x.cfg.FSID)
	d.SetBytenr(at)
	d.SetFlags(ondisk.HeaderFlagsNew)
	d.SetChunkTreeUUID(x.cfg.ChunkTreeUUID)
	d.SetGeneration(x.gen)
	d.SetOwner(owner)
	d.SetLevel(level)
}

// Copy implements btree.Space. What happens to the references that leave b depends on who else refers to b:
//
//	references to b, flag      b's owner   references that leave b and the copy n
//	one, clear                 the tree    n inherits them; b goes
//	one, FULL                  any         n's are added, b's are given up; b goes
//	more, clear                the tree    n inherits them; b gets new ones by parent, and the flag
//	more, otherwise                        n's are added; b keeps its own
func (x *Extents) Copy(owner ondisk.TreeID, b *treeblock.Block) (*treeblock.Block, error) {
	n, err := x.make(owner, b.Level())
	if err != nil {
		return nil, err
	}
	at := n.Bytenr()
	copy(n.Data(), b.Data())
	x.setHeader(n.Data(), at, owner, b.Level())
	if !owner.IsShareable() {
		return n, x.release(owner, b)
	}
	info, err := x.sharing(owner, b)
	if err != nil {
		return nil, err
	}
	full := info.Flags&ondisk.ExtentFlagFullBackref != 0
	switch {
	case info.Refs == 1 && !full && b.Owner() == owner:
	case info.Refs == 1 && !full:
		return nil, &ondisk.CorruptError{What: "tree block", Tree: owner, Bytenr: b.Bytenr(), Slot: -1, Reason: "only reference is from a tree that does not own it", Got: b.Owner()}
	case info.Refs == 1:
		if err = x.addAll(n.Data(), false, 1); err == nil {
			err = x.addAll(b.Data(), true, -1)
		}
	case !full && b.Owner() == owner:
		if err = x.addAll(b.Data(), true, 1); err == nil {
			x.setFull(owner, b)
		}
	default:
		err = x.addAll(n.Data(), false, 1)
	}
	if err != nil {
		return nil, err
	}
	return n, x.release(owner, b)
}

// sharing returns count and flags of a block of a subvolume. Blocks newer than the last snapshot need no look-up.
func (x *Extents) sharing(owner ondisk.TreeID, b *treeblock.Block) (ref.Info, error) {
	last, err := x.cfg.LastSnapshot(x.ctx, owner)
	if err != nil {
		return ref.Info{}, err
	}
	if b.Generation() > last && !b.Data().IsReloc() && b.Owner() == owner {
		return ref.Info{Refs: 1}, nil
	}
	var out [1]ref.Info
	if err := x.Lookup(x.ctx, []ondisk.Bytenr{b.Bytenr()}, out[:]); err != nil {
		return ref.Info{}, err
	}
	if !out[0].Found || out[0].Refs == 0 {
		return ref.Info{}, &ondisk.CorruptError{What: "tree block", Tree: owner, Bytenr: b.Bytenr(), Slot: -1, Reason: "is reachable but has no extent item"}
	}
	return out[0], nil
}

// addAll queues changes of all references that leave the block.
func (x *Extents) addAll(b ondisk.Block, full bool, delta int32) error {
	var err error
	if x.refs, err = ref.Of(b, full, x.refs[:0]); err != nil {
		return err
	}
	for _, r := range x.refs {
		x.Add(ref.Change{Ref: r, Delta: delta})
	}
	return nil
}

func (x *Extents) setFull(owner ondisk.TreeID, b *treeblock.Block) {
	x.Add(ref.Change{Ref: x.ownRef(b.Bytenr(), owner, b.Level()), SetFull: true})
}

// Free implements btree.Space.
func (x *Extents) Free(owner ondisk.TreeID, b *treeblock.Block) error {
	if owner.IsShareable() && !x.Writable(owner, b) {
		// Others may refer to b: its references are sorted out as for a change.
		n, err := x.Copy(owner, b)
		if err != nil {
			return err
		}
		b = n
	}
	x.grown[owner]--
	return x.release(owner, b)
}

// release gives up the tree's reference to a block. A block that nobody else ever saw is gone at once.
func (x *Extents) release(owner ondisk.TreeID, b *treeblock.Block) error {
	at := b.Bytenr()
	if h := x.queue[at]; h != nil && h.isNew && h.delta == 1 && len(h.changes) == 1 && !h.full {
		delete(x.queue, at)
		x.cfg.Store.Drop(at)
		return x.cfg.Space.Free(x.ctx, at, uint64(x.size))
	}
	x.Add(ref.Change{Ref: x.ownRef(at, owner, b.Level()), Delta: -1})
	return nil
}

// Snapshot makes a copy of a tree's root block for the tree dst, with references to all that it points to. From now
// on src copies also the blocks that it made before.
func (x *Extents) Snapshot(src *btree.Tree, dst ondisk.TreeID) (*treeblock.Block, error) {
	root, err := src.RootBlock(x.ctx)
	if err != nil {
		return nil, err
	}
	if !x.Writable(src.ID(), root) {
		if root, err = x.Copy(src.ID(), root); err != nil {
			return nil, err
		}
		src.SetRoot(btree.RootPtr{Bytenr: root.Bytenr(), Generation: root.Generation(), Level: root.Level()})
	}
	b, err := x.make(dst, root.Level())
	if err != nil {
		return nil, err
	}
	at := b.Bytenr()
	copy(b.Data(), root.Data())
	x.setHeader(b.Data(), at, dst, root.Level())
	x.seals[src.ID()] = x.cfg.Store.Seq()
	return b, x.addAll(b.Data(), false, 1)
}
