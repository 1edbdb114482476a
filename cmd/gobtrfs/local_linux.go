package main

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// makeSpecial makes a device, pipe or socket outside the volume.
func makeSpecial(to string, st btrfs.Stat) error {
	dev := unix.Mkdev(st.Rdev.Major, st.Rdev.Minor)
	if err := unix.Mknod(to, st.Mode&0o170000|0o600, int(dev)); err != nil {
		return &fs.PathError{Op: "mknod", Path: to, Err: err}
	}
	return nil
}

// widen makes the pipe that w may be hold more, so that fewer changes of process
// carry the same bytes.
func widen(w io.Writer) {
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 1<<20) // advice
	}
}

func setLocalXattr(to, name string, value []byte) error {
	return unix.Lsetxattr(to, name, value, 0)
}

func setLocalTimes(to string, atime, mtime time.Time) error {
	ts := []unix.Timespec{unix.NsecToTimespec(0), unix.NsecToTimespec(0)}
	ts[0].Sec, ts[0].Nsec = atime.Unix(), int64(atime.Nanosecond())
	ts[1].Sec, ts[1].Nsec = mtime.Unix(), int64(mtime.Nanosecond())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: to, Err: err}
	}
	return nil
}

// localXattrs reads the extended attributes of a file outside the volume.
func localXattrs(name string) (map[string][]byte, error) {
	n, err := unix.Llistxattr(name, nil)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: name, Err: err}
	}
	buf := make([]byte, n)
	if n, err = unix.Llistxattr(name, buf); err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: name, Err: err}
	}
	out := map[string][]byte{}
	for _, attr := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(name, attr, nil)
		if err != nil {
			continue // gone meanwhile, or not for us
		}
		value := make([]byte, n)
		if n, err = unix.Lgetxattr(name, attr, value); err == nil {
			out[attr] = value[:n]
		}
	}
	return out, nil
}

// localData gives the next range of a file, from off on, that may hold data. Behind the last one, and where
// nothing is known of holes, it goes on for ever: reading tells where the file ends.
func localData(in *os.File, off int64) (from, to int64) {
	fd := int(in.Fd())
	from, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) { // a hole up to the end
		size, err := unix.Seek(fd, 0, unix.SEEK_END)
		if err != nil {
			size = off
		}
		return max(off, size), math.MaxInt64
	}
	if err != nil || from < off {
		return off, math.MaxInt64
	}
	to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	if err != nil || to <= from {
		return from, math.MaxInt64
	}
	return from, to
}

// localStat reads what package os does not tell.
func localStat(fi fs.FileInfo) (localInfo, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return localInfo{}, false
	}
	return localInfo{
		uid: int(st.Uid), gid: int(st.Gid), nlink: uint64(st.Nlink), dev: uint64(st.Dev), ino: st.Ino, mode: st.Mode,
		rdev:  btrfs.Rdev{Major: unix.Major(uint64(st.Rdev)), Minor: unix.Minor(uint64(st.Rdev))},
		atime: time.Unix(st.Atim.Sec, st.Atim.Nsec),
	}, true
}
