package btrfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// What one change of names may need of the trees: a few items in each of a few
// leaves.
var (
	needName   = transaction.Need{Items: 12}
	needDelete = transaction.Need{Items: 12, Deleting: true}
)

// inTx resolves names inside a transaction.
func (s *Subvolume) inTx(need transaction.Need, fn func(ctx context.Context, tx *transaction.Tx, w *walker) error) error {
	ctx := context.Background()
	return s.v.change(ctx, need, func(tx *transaction.Tx) error {
		return fn(ctx, tx, &walker{tree: tx.Tree, root: s.top})
	})
}

// writable gives the tree of a subvolume that may be changed.
func writable(ctx context.Context, tx *transaction.Tx, id ondisk.TreeID) (*fstree.Tree, error) {
	if err := fstree.Writable(ctx, tx, id); err != nil {
		return nil, err
	}
	return fstree.Open(ctx, tx, id)
}

// inDir runs fn for the directory and last element of name.
func (s *Subvolume) inDir(op, name string, need transaction.Need, fn func(ctx context.Context, tx *transaction.Tx, w *walker, t *fstree.Tree, dir node, base string) error) error {
	if !validPath(name) {
		return pathErr(op, name, fs.ErrInvalid)
	}
	return pathErr(op, name, s.inTx(need, func(ctx context.Context, tx *transaction.Tx, w *walker) error {
		dir, base, err := w.findParent(ctx, s.top, name)
		if err != nil {
			return err
		}
		t, err := writable(ctx, tx, dir.sub)
		if err != nil {
			return err
		}
		return fn(ctx, tx, w, t, dir, base)
	}))
}

// make makes an inode called name.
func (s *Subvolume) make(op, name string, a fstree.Attr) error {
	return s.inDir(op, name, needName, func(ctx context.Context, tx *transaction.Tx, _ *walker, t *fstree.Tree, dir node, base string) error {
		_, err := t.Create(ctx, dir.ino, []byte(base), a)
		return err
	})
}

// Mkdir makes a directory.
func (s *Subvolume) Mkdir(name string, perm fs.FileMode) error {
	return s.make("mkdir", name, fstree.Attr{Mode: modeDir | diskMode(perm)})
}

