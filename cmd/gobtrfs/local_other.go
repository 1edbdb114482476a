//go:build !linux

package main

import (
	"errors"
	"io"
	"io/fs"
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

func localXattrs(string) (map[string][]byte, error) { return nil, nil }

func localStat(fs.FileInfo) (localInfo, bool) { return localInfo{}, false }
