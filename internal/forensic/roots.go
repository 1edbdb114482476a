package forensic

import (
	"context"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
)

// rootFinder puts the root tree together, and the trees that it tells of.
type rootFinder struct {
	s     *search
	whole bool // the root tree is as the superblock says
	dirty bool // something in the root tree was replaced

	other []item // but root items
	trees map[ondisk.TreeID]*tree
	refs  map[[2]ondisk.TreeID]bool // parent and child that have a ROOT_REF
	up    map[ondisk.TreeID]bool    // subvolumes that have a ROOT_BACKREF
	uuids map[ondisk.UUID]*tree     // subvolumes
	seen  map[id]bool               // leaves of directories that were looked at
	added []ondisk.TreeID           // trees that the root tree did not tell of
}

// tree is one tree of the root tree.
type tree struct {
	key  ondisk.Key
	item ondisk.RootItem
}

func (t *tree) id() ondisk.TreeID { return ondisk.TreeID(t.key.Objectid) }

func (t *tree) root() btree.RootPtr {
	return btree.RootPtr{Bytenr: t.item.Bytenr, Generation: t.item.Generation, Level: t.item.Level}
}

func (t *tree) setRoot(r btree.RootPtr) {
	t.item.Bytenr, t.item.Generation, t.item.GenerationV2, t.item.Level = r.Bytenr, r.Generation, r.Generation, r.Level
}

// fixed are the trees that are not subvolumes and that are looked for when the root tree does not tell of them.
var fixed = [...]ondisk.TreeID{
	ondisk.ExtentTree, ondisk.DevTree, ondisk.FSTree, ondisk.CsumTree, ondisk.UUIDTree, ondisk.FreeSpaceTree, ondisk.BlockGroupTree, ondisk.DataRelocTree,
}

// findRoots finds the root tree, mends the trees that it tells of, and makes a new root tree if that changed anything.
func (s *search) findRoots(ctx context.Context) error {
	r := &rootFinder{
		s: s, trees: map[ondisk.TreeID]*tree{}, refs: map[[2]ondisk.TreeID]bool{}, up: map[ondisk.TreeID]bool{}, uuids: map[ondisk.UUID]*tree{},
		seen: map[id]bool{},
	}
	if err := r.items(ctx); err != nil {
		return err
	}
	if err := r.extents(ctx); err != nil {
		return err
	}
	if !r.whole {
		if err := r.renewAll(ctx); err != nil {
			return err
		}
	}
	for _, t := range r.order() {
		if err := r.mend(ctx, t); err != nil {
			return err
		}
	}
	if !r.whole {
		if err := r.adopt(ctx); err != nil {
			return err
		}
	}
	if len(r.added) > 0 {
		s.rep.lost("root items of %d trees, which were found by their blocks: what they told (flags, times, uuids) is gone", len(r.added))
	}
	if r.trees[ondisk.FSTree] == nil {
		s.rep.lost("nothing of the top-level subvolume was found")
	}
	return r.write()
}

// items reads the root tree, or what is left of it.
func (r *rootFinder) items(ctx context.Context) error {
	s := r.s
	root := btree.RootPtr{Bytenr: s.sb.Root, Generation: s.sb.Generation, Level: s.sb.RootLevel}
	ok, err := s.whole(ctx, ondisk.RootTree, root)
	if err == nil && !ok {
		err = r.findLive(ctx)
	}
	if err == nil && !ok && s.sure {
		root.Bytenr, err = r.elsewhere(ctx, root)
	}
	if err != nil {
		return err
	}
	var g *gathering
	if s.sure {
		g, err = s.gather(ctx, ondisk.RootTree, root, nil)
	} else {
		g, err = s.gatherAll(ctx, ondisk.RootTree, nil)
	}
	if err != nil {
		return err
	}
	switch r.whole = g.lost == 0; {
	case !r.whole:
		s.rep.lost("root tree: %v", g)
	case root.Bytenr != s.sb.Root:
		s.rep.note("root tree: found at %d, where the superblock does not point", root.Bytenr)
	default:
		s.rep.note("root tree: as the superblock says")
	}
	if r.whole {
		s.sb.Root = root.Bytenr
	}
	return s.eachItem(ctx, ondisk.RootTree, g.leaves, func(it item) error {
		r.item(it)
		return nil
	})
}

