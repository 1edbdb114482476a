package drop

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// Walk drops one tree to its end, depth first and one reference at a time. It is the definition of a drop, and the oracle of the tests: too slow for
// use. Changes are visible in later look-ups.
func Walk(ctx context.Context, blocks Blocks, refs Refs, root Root, nodesize uint32) error {
	w, err := newWalker(ctx, blocks, refs, root, nodesize)
	if err != nil {
		return err
	}
	return w.run()
}

type walker struct {
	*Drop
	ctx  context.Context
	root Root
	// progress, if set, is told each cut that the kernel would save.
	progress func(Cut)
}

func newWalker(ctx context.Context, blocks Blocks, refs Refs, root Root, nodesize uint32) (*walker, error) {
	d, err := New(blocks, refs, []Root{root}, Options{Nodesize: nodesize})
	return &walker{Drop: d, ctx: ctx, root: root}, err
}

func (w *walker) run() error {
	info, err := w.info(w.root.Block.At)
	if err != nil {
		return err
	}
	var cut *Cut
	if !w.root.Cut.IsZero() {
		cut = &w.root.Cut
	}
	return w.down(w.root.Block, info, w.blockRef(w.root.Block, 0, w.root.ID, false), cut)
}

func (w *walker) info(at ondisk.Bytenr) (ref.Info, error) {
	infos, err := w.lookup(w.ctx, []ondisk.Bytenr{at})
	if err != nil {
		return ref.Info{}, err
	}
	return infos[0], nil
}

func (w *walker) node(p Ptr) (*Node, error) {
	nodes, err := w.read(w.ctx, []Ptr{p})
	if err != nil {
		return nil, err
	}
	return &nodes[0], nil
}

// down gives up the reference own on block p. If it is the last, it first does the same for what the block refers to, from the cut on.
func (w *walker) down(p Ptr, info ref.Info, own ref.Ref, cut *Cut) error {
	giveUp := []ref.Change{{Ref: own, Delta: -1}}
	if info.Refs > 1 {
		if cut == nil && !(isFull(info) && p.Level == 0) && p.Generation > w.root.Origin {
			if err := w.convertOwn(p); err != nil {
				return err
			}
		}
		return w.add(w.ctx, giveUp, nil)
	}
	n, err := w.node(p)
	if err != nil {
		return err
	}
	if p.Level > 0 && !isFull(info) && n.Owner != w.root.ID {
		// The kernel refuses this too: nobody may be left holding implicit references of a tree that let go of them.
		return corrupt(p.At, "last holder is not the owner", w.root.ID, n.Owner)
	}
	from := 0
	if cut != nil {
		from = startSlot(n.Ptrs, cut.Key)
	}
	for i := from; i < len(n.Ptrs); i++ {
		c := n.Ptrs[i]
		ci, err := w.info(c.At)
		if err != nil {
			return err
		}
		var below *Cut
		if cut != nil && i == from && p.Level > cut.Level {
			below = cut
		}
		if err := w.down(c, ci, w.blockRef(c, p.At, n.Owner, isFull(info)), below); err != nil {
			return err
		}
		if w.progress != nil && i+1 < len(n.Ptrs) {
			w.progress(Cut{Key: n.Ptrs[i+1].Key, Level: p.Level})
		}
	}
	for _, r := range n.Data {
		if isFull(info) {
			r = fullForm(r, p.At)
		}
		giveUp = append(giveUp, ref.Change{Ref: r, Delta: -1})
	}
	return w.add(w.ctx, giveUp, nil)
}

// convertOwn gives full references to everything at and below p that the root wrote and that outlives it.
func (w *walker) convertOwn(p Ptr) error {
	info, err := w.info(p.At)
	if err != nil || (isFull(info) && p.Level == 0) {
		return err
	}
	n, err := w.node(p)
	if err != nil || n.Owner != w.root.ID {
		return err
	}
	if err := w.add(w.ctx, w.convert(top{ptr: p, info: info}, n, nil), nil); err != nil {
		return err
	}
	for _, c := range n.Ptrs {
		if c.Generation > w.root.Origin {
			if err := w.convertOwn(c); err != nil {
				return err
			}
		}
	}
	return nil
}
