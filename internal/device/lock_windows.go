package device

import (
	"os"

	"golang.org/x/sys/windows"
)

// lock locks one byte far behind any image's end: locks are mandatory here, and must not stand in the way of I/O.
func lock(f *os.File, exclusive, _ bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	at := &windows.Overlapped{OffsetHigh: 0x40000000}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, at)
	if err == windows.ERROR_LOCK_VIOLATION {
		return ErrInUse
	}
	return err
}
