// Package device is random-access storage whose written bytes survive a power loss after a later Flush.
//
// What holds for every Device:
//
//  1. Its size is fixed. Reads end with io.EOF at the size; writes and discards that do not fit are refused whole.
//  2. Methods may be called by many goroutines at once. Overlapping calls are the callers' business.
//  3. A write is seen by every later read, but is durable only after a Flush that began when the write had returned. Until
//     then it may be lost or torn at sectors, in any combination with other such writes.
//  4. A failed Flush stays failed: nobody knows which writes were lost, so no later Flush may claim success.
//  5. Discard is a hint. Discarded bytes read as anything until they are written again.
package device

import (
	"errors"
	"fmt"
	"io"
)

// Device is a fixed number of bytes on some medium.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Flush makes all writes that have returned durable.
	Flush() error
	// Discard tells that the n bytes at off are no longer needed.
	Discard(off, n int64) error
	// Size is the number of bytes.
	Size() int64
	// Close gives the medium back. It does not flush.
	Close() error
}

// Options say how OpenFile opens.
type Options struct {
	ReadOnly bool // no write will come: share the file with other readers
	Direct   bool // bypass the page cache (Linux only)
}

var (
	// ErrInUse tells that another program, or another part of this one, has the target open.
	ErrInUse = errors.New("open elsewhere")
	// ErrMounted tells that the kernel has the target mounted.
	ErrMounted = errors.New("mounted")
	// ErrReadOnly is returned by changes to a device that was opened for reading only.
	ErrReadOnly = errors.New("device is read-only")
	// ErrOutOfRange is returned for offsets and lengths that do not lie on the device.
	ErrOutOfRange = errors.New("beyond the end of the device")
)

// InRange returns ErrOutOfRange, with the numbers, unless [off, off+n) lies within size bytes. Implementations share it.
func InRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d of %d: %w", n, off, size, ErrOutOfRange)
	}
	return nil
}

// readLimit returns how many of want bytes at off exist, and the error a reader of all of them gets.
func readLimit(off, want, size int64) (int64, error) {
	switch {
	case off < 0:
		return 0, InRange(off, want, size)
	case off >= size && want > 0:
		return 0, io.EOF
	case want > size-off:
		return size - off, io.EOF
	}
	return want, nil
}
