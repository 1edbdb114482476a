package btrfs

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
)

const (
	maxName     = 255
	maxSymlinks = 40
	rootIno     = ondisk.FirstFreeObjectid // inode of a subvolume's root directory
	stubIno     = 2                        // what the kernel shows for a stub
)

// node is one inode of the volume. A stub is the empty directory that a
// snapshot shows where its source had a nested subvolume (FORMAT: a dir item
// without ROOT_REF).
type node struct {
	sub  ondisk.TreeID
	ino  uint64
	stub bool
}

// walker resolves paths. It looks through nested subvolumes and follows
// symbolic links.
type walker struct {
	tree  treeFunc
	root  node // where absolute symbolic links start
	links int  // symbolic links followed so far
}

// find resolves path, which is relative to dir. The last element is followed
// when it is a symbolic link and follow says so.
func (w *walker) find(ctx context.Context, dir node, path string, follow bool) (node, error) {
	stack := []node{dir}
	rest := path
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at := stack[len(stack)-1]
		switch name {
		case "", ".":
			if err := w.mustBeDir(ctx, at); err != nil {
				return node{}, err
			}
			continue
		case "..":
			up, err := w.parent(ctx, at)
			if err != nil {
				return node{}, err
			}
			stack = append(stack[:0], up)
			continue
		}
		next, kind, err := w.step(ctx, at, name)
		if err != nil {
			return node{}, err
		}
		if kind == ondisk.FTSymlink && (follow || rest != "") {
			target, err := w.readlink(ctx, next)
			if err != nil {
				return node{}, err
			}
			if strings.HasPrefix(target, "/") {
				stack = append(stack[:0], w.root)
				target = strings.TrimLeft(target, "/")
			}
			rest = joinRest(target, rest)
			continue
		}
		stack = append(stack, next)
	}
	return stack[len(stack)-1], nil
}

func joinRest(target, rest string) string {
	if rest == "" {
		return target
	}
	return target + "/" + rest
}

// step goes from directory at to its entry name.
func (w *walker) step(ctx context.Context, at node, name string) (node, uint8, error) {
	if len(name) > maxName {
		return node{}, 0, ErrNameTooLong
	}
	if err := w.mustBeDir(ctx, at); err != nil {
		return node{}, 0, err
	}
	if at.stub {
		return node{}, 0, fs.ErrNotExist
	}
	t, err := w.tree(ctx, at.sub)
	if err != nil {
		return node{}, 0, err
	}
	e, err := fstree.Lookup(ctx, t, at.ino, []byte(name))
	if err != nil {
		return node{}, 0, err
	}
	n, err := w.enter(ctx, at, e)
	return n, e.Type, err
}

// enter gives the node of an entry of directory at.
func (w *walker) enter(ctx context.Context, at node, e fstree.Entry) (node, error) {
	if e.Location.Type != ondisk.TypeRootItem {
		return node{sub: at.sub, ino: e.Location.Objectid}, nil
	}
	child := ondisk.TreeID(e.Location.Objectid)
	ok, err := w.isChild(ctx, at.sub, child)
	if err != nil {
		return node{}, err
	}
	if !ok {
		return node{sub: at.sub, ino: stubIno, stub: true}, nil
	}
	return node{sub: child, ino: rootIno}, nil
}

