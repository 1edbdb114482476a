package device

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const blockDevices = true

// openHandle opens a file. A block device is claimed for writing (O_EXCL): the kernel then refuses while it, or a part of it,
// is mounted in any namespace or used by the device mapper.
func openHandle(path string, opt Options, block bool) (*os.File, error) {
	flags := os.O_RDWR
	if opt.ReadOnly {
		flags = os.O_RDONLY
	} else if block {
		flags |= os.O_EXCL
	}
	if opt.Direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, ErrInUse
	}
	return f, err
}

// lock takes the advisory lock of f. Block devices get a moment of patience, because udev locks each one that was just closed
// while it looks at it.
func lock(f *os.File, exclusive, block bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	patience := 0
	if block {
		patience = 20
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			return err
		case patience == 0:
			return ErrInUse
		default:
			patience--
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// punch gives the range back to the file system or, on a block device that can, to the medium. Media that cannot are no error.
func punch(f *os.File, off, n int64) error {
	const sector = 512 // block devices take whole sectors only
	end := (off + n) / sector * sector
	off = (off + sector - 1) / sector * sector
	if off >= end {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, end-off)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS || err == unix.EINVAL {
		return nil
	}
	return err
}

// datasync makes what was written durable, with the block maps needed to find it but without time stamps.
func datasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
