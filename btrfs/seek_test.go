package btrfs_test

import (
	"io"
	"slices"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// TestDataRanges: the ranges are what SeekData and SeekHole find, from any offset on,
// more of them too than are read at once.
func TestDataRanges(t *testing.T) {
	v := onMemory(t, 128<<20, btrfs.MakeOptions{})
	f, err := v.Top().Create("holes")
	must(t, err)
	defer f.Close()
	for off := range int64(2) {
		_, err = f.WriteAt(make([]byte, 4096), off*16384)
		must(t, err)
	}
	size := int64(8 * 4096)
	for ; size < 3000*4096; size *= 2 {
		must(t, f.Truncate(2*size))
		must(t, f.CloneRange(size, f, 0, size))
	}
	must(t, f.Truncate(size+1))
	for _, off := range []int64{0, 100, 4096, 5000, size / 2, size, size + 1, 2 * size} {
		var want, got []btrfs.Range
		for at := off; ; {
			from, err := f.SeekData(at)
			if err == io.EOF {
				break
			}
			must(t, err)
			at, err = f.SeekHole(from)
			must(t, err)
			want = append(want, btrfs.Range{From: from, To: at})
		}
		for r, err := range f.DataRanges(off) {
			must(t, err)
			got = append(got, r)
		}
		if !slices.Equal(got, want) || off == 0 && len(got) < 1000 {
			t.Errorf("from %d on: %d ranges, want %d", off, len(got), len(want))
		}
	}
	n := 0
	for range f.DataRanges(0) {
		if n++; n == 600 {
			break
		}
	}
	if n != 600 {
		t.Errorf("ended after %d", n)
	}
}