// MkdirAll makes a directory and the parents that are missing.
func (s *Subvolume) MkdirAll(name string, perm fs.FileMode) error {
	if name == "." {
		return nil
	}
	fi, err := s.Stat(name)
	if err == nil {
		if !fi.IsDir() {
			return pathErr("mkdir", name, ErrNotDir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.MkdirAll(path.Dir(name), perm); err != nil {
		return err
	}
	return s.Mkdir(name, perm)
}

// Symlink makes a symbolic link called name to target.
func (s *Subvolume) Symlink(target, name string) error {
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return pathErr("symlink", name, fs.ErrInvalid)
	}
	return s.make("symlink", name, fstree.Attr{Mode: modeLink | 0o777, Target: []byte(target)})
}

// Mknod makes a device, pipe or socket; mode is as Linux has it, type included.
func (s *Subvolume) Mknod(name string, mode uint32, dev Rdev) error {
	switch mode & modeType {
	case modeChar, modeBlock, modeFifo, modeSocket, modeFile:
	default:
		return pathErr("mknod", name, fs.ErrInvalid)
	}
	a := fstree.Attr{Mode: mode & (modeType | modeBits)}
	if t := mode & modeType; t == modeChar || t == modeBlock {
		a.Rdev = dev.disk()
	}
	return s.make("mknod", name, a)
}

// Link makes newname another name of the file oldname.
func (s *Subvolume) Link(oldname, newname string) error {
	return s.inDir("link", newname, needName, func(ctx context.Context, tx *transaction.Tx, w *walker, t *fstree.Tree, dir node, base string) error {
		old, err := w.find(ctx, s.top, oldname, false)
		if err != nil {
			return err
		}
		if old.sub != dir.sub {
			return ErrCrossDevice
		}
		return t.Link(ctx, old.ino, dir.ino, []byte(base))
	})
}

// Remove removes a file or an empty directory.
func (s *Subvolume) Remove(name string) error {
	return s.unlinking("remove", name, needDelete, func(ctx context.Context, tx *transaction.Tx, w *walker, t *fstree.Tree, dir node, base string) error {
		n, _, err := w.step(ctx, dir, base)
		if err != nil {
			return err
		}
		if n.ino == rootIno && n.sub != dir.sub {
			return errIsSubvolume
		}
		it, err := w.inode(ctx, n)
		if err != nil {
			return err
		}
		if it.Mode&modeType == modeDir {
			return t.Rmdir(ctx, dir.ino, []byte(base))
		}
		return t.Unlink(ctx, dir.ino, []byte(base))
	})
}

// Rename moves a file or directory, over newname if that is there.
func (s *Subvolume) Rename(oldname, newname string) error {
	return s.rename("rename", oldname, newname, false)
}

// Exchange exchanges two files or directories.
func (s *Subvolume) Exchange(a, b string) error { return s.rename("exchange", a, b, true) }

func (s *Subvolume) rename(op, oldname, newname string, exchange bool) error {
	return s.unlinking(op, oldname, needName, func(ctx context.Context, tx *transaction.Tx, w *walker, t *fstree.Tree, from node, oldBase string) error {
		to, newBase, err := w.findParent(ctx, s.top, newname)
		if err != nil {
			return err
		}
		if to.sub != from.sub {
			return ErrCrossDevice
		}
		if exchange {
			return t.Exchange(ctx, from.ino, []byte(oldBase), to.ino, []byte(newBase))
		}
		return t.Rename(ctx, from.ino, []byte(oldBase), to.ino, []byte(newBase))
	})
}

// onInode runs fn for the inode that name leads to.
func (s *Subvolume) onInode(op, name string, follow bool, need transaction.Need, fn func(ctx context.Context, t *fstree.Tree, ino uint64) error) error {
	if !validPath(name) {
		return pathErr(op, name, fs.ErrInvalid)
	}
	return pathErr(op, name, s.inTx(need, func(ctx context.Context, tx *transaction.Tx, w *walker) error {
		n, err := w.find(ctx, s.top, name, follow)
		if err != nil {
			return err
		}
		if n.stub {
			return fs.ErrPermission
		}
		t, err := writable(ctx, tx, n.sub)
		if err != nil {
			return err
		}
		return fn(ctx, t, n.ino)
	}))
}

// Chmod changes the permissions of a file, symbolic links followed.
func (s *Subvolume) Chmod(name string, mode fs.FileMode) error {
	m := diskMode(mode)
	return s.onInode("chmod", name, true, needName, func(ctx context.Context, t *fstree.Tree, ino uint64) error {
		return t.SetAttr(ctx, ino, fstree.SetAttr{Mode: &m})
	})
}

// Lchown changes the owner of a file, the last symbolic link not followed; -1
// keeps what is there.
func (s *Subvolume) Lchown(name string, uid, gid int) error {
	return s.onInode("lchown", name, false, needName, func(ctx context.Context, t *fstree.Tree, ino uint64) error {
		var a fstree.SetAttr
		if uid >= 0 {
			u := uint32(uid)
			a.UID = &u
		}
		if gid >= 0 {
			g := uint32(gid)
			a.GID = &g
		}
		return t.SetAttr(ctx, ino, a)
	})
}

// Lchtimes changes the times of a file, the last symbolic link not followed; a
// zero time keeps what is there.
func (s *Subvolume) Lchtimes(name string, atime, mtime time.Time) error {
	return s.onInode("chtimes", name, false, needName, func(ctx context.Context, t *fstree.Tree, ino uint64) error {
		var a fstree.SetAttr
		if !atime.IsZero() {
			x := diskTime(atime)
			a.Atime = &x
		}
		if !mtime.IsZero() {
			x := diskTime(mtime)
			a.Mtime = &x
		}
		return t.SetAttr(ctx, ino, a)
	})
}

// SetXattr sets an extended attribute, the last symbolic link not followed.
func (s *Subvolume) SetXattr(name, attr string, value []byte) error {
	return s.onInode("setxattr", name, false, needName, func(ctx context.Context, t *fstree.Tree, ino uint64) error {
		return t.SetXattr(ctx, ino, attr, value)
	})
}

// RemoveXattr removes an extended attribute.
func (s *Subvolume) RemoveXattr(name, attr string) error {
	return s.onInode("removexattr", name, false, needDelete, func(ctx context.Context, t *fstree.Tree, ino uint64) error {
		return t.RemoveXattr(ctx, ino, attr)
	})
}

// Create makes or empties a file and opens it for reading and writing.
func (s *Subvolume) Create(name string) (*File, error) {
	return s.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// WriteFile makes or replaces the contents of a file.
func (s *Subvolume) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// OpenFile opens a file with the flags of package os: O_RDONLY, O_WRONLY,
// O_RDWR, O_CREATE, O_EXCL, O_TRUNC and O_APPEND. As in POSIX, O_CREATE makes what a
// symbolic link names, and with O_EXCL it fails where a link is.
func (s *Subvolume) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR) == 0 && flag&os.O_CREATE == 0 {
		f, err := s.open(name)
		if err != nil {
			return nil, pathErr("open", name, err)
		}
		return f, nil
	}
	if err := s.v.writeProblem(); err != nil {
		return nil, pathErr("open", name, err)
	}
	f, err := s.openOrMake(name, flag, perm)
	if err != nil {
		return nil, pathErr("open", name, err)
	}
	switch f.mode & modeType {
	case modeFile:
		err = f.startWriting(flag)
	case modeDir:
		err = ErrIsDir
	default:
		err = fs.ErrInvalid
	}
	if err != nil {
		return nil, pathErr("open", name, errors.Join(err, f.Close()))
	}
	return f, nil
}

func (s *Subvolume) openOrMake(name string, flag int, perm fs.FileMode) (*File, error) {
	f, err := s.open(name)
	if err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL {
		return nil, errors.Join(fs.ErrExist, f.Close())
	}
	if !errors.Is(err, fs.ErrNotExist) || flag&os.O_CREATE == 0 {
		return f, err
	}
	if err := s.makeFile(name, flag, perm); err != nil {
		return nil, err
	}
	return s.open(name)
}

// makeFile makes an empty file; where name is a symbolic link that leads nowhere, it makes what the link
// names, unless the flags have O_EXCL.
func (s *Subvolume) makeFile(name string, flag int, perm fs.FileMode) error {
	if !validPath(name) {
		return fs.ErrInvalid
	}
	return s.inTx(needName, func(ctx context.Context, tx *transaction.Tx, w *walker) error {
		find := w.findNew
		if flag&os.O_EXCL != 0 {
			find = w.findParent
		}
		dir, base, err := find(ctx, s.top, name)
		if err != nil {
			return err
		}
		t, err := writable(ctx, tx, dir.sub)
		if err != nil {
			return err
		}
		_, err = t.Create(ctx, dir.ino, []byte(base), fstree.Attr{Mode: modeFile | diskMode(perm)})
		return err
	})
}

// startWriting gives the file its writer.
func (f *File) startWriting(flag int) error {
	err := f.s.inTx(needName, func(ctx context.Context, tx *transaction.Tx, _ *walker) error {
		_, err := writable(ctx, tx, f.node.sub)
		return err
	})
	if err != nil {
		return err
	}
	f.w = f.s.v.files.writer(f.node, func() *filedata.Writer {
		return filedata.NewWriter(f.s.v.mgr, f.node.sub, f.node.ino, filedata.WriterOptions{})
	})
	f.app = flag&os.O_APPEND != 0
	if flag&os.O_TRUNC != 0 {
		return f.w.Truncate(context.Background(), 0)
	}
	return nil
}

// flush brings what is gathered for the inode, through any File, into the trees.
func (f *File) flush() error { return f.s.v.files.flush(context.Background(), f.node) }

// Write writes at the current position, or at the end with O_APPEND.
func (f *File) Write(p []byte) (int, error) {
	if f.app {
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return 0, err
		}
	}
	n, err := f.WriteAt(p, f.off)
	f.off += int64(n)
	return n, err
}