// elsewhere gives the address of the root if it is there, in use, but the superblock points to something else.
func (r *rootFinder) elsewhere(ctx context.Context, root btree.RootPtr) (ondisk.Bytenr, error) {
	for _, f := range r.s.index.tops[ondisk.RootTree] {
		if r.s.live == nil || f.gen != root.Generation || f.level != root.Level {
			break
		}
		if used, err := r.s.inUse(ctx, f); used || err != nil {
			return f.at, err
		}
	}
	return root.Bytenr, nil
}

func (r *rootFinder) item(it item) {
	switch a, b := ondisk.TreeID(it.key.Objectid), ondisk.TreeID(it.key.Offset); it.key.Type {
	case ondisk.TypeRootItem:
		ri, err := ondisk.DecodeRootItem(it.body)
		if err != nil {
			return
		}
		t := &tree{it.key, ri}
		if old := r.trees[a]; old != nil { // of several the last counts
			r.other = append(r.other, item{old.key, old.item.Append(nil)})
		}
		r.trees[a] = t
		if !ri.UUID.IsZero() {
			r.uuids[ri.UUID] = t
		}
		return
	case ondisk.TypeRootRef:
		r.refs[[2]ondisk.TreeID{a, b}] = true
	case ondisk.TypeRootBackref:
		r.up[a] = true
	}
	r.other = append(r.other, it)
}

// order lists the trees by their ids.
func (r *rootFinder) order() (out []*tree) {
	for _, t := range r.trees {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *tree) int { return a.key.Compare(b.key) })
	return out
}

