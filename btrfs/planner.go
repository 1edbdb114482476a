package btrfs

import (
	"context"
	"errors"
	"io/fs"
	"math"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// errMet is the error of a directory that a walk comes to a second time.
var errMet = errors.New("the directory was met before under another name")

// errTooMuch: the attributes of an entry are not read ahead.
var errTooMuch = errors.New("too much for a batch")

// planner finds out what belongs into one batch.
type planner struct {
	*ahead
	b     *aheadBatch
	w     walker
	scan  *fstree.Scanner
	from  treeFunc
	trees map[ondisk.TreeID]*btree.Tree
	attrs int // bytes of extended attributes in the batch
}

func newPlanner(a *ahead, b *aheadBatch, from treeFunc) *planner {
	p := &planner{ahead: a, b: b, from: from, trees: map[ondisk.TreeID]*btree.Tree{}}
	p.w = walker{tree: p.tree, root: a.s.top}
	return p
}

// tree finds each tree once.
func (p *planner) tree(ctx context.Context, id ondisk.TreeID) (*btree.Tree, error) {
	if t := p.trees[id]; t != nil {
		return t, nil
	}
	t, err := p.from(ctx, id)
	if err == nil {
		p.trees[id] = t
	}
	return t, err
}

// scanner gives what reads the inodes of a subvolume.
func (p *planner) scanner(ctx context.Context, id ondisk.TreeID) (*fstree.Scanner, error) {
	t, err := p.tree(ctx, id)
	if err != nil {
		return nil, err
	}
	if p.scan == nil || p.scan.Tree() != t {
		p.scan = fstree.NewScanner(t)
	}
	return p.scan, nil
}

// fill goes on with the walk until the batch is full.
func (p *planner) fill(ctx context.Context) {
	for ctx.Err() == nil {
		switch {
		case p.file != nil:
			if !p.contents(ctx) {
				return
			}
		case len(p.b.items) >= batchItems || p.b.data.Room() < leastRoom:
			return
		case p.root != "":
			p.begin(ctx)
		case len(p.stack) > 0:
			p.next(ctx)
		default:
			p.done = true
			return
		}
	}
}

// load reads the contents that were planned.
func (p *planner) load(ctx context.Context) {
	csums, err := p.s.v.csums(ctx, p.tree)
	if err == nil {
		p.b.data.Load(ctx, csums)
		return
	}
	for _, it := range p.b.items {
		if it.piece != nil && it.piece.Data == nil {
			it.piece.Err = err
		}
	}
}

func (p *planner) begin(ctx context.Context) {
	root := p.root
	p.root = ""
	n, err := p.s.top, error(nil)
	if root != "." {
		n, err = p.w.find(ctx, n, root, false)
	}
	p.visit(ctx, n, nil, &WalkEntry{Path: root, Name: baseName(root)}, err)
}

func (p *planner) emit(e *WalkEntry) {
	e.s = p.s
	p.b.items = append(p.b.items, aheadItem{entry: e})
}

// next goes on with the directory on top of the stack.
func (p *planner) next(ctx context.Context) {
	top := &p.stack[len(p.stack)-1]
	if len(top.list) == 0 {
		if top.done {
			p.stack = p.stack[:len(p.stack)-1]
		} else if err := p.list(ctx, top); err != nil {
			p.emit(&WalkEntry{Path: top.path, Depth: top.depth, Err: pathErr("readdir", top.path, err)})
		}
		return
	}
	e := top.list[0]
	top.list = top.list[1:]
	x := &WalkEntry{Path: string(e.Name), Name: string(e.Name), Depth: top.depth}
	if top.path != "." {
		x.Path = top.path + "/" + x.Name
	}
	n, err := p.w.enter(ctx, top.n, e)
	p.visit(ctx, n, &place{top.n, e.Index}, x, err)
}

// list reads the next names of a directory.
func (p *planner) list(ctx context.Context, d *aheadDir) error {
	d.list, d.done = d.list[:0:0], true
	t, err := p.tree(ctx, d.n.sub)
	if err != nil {
		return err
	}
	return fstree.ReadDir(ctx, t, d.n.ino, d.next, func(e fstree.Entry) error {
		d.list = append(d.list, e)
		d.next = e.Index + 1
		if len(d.list) < listed {
			return nil
		}
		d.done = e.Index == math.MaxUint64
		return fs.SkipAll
	})
}

// visit tells of an inode, unless it was not found because of err, and sees to it
// that its contents, or what is in it, come next. It was found at from; nil: the walk begins there.
func (p *planner) visit(ctx context.Context, n node, from *place, e *WalkEntry, err error) {
	var it ondisk.InodeItem
	if err == nil {
		it, err = p.inode(ctx, n, e)
	}
	switch {
	case err != nil:
		e.Err = pathErr("lstat", e.Path, err)
	case e.Stat.IsDir() && !n.stub && p.met(ctx, n, from):
		e.Err = pathErr("walk", e.Path, errMet)
	case p.opt.Want != nil && !p.opt.Want(e):
		return
	}
	p.emit(e)
	switch {
	case e.Err != nil || n.stub:
	case e.Stat.IsDir():
		p.stack = append(p.stack, aheadDir{n: n, path: e.Path, depth: e.Depth + 1})
	case e.Stat.IsRegular() && !p.opt.NoContents && !p.again(n, e.Stat):
		e.ahead = true
		p.file = &aheadFile{n: n, path: e.Path, it: it, b: p.b}
	}
}

// place is where a name stands.
type place struct {
	dir   node
	index uint64
}

// met tells whether a directory was met before. A directory that says that it has one name, and that where it was found,
// cannot be met in two places, so it need not be remembered; all others are, and where the walk begins.
func (p *planner) met(ctx context.Context, n node, from *place) bool {
	if from != nil && n.sub == from.dir.sub && n.ino != rootIno && !p.dirs[n] {
		s, err := p.scanner(ctx, n.sub)
		if err == nil {
			if only, err := s.OnlyName(ctx, from.dir.ino, from.index); err == nil && only {
				return false
			}
		}
	}
	met := p.dirs[n]
	p.dirs[n] = true
	return met
}

// again tells whether an inode with several names was met before. With the last of its names it is forgotten.
func (p *planner) again(n node, st Stat) bool {
	left, again := p.linked[n]
	if !again {
		left = st.Nlink
	}
	if left < 2 {
		delete(p.linked, n)
	} else {
		p.linked[n] = left - 1
	}
	return again
}

// inode reads what the tree tells of an inode.
func (p *planner) inode(ctx context.Context, n node, e *WalkEntry) (it ondisk.InodeItem, err error) {
	if n.stub {
		it, err = p.w.inode(ctx, n)
		e.Stat = statOf(n, it)
		return it, err
	}
	s, err := p.scanner(ctx, n.sub)
	if err != nil {
		return it, err
	}
	if it, err = s.Inode(ctx, n.ino); err != nil {
		return it, err
	}
	e.Stat = statOf(n, it)
	err = s.Xattrs(ctx, func(name string, value []byte) error {
		if p.attrs += len(name) + len(value); p.attrs > batchAttrs {
			return errTooMuch
		}
		if e.xattrs == nil {
			e.xattrs = map[string][]byte{}
		}
		e.xattrs[name] = value
		return nil
	})
	if e.partial = err != nil; e.partial {
		e.xattrs = nil
	}
	if !e.Stat.IsSymlink() {
		return it, nil
	}
	target, err := fstree.Readlink(ctx, s.Tree(), n.ino)
	e.Target = string(target)
	return it, err
}

// contents plans the next part of a file, and tells whether that was the last.
func (p *planner) contents(ctx context.Context) bool {
	f := p.file
	full, err := p.extents(ctx, f)
	if full {
		return false
	}
	p.file = nil
	if err != nil && f.pos < f.it.Size {
		lost := Chunk{Off: int64(f.pos), Len: int64(f.it.Size - f.pos)}
		p.b.items = append(p.b.items, aheadItem{path: f.path, lost: lost, err: err})
	}
	return true
}

// extents plans extents of a file from pos on, until the batch is full.
func (p *planner) extents(ctx context.Context, f *aheadFile) (full bool, err error) {
	s, err := p.scanner(ctx, f.n.sub)
	if err != nil {
		return false, err
	}
	if f.b != p.b { // the file may have changed
		it, err := s.Inode(ctx, f.n.ino)
		if err != nil {
			return false, err
		}
		f.it, f.b = it, p.b
	}
	add := func(at uint64, e ondisk.FileExtent) error {
		to := min(at+fstree.Span(e), f.it.Size)
		f.pos = max(f.pos, at)
		if filedata.IsHole(e) {
			f.pos = max(f.pos, to)
		}
		for f.pos < to {
			var piece *filedata.Piece
			if len(p.b.items) < batchItems {
				piece = p.b.data.Add(s.Tree(), f.n.ino, f.it, at, e, f.pos, to)
			}
			if piece == nil {
				full = true
				return fs.SkipAll
			}
			p.b.items = append(p.b.items, aheadItem{path: f.path, piece: piece})
			f.pos += piece.N
		}
		return nil
	}
	if f.pos == 0 {
		err = s.Extents(ctx, f.it.Size, add)
		return full, err
	}
	err = fstree.Extents(ctx, s.Tree(), f.n.ino, f.pos, f.it.Size, add)
	return full, err
}
