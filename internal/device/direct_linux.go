package device

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	directAlign = 4096    // enough for every medium
	directBuf   = 1 << 20 // largest single request
	directKeep  = 16      // buffers kept for reuse
)

// direct is a file opened with O_DIRECT. The kernel wants aligned memory, offsets and lengths, so bytes pass through mapped
// buffers; writes with ragged edges read what surrounds them first.
type direct struct {
	*file
	free chan []byte // buffers at rest

	mu    sync.Mutex // guards total
	total int        // buffers that exist

	edges sync.RWMutex // writers: shared when aligned, alone when they read and write back
}

func newDirect(f *file) (Device, error) {
	if f.size%directAlign != 0 {
		return nil, fmt.Errorf("direct I/O needs a size that is a multiple of %d, not %d", directAlign, f.size)
	}
	return &direct{file: f, free: make(chan []byte, directKeep)}, nil
}

// buffer returns an aligned buffer: a resting one, a new one, or after directKeep of those the next that is put back.
func (d *direct) buffer() ([]byte, error) {
	select {
	case b := <-d.free:
		return b, nil
	default:
	}
	d.mu.Lock()
	if d.total == directKeep {
		d.mu.Unlock()
		return <-d.free, nil
	}
	defer d.mu.Unlock()
	b, err := unix.Mmap(-1, 0, directBuf, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		d.total++
	}
	return b, err
}

func (d *direct) ReadAt(p []byte, off int64) (int, error) {
	n, eof := readLimit(off, int64(len(p)), d.size)
	if n == 0 {
		return 0, eof
	}
	buf, err := d.buffer()
	if err != nil {
		return 0, err
	}
	defer func() { d.free <- buf }()
	for done := int64(0); done < n; {
		start, skip, span := window(off+done, n-done)
		if got, err := d.f.ReadAt(buf[:span], start); int64(got) < span {
			return int(done), errors.Join(fmt.Errorf("read %d of %d bytes at %d", got, span, start), err)
		}
		done += int64(copy(p[done:n], buf[skip:span]))
	}
	return int(n), eof
}

func (d *direct) WriteAt(p []byte, off int64) (int, error) {
	if err := d.mayChange(off, int64(len(p))); err != nil {
		return 0, err
	}
	buf, err := d.buffer()
	if err != nil {
		return 0, err
	}
	defer func() { d.free <- buf }()
	ragged := off%directAlign != 0 || len(p)%directAlign != 0
	if ragged {
		d.edges.Lock()
		defer d.edges.Unlock()
	} else {
		d.edges.RLock()
		defer d.edges.RUnlock()
	}
	for done := 0; done < len(p); {
		start, skip, span := window(off+int64(done), int64(len(p)-done))
		if ragged {
			if got, err := d.f.ReadAt(buf[:span], start); int64(got) < span {
				return done, errors.Join(fmt.Errorf("read %d of %d bytes at %d", got, span, start), err)
			}
		}
		n := copy(buf[skip:span], p[done:])
		if _, err := d.f.WriteAt(buf[:span], start); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// window returns the aligned range to transfer for the first of n bytes at off: its start, where in it off lies, its length.
func window(off, n int64) (start, skip, span int64) {
	skip = off % directAlign
	span = min((skip+n+directAlign-1)/directAlign*directAlign, directBuf)
	return off - skip, skip, span
}

// Close also unmaps the buffers. No call may be running.
func (d *direct) Close() error {
	for range d.total {
		if err := unix.Munmap(<-d.free); err != nil {
			return errors.Join(err, d.file.Close())
		}
	}
	d.total = 0
	return d.file.Close()
}
