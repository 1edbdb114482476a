//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package device

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock takes the advisory lock of f.
func lock(f *os.File, exclusive, _ bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return ErrInUse
	}
	return err
}
