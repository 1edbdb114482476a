//go:build !linux

package device

import (
	"errors"
	"os"
)

const blockDevices = false

func openHandle(path string, opt Options, _ bool) (*os.File, error) {
	if opt.Direct {
		return nil, errors.New("direct I/O is only supported on Linux")
	}
	if opt.ReadOnly {
		return os.Open(path)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// mountedAt knows nothing here: only Linux mounts Btrfs.
func mountedAt(string, os.FileInfo) string { return "" }

// punch does nothing: a discard is a hint.
func punch(*os.File, int64, int64) error { return nil }

func datasync(f *os.File) error { return f.Sync() }

func newDirect(*file) (Device, error) {
	return nil, errors.New("direct I/O is only supported on Linux")
}
