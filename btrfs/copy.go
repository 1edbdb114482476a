package btrfs

import (
	"context"
	"io"
	"io/fs"
)

var _ io.WriterTo = (*File)(nil)

// WriteTo writes the file from the current position on to w. On a volume opened
// read-only, reading, verifying and decoding go ahead of the writing, in parallel.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	if f.s.v.mgr != nil || f.mode&modeType != modeFile {
		// Writers must not wait for w.
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	}
	if err := f.usable("read"); err != nil {
		return 0, err
	}
	if f.off < 0 {
		return 0, pathErr("read", f.name, fs.ErrInvalid)
	}
	r, err := f.reader(f.s.v.settled())
	if err != nil {
		return 0, pathErr("read", f.name, err)
	}
	n, err := r.WriteFrom(context.Background(), w, uint64(f.off))
	f.off += n
	return n, pathErr("read", f.name, err)
}