// WriteAt writes at position off.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if err := f.usable("write"); err != nil {
		return 0, err
	}
	if f.w == nil {
		return 0, pathErr("write", f.name, fs.ErrPermission)
	}
	if off < 0 {
		return 0, pathErr("write", f.name, fs.ErrInvalid)
	}
	if err := f.w.WriteAt(context.Background(), p, uint64(off)); err != nil {
		return 0, pathErr("write", f.name, err)
	}
	return len(p), nil
}

// Truncate sets the size; new bytes are a hole.
func (f *File) Truncate(size int64) error {
	return f.edit("truncate", func(ctx context.Context) error {
		if size < 0 {
			return fs.ErrInvalid
		}
		return f.w.Truncate(ctx, uint64(size))
	})
}

// Punch makes [off, off+n) a hole; the size stays.
func (f *File) Punch(off, n int64) error {
	return f.edit("punch", func(ctx context.Context) error {
		if off < 0 || n < 0 {
			return fs.ErrInvalid
		}
		return f.w.Punch(ctx, uint64(off), uint64(n))
	})
}

// CloneRange makes [off, off+n) share the extents of src at srcOff (a reflink).
// All three must be multiples of the sector size, except that the range may end
// at the end of src. Both files must lie in one volume.
func (f *File) CloneRange(off int64, src *File, srcOff, n int64) error {
	return f.edit("clone", func(ctx context.Context) error {
		if off < 0 || srcOff < 0 || n < 0 {
			return fs.ErrInvalid
		}
		if src.s.v != f.s.v {
			return ErrCrossDevice
		}
		if err := src.flush(); err != nil {
			return err
		}
		return f.w.Clone(ctx, uint64(off), src.node.sub, src.node.ino, uint64(srcOff), uint64(n))
	})
}

func (f *File) edit(op string, fn func(ctx context.Context) error) error {
	if err := f.usable(op); err != nil {
		return err
	}
	if f.w == nil {
		return pathErr(op, f.name, fs.ErrPermission)
	}
	if err := f.flush(); err != nil {
		return pathErr(op, f.name, err)
	}
	return pathErr(op, f.name, fn(context.Background()))
}

// Sync makes the file's contents, and all other changes, durable.
func (f *File) Sync() error {
	if err := f.usable("sync"); err != nil {
		return err
	}
	if err := f.flush(); err != nil {
		return pathErr("sync", f.name, err)
	}
	return pathErr("sync", f.name, f.s.v.Commit(context.Background()))
}

// Close brings what was written into the running transaction. It does not
// commit: Sync, Volume.Commit and Volume.Close do.
func (f *File) Close() error {
	if err := f.usable("close"); err != nil {
		return err
	}
	err := f.flush()
	f.closed = true
	if f.s.v.files.closed(f.node) {
		err = errors.Join(err, f.s.v.evict(context.Background(), f.node.sub, []uint64{f.node.ino}))
	}
	return pathErr("close", f.name, err)
}
