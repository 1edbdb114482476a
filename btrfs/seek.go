package btrfs

import (
	"context"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
)

// SeekData gives the first position from off on that lies in no hole; io.EOF when
// there is none. The position of the next Read stays.
func (f *File) SeekData(off int64) (int64, error) {
	return f.seek(func(r *filedata.Reader) (int64, error) { return r.SeekData(context.Background(), off) })
}

// SeekHole gives the first position from off on that lies in a hole, or the size of the file; io.EOF when off is not
// in the file. The position of the next Read stays.
func (f *File) SeekHole(off int64) (int64, error) {
	return f.seek(func(r *filedata.Reader) (int64, error) { return r.SeekHole(context.Background(), off) })
}

func (f *File) seek(fn func(*filedata.Reader) (int64, error)) (int64, error) {
	if err := f.usable("seek"); err != nil {
		return 0, err
	}
	if err := f.flush(); err != nil {
		return 0, pathErr("seek", f.name, err)
	}
	var at int64
	var end error
	err := f.s.v.view(func(tree treeFunc) error {
		r, err := f.reader(tree)
		if err == nil {
			at, end = fn(r)
		}
		return err
	})
	if err != nil {
		return 0, pathErr("seek", f.name, err)
	}
	return at, end
}
