package btrfs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// File is an open file or directory. It implements fs.File, fs.ReadDirFile,
// io.ReaderAt, io.Seeker and, when it was opened for writing, io.Writer and
// io.WriterAt.
type File struct {
	s      *Subvolume
	name   string
	node   node
	mode   uint32
	off    int64
	closed bool

	rmu sync.Mutex       // guards r
	r   *filedata.Reader // made at the first read
	w   *filedata.Writer // nil when opened for reading
	app bool             // O_APPEND

	dirNext uint64 // index of the directory entry to list next
	dirDone bool
}

var (
	_ fs.ReadDirFile = (*File)(nil)
	_ io.ReaderAt    = (*File)(nil)
	_ io.Seeker      = (*File)(nil)
)

// Name is the name that the file was opened by.
func (f *File) Name() string { return f.name }

func (f *File) usable(op string) error {
	if f.closed {
		return pathErr(op, f.name, fs.ErrClosed)
	}
	return nil
}

// Stat tells about the file.
func (f *File) Stat() (fs.FileInfo, error) {
	if err := f.usable("stat"); err != nil {
		return nil, err
	}
	if err := f.flush(); err != nil {
		return nil, pathErr("stat", f.name, err)
	}
	var st Stat
	err := f.s.v.view(func(tree treeFunc) error {
		w := &walker{tree: tree, root: f.s.top}
		it, err := w.inode(context.Background(), f.node)
		st = statOf(f.node, it)
		return err
	})
	if err != nil {
		return nil, pathErr("stat", f.name, err)
	}
	return info{name: baseName(f.name), st: st}, nil
}

// Read reads from the current position.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// ReadAt reads from position off. Every byte was compared with its checksum, and
// a copy that is good was found when one is bad.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.usable("read"); err != nil {
		return 0, err
	}
	if f.mode&modeType == modeDir {
		return 0, pathErr("read", f.name, ErrIsDir)
	}
	if f.mode&modeType != modeFile || off < 0 {
		return 0, pathErr("read", f.name, fs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.flush(); err != nil {
		return 0, pathErr("read", f.name, err)
	}
	var n int
	err := f.s.v.view(func(tree treeFunc) error {
		r, err := f.reader(tree)
		if err != nil {
			return err
		}
		n, err = r.ReadAt(context.Background(), p, off)
		return err
	})
	if err == io.EOF {
		return n, err
	}
	return n, pathErr("read", f.name, err)
}

// reader gives the reader of the file's data as the trees stand now.
func (f *File) reader(tree treeFunc) (*filedata.Reader, error) {
	ctx := context.Background()
	t, err := tree(ctx, f.node.sub)
	if err != nil {
		return nil, err
	}
	csums, err := f.s.v.csums(ctx, tree)
	if err != nil {
		return nil, err
	}
	f.rmu.Lock()
	defer f.rmu.Unlock()
	if f.r == nil {
		f.r, err = filedata.NewReader(ctx, f.s.v.vol, t, csums, f.node.ino)
		return f.r, err
	}
	return f.r.Rebind(t, csums), nil
}

// unproven counts the sectors that were read of the file although no checksum proves them right.
func (f *File) unproven() int64 {
	f.rmu.Lock()
	defer f.rmu.Unlock()
	if f.r == nil {
		return 0
	}
	return f.r.Unproven()
}

// Seek sets the position of the next Read or Write.
func (f *File) Seek(off int64, whence int) (int64, error) {
	if err := f.usable("seek"); err != nil {
		return 0, err
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		st, err := f.Stat()
		if err != nil {
			return 0, err
		}
		off += st.Size()
	default:
		return 0, pathErr("seek", f.name, fs.ErrInvalid)
	}
	if off < 0 {
		return 0, pathErr("seek", f.name, fs.ErrInvalid)
	}
	if f.mode&modeType == modeDir && off == 0 {
		f.dirNext, f.dirDone = 0, false
	}
	f.off = off
	return off, nil
}

// dirEntry is an fs.DirEntry.
type dirEntry struct {
	s    *Subvolume
	name string
	typ  fs.FileMode
	n    node
}

func (e dirEntry) Name() string      { return e.name }
func (e dirEntry) IsDir() bool       { return e.typ.IsDir() }
func (e dirEntry) Type() fs.FileMode { return e.typ }
func (e dirEntry) String() string    { return fs.FormatDirEntry(e) }

func (e dirEntry) Info() (fs.FileInfo, error) {
	var st Stat
	err := e.s.v.view(func(tree treeFunc) error {
		w := &walker{tree: tree, root: e.s.top}
		it, err := w.inode(context.Background(), e.n)
		st = statOf(e.n, it)
		return err
	})
	if err != nil {
		return nil, pathErr("stat", e.name, err)
	}
	return info{name: e.name, st: st}, nil
}

// ReadDir lists up to n entries of a directory in the order of the directory,
// or all that are left when n <= 0. Names that no path can have ("..", "a/b"), which
// a damaged directory may hold, are left out, and told in the error.
func (f *File) ReadDir(n int) ([]fs.DirEntry, error) {
	if err := f.usable("readdir"); err != nil {
		return nil, err
	}
	if f.mode&modeType != modeDir {
		return nil, pathErr("readdir", f.name, ErrNotDir)
	}
	var list []fs.DirEntry
	if !f.dirDone && !f.node.stub {
		err := f.s.v.view(func(tree treeFunc) error { return f.readDir(tree, n, &list) })
		if err != nil {
			return list, pathErr("readdir", f.name, err)
		}
	}
	if n <= 0 || len(list) < n {
		f.dirDone = true
	}
	if n > 0 && len(list) == 0 {
		return nil, io.EOF
	}
	return list, nil
}

func (f *File) readDir(tree treeFunc, n int, list *[]fs.DirEntry) error {
	ctx := context.Background()
	w := &walker{tree: tree, root: f.s.top}
	t, err := tree(ctx, f.node.sub)
	if err != nil {
		return err
	}
	var bad error
	err = fstree.ReadDir(ctx, t, f.node.ino, f.dirNext, func(e fstree.Entry) error {
		if n > 0 && len(*list) == n {
			return fs.SkipAll
		}
		if !usableName(string(e.Name)) {
			f.listed(e)
			bad = badName(f.node, e)
			return nil
		}
		at, err := w.enter(ctx, f.node, e)
		if err != nil {
			return err
		}
		*list = append(*list, dirEntry{s: f.s, name: string(e.Name), typ: entryMode(e.Type), n: at})
		f.listed(e)
		return nil
	})
	if err != nil && err != fs.SkipAll {
		return err
	}
	return bad
}

// listed moves the position of a directory behind an entry.
func (f *File) listed(e fstree.Entry) {
	f.dirNext = e.Index + 1
	f.dirDone = f.dirNext == 0 // there is no larger index
}

// usableName tells whether a name in a directory can be an element of a path: joined
// to the path of its directory it would else lead to another place.
func usableName(name string) bool {
	return name != "." && validPath(name) && !strings.Contains(name, "/")
}

func badName(dir node, e fstree.Entry) error {
	return &ondisk.CorruptError{
		What: fmt.Sprintf("directory %d", dir.ino), Tree: dir.sub, Slot: -1, Reason: "has a name that no path can have", Got: fmt.Sprintf("%q", e.Name),
	}
}
