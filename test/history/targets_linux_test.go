package history

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// ours does the operations with gobtrfs.
type ours struct{ v *btrfs.Volume }

func (o ours) top() *btrfs.Subvolume { return o.v.Top() }

func (o ours) file(p string, flag int, fn func(f *btrfs.File) error) error {
	f, err := o.top().OpenFile(p, flag, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func (o ours) create(p string) error {
	return o.file(p, os.O_RDWR|os.O_CREATE|os.O_EXCL, func(*btrfs.File) error { return nil })
}

func (o ours) write(p string, off int64, data []byte) error {
	return o.file(p, os.O_RDWR, func(f *btrfs.File) error { _, err := f.WriteAt(data, off); return err })
}

func (o ours) truncate(p string, size int64) error {
	return o.file(p, os.O_RDWR, func(f *btrfs.File) error { return f.Truncate(size) })
}

func (o ours) punch(p string, off, n int64) error {
	return o.file(p, os.O_RDWR, func(f *btrfs.File) error { return f.Punch(off, n) })
}

func (o ours) clone(p string, off int64, src string, srcOff, n int64) error {
	return o.file(p, os.O_RDWR, func(f *btrfs.File) error {
		return o.file(src, os.O_RDONLY, func(s *btrfs.File) error { return f.CloneRange(off, s, srcOff, n) })
	})
}

func (o ours) mkdir(p string) error           { return o.top().Mkdir(p, 0o755) }
func (o ours) remove(p string) error          { return o.top().Remove(p) }
func (o ours) rename(a, b string) error       { return o.top().Rename(a, b) }
func (o ours) link(a, b string) error         { return o.top().Link(a, b) }
func (o ours) symlink(target, p string) error { return o.top().Symlink(target, p) }
func (o ours) chmod(p string, mode uint32) error {
	return o.top().Chmod(p, fs.FileMode(mode))
}
func (o ours) setxattr(p, name, value string) error {
	return o.top().SetXattr(p, name, []byte(value))
}
func (o ours) subvolume(name string) error {
	_, err := o.v.CreateSubvolume(context.Background(), "/"+name)
	return err
}
func (o ours) snapshot(src, name string, readonly bool) error {
	_, err := o.v.Snapshot(context.Background(), "/"+src, "/"+name, readonly)
	return err
}
func (o ours) drop(names []string) error {
	var paths []string
	for _, n := range names {
		paths = append(paths, "/"+n)
	}
	if err := o.v.DeleteSubvolumes(context.Background(), paths); err != nil {
		return err
	}
	_, err := o.v.Drop(context.Background(), btrfs.DropOptions{Budget: 1 + len(names)*7})
	return err
}

// kernel does the operations in a directory where the kernel has mounted the
// volume.
type kernel struct{ dir string }

func (k kernel) at(p string) string { return filepath.Join(k.dir, p) }

func (k kernel) file(p string, flag int, fn func(f *os.File) error) error {
	f, err := os.OpenFile(k.at(p), flag, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func (k kernel) create(p string) error {
	return k.file(p, os.O_RDWR|os.O_CREATE|os.O_EXCL, func(*os.File) error { return nil })
}

func (k kernel) write(p string, off int64, data []byte) error {
	return k.file(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt(data, off); return err })
}

func (k kernel) truncate(p string, size int64) error { return os.Truncate(k.at(p), size) }

func (k kernel) punch(p string, off, n int64) error {
	return k.file(p, os.O_RDWR, func(f *os.File) error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

func (k kernel) clone(p string, off int64, src string, srcOff, n int64) error {
	return k.file(p, os.O_RDWR, func(f *os.File) error {
		return k.file(src, os.O_RDONLY, func(s *os.File) error {
			return unix.IoctlFileCloneRange(int(f.Fd()), &unix.FileCloneRange{
				Src_fd: int64(s.Fd()), Src_offset: uint64(srcOff), Src_length: uint64(n), Dest_offset: uint64(off),
			})
		})
	})
}

func (k kernel) mkdir(p string) error  { return os.Mkdir(k.at(p), 0o755) }
func (k kernel) remove(p string) error { return os.Remove(k.at(p)) }

// rename is the system call: os.Rename refuses to replace an empty directory.
func (k kernel) rename(a, b string) error       { return unix.Rename(k.at(a), k.at(b)) }
func (k kernel) link(a, b string) error         { return os.Link(k.at(a), k.at(b)) }
func (k kernel) symlink(target, p string) error { return os.Symlink(target, k.at(p)) }
func (k kernel) chmod(p string, mode uint32) error {
	return os.Chmod(k.at(p), fs.FileMode(mode))
}
func (k kernel) setxattr(p, name, value string) error {
	return unix.Setxattr(k.at(p), name, []byte(value), 0)
}

func run(args ...string) error {
	out, err := exec.Command("btrfs", append([]string{"-q"}, args...)...).CombinedOutput()
	if err != nil {
		return errors.New(string(out))
	}
	return nil
}

func (k kernel) subvolume(name string) error { return run("subvolume", "create", k.at(name)) }
func (k kernel) snapshot(src, name string, readonly bool) error {
	if readonly {
		return run("subvolume", "snapshot", "-r", k.at(src), k.at(name))
	}
	return run("subvolume", "snapshot", k.at(src), k.at(name))
}
func (k kernel) drop(names []string) error {
	args := []string{"subvolume", "delete"}
	for _, n := range names {
		args = append(args, k.at(n))
	}
	return run(args...)
}
