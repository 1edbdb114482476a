//go:build !linux

package main

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

var errLinuxOnly = errors.New("only on Linux")

func makeSpecial(to string, _ btrfs.Stat) error {
	return &fs.PathError{Op: "mknod", Path: to, Err: errLinuxOnly}
}

func widen(io.Writer) {}

func setLocalXattr(string, string, []byte) error { return errLinuxOnly }

func setLocalTimes(to string, atime, mtime time.Time) error {
	if fi, err := os.Lstat(to); err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		return err
	}
	return os.Chtimes(to, atime, mtime)
}

// localData gives the next range of a file that may hold data: where nothing is known of holes, all of it.
func localData(_ *os.File, off int64) (from, to int64) { return off, math.MaxInt64 }

func localXattrs(string) (map[string][]byte, error) { return nil, nil }

func localStat(fs.FileInfo) (localInfo, bool) { return localInfo{}, false }