// renewAll looks for newer roots than those of an old root tree, and for fixed trees that it does not tell of.
func (r *rootFinder) renewAll(ctx context.Context) error {
	for _, t := range r.order() {
		if err := r.renew(ctx, t); err != nil {
			return err
		}
	}
	for _, id := range fixed {
		if r.trees[id] == nil {
			if err := r.add(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// renew looks for a newer root of one tree.
func (r *rootFinder) renew(ctx context.Context, t *tree) error {
	top, err := r.newest(ctx, t.id())
	if err != nil || top == nil || !mendable(t) || top.gen <= t.item.Generation || top.level < t.item.Level {
		return err
	}
	old, err := r.s.whole(ctx, t.id(), t.root())
	if err != nil {
		return err
	}
	now, err := r.s.whole(ctx, t.id(), top.root())
	if err == nil && (now || !old) {
		t.setRoot(top.root())
		r.dirty = true
	}
	return err
}

// newest gives what is most likely a tree's newest root: of the highest blocks of the newest generation the one in use; if that is not
// known, one of which all is there. Two there are when a transaction wrote a block, and then changed it once more.
func (r *rootFinder) newest(ctx context.Context, id ondisk.TreeID) (best *found, err error) {
	tops := r.s.index.tops[id]
	for _, f := range tops {
		if f.gen != tops[0].gen {
			break
		}
		ok := false
		if r.s.live != nil {
			ok, err = r.s.inUse(ctx, f)
		} else if best == nil || best == tops[0] {
			ok, err = r.s.whole(ctx, id, f.root())
		}
		if err != nil {
			return nil, err
		}
		if ok || best == nil {
			best = f
		}
	}
	return best, nil
}

// part tells whether the highest block of a tree's newest generation is not the root: there is a higher one, or another one in use on
// its level. Then the root is lost, or the tree has become lower.
func (r *rootFinder) part(ctx context.Context, top *found) (bool, error) {
	for _, f := range r.s.index.tops[top.owner] {
		if f.level > top.level {
			return true, nil
		}
	}
	if r.s.live == nil {
		return top.level == 0 && len(newestApart(r.s.index.leaves[top.owner])) > 1, nil
	}
	for _, f := range r.s.index.blocks {
		if f.owner != top.owner || f.level < top.level || f == top {
			continue
		}
		if used, err := r.s.inUse(ctx, f); used || err != nil {
			return used, err
		}
	}
	return false, nil
}

// add makes a root item for a tree by the blocks of it that were found, if there are any: by its newest root, or else by its leaves.
func (r *rootFinder) add(ctx context.Context, id ondisk.TreeID) error {
	top, err := r.newest(ctx, id)
	if err != nil || top == nil {
		return err
	}
	t := &tree{ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem}, ondisk.RootItem{
		Inode:     ondisk.InodeItem{Generation: 1, Size: 3, Nbytes: uint64(r.s.sb.Nodesize), Nlink: 1, Mode: 0o040755},
		BytesUsed: uint64(r.s.sb.Nodesize), Refs: 1,
	}}
	if id.IsSubvolume() {
		t.item.RootDirid = ondisk.FirstFreeObjectid
	}
	part, err := r.part(ctx, top)
	if err != nil {
		return err
	}
	if !part {
		t.setRoot(top.root())
	} else {
		g, err := r.s.gatherAll(ctx, id, nil)
		if err != nil {
			return err
		}
		t.setRoot(r.s.made.nodes(id, g.leaves))
	}
	r.trees[id], r.dirty = t, true
	r.added = append(r.added, id)
	return nil
}

// findLive looks for the newest extent tree, without the root tree: if it is whole it tells which blocks are in use.
func (r *rootFinder) findLive(ctx context.Context) error {
	s := r.s
	for _, f := range s.index.tops[ondisk.ExtentTree] {
		if f.gen != s.sb.Generation {
			break
		}
		if err := r.liveBy(ctx, f.root()); err != nil {
			return err
		}
		if s.live == nil {
			continue
		}
		// Of two that are there the right one is that which knows itself.
		if ok, err := s.inUse(ctx, f); ok || err != nil {
			return err
		}
		s.live = nil
	}
	return nil
}

// extents goes by the extent tree that the root tree tells of, if it is whole and new.
func (r *rootFinder) extents(ctx context.Context) error {
	t := r.trees[ondisk.ExtentTree]
	if r.s.live != nil || t == nil || t.item.Generation != r.s.sb.Generation {
		return nil
	}
	return r.liveBy(ctx, t.root())
}

// liveBy goes by the extent tree with a root from now on, if it is whole.
func (r *rootFinder) liveBy(ctx context.Context, root btree.RootPtr) error {
	ok, err := r.s.whole(ctx, ondisk.ExtentTree, root)
	if ok {
		r.s.live = btree.New(r.s.store, ondisk.ExtentTree, root, nil)
	}
	return err
}

// mendable tells whether a tree is one to be looked after: one that is being dropped is not.
func mendable(t *tree) bool {
	return t.item.Refs > 0 && (t.id().IsSubvolume() || t.id() < ondisk.TreeID(ondisk.FirstFreeObjectid) || t.id() == ondisk.DataRelocTree)
}

// mend gives a tree of which blocks are lost new nodes over the leaves that are left.
func (r *rootFinder) mend(ctx context.Context, t *tree) error {
	if !mendable(t) {
		return nil
	}
	ok, err := r.s.whole(ctx, t.id(), t.root())
	if ok || err != nil {
		return err
	}
	g, err := r.s.gather(ctx, t.id(), t.root(), r.sources(t))
	if err != nil {
		return err
	}
	r.s.rep.lost("%v: %v", t.id(), g)
	t.setRoot(r.s.made.nodes(t.id(), g.leaves))
	r.dirty = true
	return nil
}

// mostAncestors bounds the snapshots of snapshots whose sources are followed.
const mostAncestors = 16

// sources lists the subvolumes whose blocks a snapshot may share: those it was taken of, up to when it was taken.
func (r *rootFinder) sources(t *tree) (out []source) {
	limit := r.s.sb.Generation
	for range mostAncestors {
		limit = min(limit, ondisk.Generation(t.key.Offset))
		from := r.uuids[t.item.ParentUUID]
		if t.item.ParentUUID.IsZero() || from == nil {
			break
		}
		out = append(out, source{from.id(), limit})
		t = from
	}
	return out
}

// adopt looks through the directories of all subvolumes for nested ones that the root tree does not tell of.
func (r *rootFinder) adopt(ctx context.Context) error {
	queue := r.order()
	for len(queue) > 0 {
		t := queue[0]
		queue = queue[1:]
		if !t.id().IsSubvolume() || !mendable(t) {
			continue
		}
		g, err := r.s.gather(ctx, t.id(), t.root(), nil)
		if err != nil {
			return err
		}
		for _, l := range g.leaves {
			more, err := r.nested(ctx, t.id(), l)
			if err != nil {
				return err
			}
			queue = append(queue, more...)
		}
	}
	return nil
}

// nested looks through one leaf, and gives the subvolumes that it brought back.
func (r *rootFinder) nested(ctx context.Context, parent ondisk.TreeID, l leaf) (more []*tree, err error) {
	if l.hole != none {
		return nil, nil
	}
	b, err := r.s.store.Read(ctx, treeblock.Promise{Bytenr: l.at, Generation: l.gen, FirstKey: l.first, HasKey: true, Tree: parent})
	if err != nil {
		return nil, ctx.Err()
	}
	d := b.Data()
	// A leaf that snapshots share was met first in their source, whose id is lower; in them the entry is an empty directory.
	if k := idOf(d); r.seen[k] {
		return nil, nil
	} else {
		r.seen[k] = true
	}
	for i := range d.NrItems() {
		if d.Key(i).Type != ondisk.TypeDirIndex {
			continue
		}
		list, err := ondisk.DecodeDirEntries(d.Item(i))
		if err != nil || len(list) != 1 || list[0].Location.Type != ondisk.TypeRootItem {
			continue
		}
		t, err := r.child(ctx, parent, d.Key(i), list[0])
		if err != nil {
			return nil, err
		}
		if t != nil {
			more = append(more, t)
		}
	}
	return more, nil
}

// child makes what is missing of the root items of a subvolume that a directory names; it gives the tree if that is new.
func (r *rootFinder) child(ctx context.Context, parent ondisk.TreeID, k ondisk.Key, e ondisk.DirEntry) (*tree, error) {
	id := ondisk.TreeID(e.Location.Objectid)
	fresh := r.trees[id] == nil
	if fresh {
		if err := r.add(ctx, id); err != nil || r.trees[id] == nil {
			return nil, err
		}
		if err := r.mend(ctx, r.trees[id]); err != nil {
			return nil, err
		}
	}
	if !r.refs[[2]ondisk.TreeID{parent, id}] && !r.up[id] {
		r.refs[[2]ondisk.TreeID{parent, id}], r.up[id], r.dirty = true, true, true
		body := ondisk.RootRef{Dirid: k.Objectid, Sequence: k.Offset, Name: e.Name}.Append(nil)
		r.other = append(r.other, item{ondisk.Key{Objectid: uint64(parent), Type: ondisk.TypeRootRef, Offset: uint64(id)}, body},
			item{ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootBackref, Offset: uint64(parent)}, body})
	}
	if !fresh {
		return nil, nil
	}
	return r.trees[id], nil
}

// write makes the root tree anew unless it is good as it is.
func (r *rootFinder) write() error {
	if r.whole && !r.dirty {
		return nil
	}
	list := r.other
	for _, t := range r.trees {
		list = append(list, item{t.key, t.item.Append(nil)})
	}
	root, err := r.s.made.tree(ondisk.RootTree, list)
	r.s.sb.Root, r.s.sb.RootLevel = root.Bytenr, root.Level
	return err
}