// isChild tells whether subvolume child is nested in parent, by its ROOT_REF.
func (w *walker) isChild(ctx context.Context, parent, child ondisk.TreeID) (bool, error) {
	rt, err := w.tree(ctx, ondisk.RootTree)
	if err != nil {
		return false, err
	}
	_, err = rt.Get(ctx, ondisk.Key{Objectid: uint64(parent), Type: ondisk.TypeRootRef, Offset: uint64(child)})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// parent gives the directory that holds directory at; a root stays itself.
func (w *walker) parent(ctx context.Context, at node) (node, error) {
	if at == w.root {
		return at, nil
	}
	if at.stub {
		return node{}, fs.ErrInvalid
	}
	if at.ino == rootIno {
		rt, err := w.tree(ctx, ondisk.RootTree)
		if err != nil {
			return node{}, err
		}
		refs, err := roots.Backrefs(ctx, rt, at.sub)
		if err != nil {
			return node{}, err
		}
		if len(refs) == 0 {
			return at, nil
		}
		return node{sub: refs[0].Parent, ino: refs[0].Dirid}, nil
	}
	t, err := w.tree(ctx, at.sub)
	if err != nil {
		return node{}, err
	}
	links, err := fstree.Links(ctx, t, at.ino)
	if err != nil {
		return node{}, err
	}
	if len(links) == 0 {
		return node{}, fs.ErrNotExist
	}
	return node{sub: at.sub, ino: links[0].Parent}, nil
}

func (w *walker) inode(ctx context.Context, n node) (ondisk.InodeItem, error) {
	if n.stub {
		return ondisk.InodeItem{Mode: modeDir | 0o755, Nlink: 1}, nil
	}
	t, err := w.tree(ctx, n.sub)
	if err != nil {
		return ondisk.InodeItem{}, err
	}
	return fstree.ReadInode(ctx, t, n.ino)
}

func (w *walker) mustBeDir(ctx context.Context, n node) error {
	it, err := w.inode(ctx, n)
	if err != nil {
		return err
	}
	if it.Mode&modeType != modeDir {
		return ErrNotDir
	}
	return nil
}

func (w *walker) readlink(ctx context.Context, n node) (string, error) {
	if w.links++; w.links > maxSymlinks {
		return "", ErrLoop
	}
	t, err := w.tree(ctx, n.sub)
	if err != nil {
		return "", err
	}
	target, err := fstree.Readlink(ctx, t, n.ino)
	return string(target), err
}

// findParent resolves all of path but its last element, which it returns.
func (w *walker) findParent(ctx context.Context, dir node, path string) (node, string, error) {
	path = strings.TrimRight(path, "/")
	head, base := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		head, base = path[:i], path[i+1:]
	}
	if base == "" || base == "." || base == ".." {
		return node{}, "", fs.ErrInvalid
	}
	if len(base) > maxName {
		return node{}, "", ErrNameTooLong
	}
	at, err := w.find(ctx, dir, head, true)
	if err != nil {
		return node{}, "", err
	}
	if err := w.mustBeDir(ctx, at); err != nil {
		return node{}, "", err
	}
	if at.stub {
		return node{}, "", fs.ErrPermission
	}
	return at, base, nil
}

// findNew is findParent of what path leads to once all symbolic links are followed, a last one too that leads
// nowhere: where a new file belongs.
func (w *walker) findNew(ctx context.Context, at node, path string) (node, string, error) {
	for {
		dir, base, err := w.findParent(ctx, at, path)
		if err != nil {
			return node{}, "", err
		}
		n, kind, err := w.step(ctx, dir, base)
		if errors.Is(err, fs.ErrNotExist) || err == nil && kind != ondisk.FTSymlink {
			return dir, base, nil
		}
		if err != nil {
			return node{}, "", err
		}
		at = dir
		path, err = w.readlink(ctx, n)
		switch {
		case err != nil:
			return node{}, "", err
		case strings.HasSuffix(path, "/"): // only a directory can be called so
			return node{}, "", ErrIsDir
		case strings.HasPrefix(path, "/"):
			at, path = w.root, strings.TrimLeft(path, "/")
		}
	}
}

// validPath is fs.ValidPath for names that need not be UTF-8: a file system may
// hold any.
func validPath(p string) bool {
	if p == "." {
		return true
	}
	for {
		elem, rest, more := strings.Cut(p, "/")
		if elem == "" || elem == "." || elem == ".." {
			return false
		}
		if !more {
			return true
		}
		p = rest
	}
}
