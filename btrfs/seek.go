package btrfs

import "context"

// SeekData gives the first position from off on that lies in no hole; io.EOF when
// there is none. The position of the next Read stays.
func (f *File) SeekData(off int64) (int64, error) {
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
			at, end = r.SeekData(context.Background(), off)
		}
		return err
	})
	if err != nil {
		return 0, pathErr("seek", f.name, err)
	}
	return at, end
}
