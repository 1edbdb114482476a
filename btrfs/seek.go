package btrfs

import (
	"context"
	"io/fs"
	"iter"

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

// Range is a part of a file.
type Range struct{ From, To int64 }

// rangesAtOnce is how many ranges DataRanges keeps.
const rangesAtOnce = 512

// DataRanges gives the ranges from off on that lie in no hole, in order. It finds them
// some at a time, so there may be any number; it ends with the first error.
func (f *File) DataRanges(off int64) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		part := make([]Range, 0, rangesAtOnce)
		for more := true; more; {
			part = part[:0]
			_, err := f.seek(func(r *filedata.Reader) (int64, error) {
				return 0, r.DataRanges(context.Background(), uint64(max(off, 0)), ^uint64(0), func(from, to uint64) error {
					part = append(part, Range{int64(from), int64(to)})
					if len(part) == rangesAtOnce {
						return fs.SkipAll
					}
					return nil
				})
			})
			more = err == nil && len(part) == rangesAtOnce
			for _, r := range part {
				if off = r.To; !yield(r, nil) {
					return
				}
			}
			if err != nil {
				yield(Range{}, err)
			}
		}
	}
}
