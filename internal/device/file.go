package device

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// file is a regular file or a block device.
type file struct {
	f        *os.File
	size     int64
	readOnly bool

	mu       sync.Mutex // guards flushErr
	flushErr error      // rule 4 of the package: it stays
}

// OpenFile opens an image file or, on Linux, a block device. Its size is the one it has now.
//
// A device opened for writing belongs to the caller alone until it is closed; readers share. Both are refused with ErrInUse
// when somebody else stands in the way, and writing to what the kernel has mounted with ErrMounted.
func OpenFile(path string, opt Options) (Device, error) {
	d, err := openFile(path, opt)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return d, nil
}

func openFile(path string, opt Options) (Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	block := info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	switch {
	case block && !blockDevices:
		return nil, fmt.Errorf("block devices are not supported on this system; use an image file")
	case !block && !info.Mode().IsRegular():
		return nil, fmt.Errorf("neither a file nor a block device (%v)", info.Mode().Type())
	}
	if !opt.ReadOnly {
		if where := mountedAt(path, info); where != "" {
			return nil, fmt.Errorf("%w at %s; unmount it first", ErrMounted, where)
		}
	}
	f, err := openHandle(path, opt, block)
	if err != nil {
		return nil, cause(err)
	}
	d, err := newFile(f, opt, block)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// newFile takes the lock of an open file and measures it.
func newFile(f *os.File, opt Options, block bool) (Device, error) {
	if err := lock(f, !opt.ReadOnly, block); err != nil {
		return nil, err
	}
	// The end of a block device is where its bytes end, so no ioctl is needed.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, cause(err)
	}
	d := &file{f: f, size: size, readOnly: opt.ReadOnly}
	if opt.Direct {
		return newDirect(d)
	}
	return d, nil
}

// cause strips the path that package os adds, because OpenFile adds it again.
func cause(err error) error {
	if pe, ok := err.(*os.PathError); ok {
		return pe.Err
	}
	return err
}

func (d *file) ReadAt(p []byte, off int64) (int, error) {
	n, eof := readLimit(off, int64(len(p)), d.size)
	if n == 0 {
		return 0, eof
	}
	got, err := d.f.ReadAt(p[:n], off)
	if int64(got) == n {
		err = eof
	}
	return got, err
}

func (d *file) WriteAt(p []byte, off int64) (int, error) {
	if err := d.mayChange(off, int64(len(p))); err != nil {
		return 0, err
	}
	return d.f.WriteAt(p, off)
}

func (d *file) Discard(off, n int64) error {
	if err := d.mayChange(off, n); err != nil || n == 0 {
		return err
	}
	return punch(d.f, off, n)
}

func (d *file) mayChange(off, n int64) error {
	if d.readOnly {
		return ErrReadOnly
	}
	return InRange(off, n, d.size)
}

func (d *file) Flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flushErr == nil && !d.readOnly {
		d.flushErr = datasync(d.f)
	}
	return d.flushErr
}

func (d *file) Size() int64  { return d.size }
func (d *file) Close() error { return d.f.Close() }
