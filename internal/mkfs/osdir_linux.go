package mkfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// osDir is a directory of the system as a Source.
type osDir struct{ root string }

// Directory gives a directory of the system as a Source. A symbolic link to one is followed.
func Directory(dir string) (Source, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	}
	return osDir{strings.TrimRight(dir, "/") + "/"}, nil
}

func (d osDir) ReadDir(path string) ([]string, error) {
	f, err := os.Open(d.root + path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d osDir) Stat(path string) (Stat, error) {
	var st unix.Stat_t
	name := d.root + path
	var err error
	if path == "" {
		err = unix.Stat(name, &st)
	} else {
		err = unix.Lstat(name, &st)
	}
	if err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return statOf(&st), nil
}

func statOf(st *unix.Stat_t) Stat {
	at := func(t unix.Timespec) ondisk.Timespec {
		sec, nsec := t.Unix()
		return ondisk.Timespec{Sec: sec, Nsec: uint32(nsec)}
	}
	return Stat{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
		Size: uint64(st.Size), Sparse: st.Blocks*512 < st.Size, Dev: st.Dev, Ino: st.Ino, Links: uint64(st.Nlink),
		Atime: at(st.Atim), Mtime: at(st.Mtim), Ctime: at(st.Ctim),
	}
}

func (d osDir) ReadLink(path string) (string, error) { return os.Readlink(d.root + path) }

func (d osDir) Xattrs(path string) ([]Xattr, error) {
	name := d.root + path
	list, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(name, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "list attributes", Path: name, Err: err}
	}
	var out []Xattr
	for attr := range strings.SplitSeq(string(list), "\x00") {
		if !wanted(attr) {
			continue
		}
		v, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(name, attr, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue // gone, or not for us
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read attribute " + attr, Path: name, Err: err}
		}
		out = append(out, Xattr{attr, v})
	}
	return out, nil
}

// wanted tells which attributes belong to the file and not to the file system that it is on.
func wanted(attr string) bool {
	for _, prefix := range []string{"user.", "trusted.", "security.", "system.posix_acl_"} {
		if strings.HasPrefix(attr, prefix) {
			return true
		}
	}
	return false
}

// grow calls a function with larger buffers until its answer fits. Most answers are empty.
func grow(call func([]byte) (int, error)) ([]byte, error) {
	var small [512]byte
	n, err := call(small[:])
	if err == nil {
		return append([]byte{}, small[:n]...), nil
	}
	for size := 4096; errors.Is(err, unix.ERANGE) && size <= 1<<20; size *= 4 {
		buf := make([]byte, size)
		if n, err = call(buf); err == nil {
			return buf[:n], nil
		}
	}
	return nil, err
}

func (d osDir) Open(path string) (File, error) {
	name := d.root + path
	// Never wait on a file that has become a pipe, nor follow a link.
	fd, err := again(func() (int, error) {
		return unix.Open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return osFile(fd), nil
}

// again repeats a system call that a signal interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// osFile is a file descriptor. An os.File would do, but costs as much again as reading a small file does.
type osFile int

func (f osFile) Close() error { return unix.Close(int(f)) }

func (f osFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := again(func() (int, error) { return unix.Pread(int(f), p[n:], off+int64(n)) })
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

func (f osFile) Stat() (Stat, error) {
	var st unix.Stat_t
	if _, err := again(func() (int, error) { return 0, unix.Fstat(int(f), &st) }); err != nil {
		return Stat{}, fmt.Errorf("stat: %w", err)
	}
	return statOf(&st), nil
}

func (f osFile) Data(off uint64) (from, to uint64, err error) {
	start, err := unix.Seek(int(f), int64(off), unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 1 << 63, 1 << 63, nil
	}
	if err == nil {
		var end int64
		if end, err = unix.Seek(int(f), start, unix.SEEK_HOLE); err == nil {
			return uint64(start), uint64(end), nil
		}
	}
	return off, 1 << 63, nil // a file system that does not tell: all is data
}
