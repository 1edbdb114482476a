package btrfs

import (
	"context"
	"io"
	"io/fs"
	"sort"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Subvolume is a tree of files: the top-level subvolume, one nested in it, or a
// snapshot. It is an fs.FS with ReadDir, Stat, ReadFile, Sub, ReadLink and Lstat.
// Sub makes one that starts at a directory inside.
type Subvolume struct {
	v   *Volume
	top node
}

var (
	_ fs.ReadDirFS  = (*Subvolume)(nil)
	_ fs.StatFS     = (*Subvolume)(nil)
	_ fs.ReadFileFS = (*Subvolume)(nil)
	_ fs.SubFS      = (*Subvolume)(nil)
	_ fs.ReadLinkFS = (*Subvolume)(nil)
)

// Top gives the top-level subvolume (id 5).
func (v *Volume) Top() *Subvolume {
	return &Subvolume{v: v, top: node{sub: ondisk.FSTree, ino: rootIno}}
}

// ID is the subvolume's id.
func (s *Subvolume) ID() uint64 { return uint64(s.top.sub) }

// Volume is the volume that holds the subvolume.
func (s *Subvolume) Volume() *Volume { return s.v }

// find resolves name inside one view of the volume and gives it to fn.
func (s *Subvolume) find(name string, follow bool, fn func(w *walker, n node) error) error {
	return s.v.view(func(tree treeFunc) error {
		w := &walker{tree: tree, root: s.top}
		n, err := w.find(context.Background(), s.top, name, follow)
		if err != nil {
			return err
		}
		return fn(w, n)
	})
}

// Open opens a file or directory for reading.
func (s *Subvolume) Open(name string) (fs.File, error) {
	if !validPath(name) {
		return nil, pathErr("open", name, fs.ErrInvalid)
	}
	f, err := s.open(name)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	return f, nil
}

func (s *Subvolume) open(name string) (*File, error) {
	f := &File{s: s, name: name}
	err := s.find(name, true, func(w *walker, n node) error {
		it, err := w.inode(context.Background(), n)
		f.node, f.mode = n, it.Mode
		if err == nil {
			s.v.files.opened(n)
		}
		return err
	})
	return f, err
}

// Stat tells about a file, symbolic links followed. Sys of the result is a Stat.
func (s *Subvolume) Stat(name string) (fs.FileInfo, error) { return s.stat("stat", name, true) }

// Lstat tells about a file, the last symbolic link not followed.
func (s *Subvolume) Lstat(name string) (fs.FileInfo, error) { return s.stat("lstat", name, false) }

func (s *Subvolume) stat(op, name string, follow bool) (fs.FileInfo, error) {
	if !validPath(name) {
		return nil, pathErr(op, name, fs.ErrInvalid)
	}
	st, n, err := s.statOnce(name, follow)
	if err == nil && s.v.files.pending(n) != nil {
		if err = s.v.files.flush(context.Background(), n); err == nil {
			st, _, err = s.statOnce(name, follow)
		}
	}
	if err != nil {
		return nil, pathErr(op, name, err)
	}
	return info{name: baseName(name), st: st}, nil
}

// statOnce is stat of what the trees have now.
func (s *Subvolume) statOnce(name string, follow bool) (st Stat, at node, err error) {
	err = s.find(name, follow, func(w *walker, n node) error {
		it, err := w.inode(context.Background(), n)
		st, at = statOf(n, it), n
		return err
	})
	return st, at, err
}

func baseName(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[i+1:]
		}
	}
	return name
}

// ReadLink gives the target of a symbolic link.
func (s *Subvolume) ReadLink(name string) (string, error) {
	if !validPath(name) {
		return "", pathErr("readlink", name, fs.ErrInvalid)
	}
	var target string
	err := s.find(name, false, func(w *walker, n node) error {
		it, err := w.inode(context.Background(), n)
		if err != nil {
			return err
		}
		if it.Mode&modeType != modeLink {
			return fs.ErrInvalid
		}
		target, err = w.readlink(context.Background(), n)
		return err
	})
	return target, pathErr("readlink", name, err)
}

// Sub gives the tree below directory dir; symbolic links in it can not lead out
// of it.
func (s *Subvolume) Sub(dir string) (fs.FS, error) {
	if !validPath(dir) {
		return nil, pathErr("sub", dir, fs.ErrInvalid)
	}
	var at node
	err := s.find(dir, true, func(w *walker, n node) error {
		at = n
		return w.mustBeDir(context.Background(), n)
	})
	if err != nil {
		return nil, pathErr("sub", dir, err)
	}
	return &Subvolume{v: s.v, top: at}, nil
}

// ReadDir lists a directory, sorted by name.
func (s *Subvolume) ReadDir(name string) ([]fs.DirEntry, error) {
	if !validPath(name) {
		return nil, pathErr("readdir", name, fs.ErrInvalid)
	}
	f, err := s.open(name)
	if err != nil {
		return nil, pathErr("readdir", name, err)
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list, err
}

// ReadFile reads a whole file.
func (s *Subvolume) ReadFile(name string) ([]byte, error) {
	if !validPath(name) {
		return nil, pathErr("readfile", name, fs.ErrInvalid)
	}
	f, err := s.open(name)
	if err != nil {
		return nil, pathErr("readfile", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return b, pathErr("readfile", name, err)
}

// Xattr gives an extended attribute of a file, the last symbolic link not
// followed.
func (s *Subvolume) Xattr(name, attr string) ([]byte, error) {
	var value []byte
	err := s.find(name, false, func(w *walker, n node) error {
		if n.stub {
			return fs.ErrNotExist
		}
		t, err := w.tree(context.Background(), n.sub)
		if err != nil {
			return err
		}
		value, err = fstree.Xattr(context.Background(), t, n.ino, attr)
		return err
	})
	return value, pathErr("getxattr", name, err)
}

// Xattrs gives all extended attributes of a file.
func (s *Subvolume) Xattrs(name string) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := s.find(name, false, func(w *walker, n node) error {
		if n.stub {
			return nil
		}
		t, err := w.tree(context.Background(), n.sub)
		if err != nil {
			return err
		}
		return fstree.ListXattr(context.Background(), t, n.ino, func(attr string, value []byte) error {
			out[attr] = append([]byte{}, value...)
			return nil
		})
	})
	if err != nil {
		return nil, pathErr("listxattr", name, err)
	}
	return out, nil
}
