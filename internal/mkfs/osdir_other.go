//go:build !linux

package mkfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// osDir is a directory of the system as a Source: what package os tells about files everywhere. Owners, attributes and hard
// links are not kept.
type osDir struct{ root string }

// Directory gives a directory of the system as a Source.
func Directory(dir string) (Source, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: fmt.Errorf("not a directory")}
	}
	return osDir{dir}, nil
}

func (d osDir) name(path string) string { return filepath.Join(d.root, filepath.FromSlash(path)) }

func (d osDir) ReadDir(path string) ([]string, error) {
	f, err := os.Open(d.name(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d osDir) Stat(path string) (Stat, error) {
	fi, err := os.Lstat(d.name(path))
	if err != nil {
		return Stat{}, err
	}
	if path == "" && fi.Mode()&fs.ModeSymlink != 0 {
		if fi, err = os.Stat(d.name(path)); err != nil {
			return Stat{}, err
		}
	}
	return statOf(fi), nil
}

func statOf(fi fs.FileInfo) Stat {
	t := ondisk.Timespec{Sec: fi.ModTime().Unix(), Nsec: uint32(fi.ModTime().Nanosecond())}
	s := Stat{Mode: uint32(fi.Mode().Perm()), Size: uint64(fi.Size()), Links: 1, Atime: t, Mtime: t, Ctime: t}
	switch m := fi.Mode(); {
	case m.IsDir():
		s.Mode |= modeDir
	case m&fs.ModeSymlink != 0:
		s.Mode |= modeLink
	case m&fs.ModeNamedPipe != 0:
		s.Mode |= modeFifo
	case m&fs.ModeSocket != 0:
		s.Mode |= modeSocket
	case m.IsRegular():
		s.Mode |= modeRegular
	}
	if fi.Mode()&fs.ModeSetuid != 0 {
		s.Mode |= 0o4000
	}
	if fi.Mode()&fs.ModeSetgid != 0 {
		s.Mode |= 0o2000
	}
	if fi.Mode()&fs.ModeSticky != 0 {
		s.Mode |= 0o1000
	}
	return s
}

func (d osDir) Xattrs(string) ([]Xattr, error) { return nil, nil }

func (d osDir) ReadLink(path string) (string, error) { return os.Readlink(d.name(path)) }

func (d osDir) Open(path string) (File, error) {
	f, err := os.Open(d.name(path))
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

func (f osFile) Stat() (Stat, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return Stat{}, err
	}
	return statOf(fi), nil
}

func (f osFile) Data(off uint64) (from, to uint64, err error) { return off, 1 << 63, nil }
