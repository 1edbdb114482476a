package main

import (
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

const (
	mostSorted = 1 << 16 // names that are sorted at once
	atOnce     = 1 << 10 // names that are read at once
)

// sortedDir lists a directory by name without keeping all of its names: each part is
// the least of what comes behind the part before, found by reading the whole directory
// again.
type sortedDir struct {
	f      *btrfs.File
	most   int // names in a part
	after  string
	begun  bool
	done   bool
	passes int // times that the directory was read
}

// next gives the next part; io.EOF behind the last. What can be listed is, before another error.
func (d *sortedDir) next() ([]fs.DirEntry, error) {
	if d.done {
		return nil, io.EOF
	}
	if _, err := d.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	d.passes++
	var part []fs.DirEntry
	var bad error
	more, bound := false, "" // with more, names behind bound are in no way among the least
	for {
		list, err := d.f.ReadDir(atOnce)
		if err == io.EOF {
			break
		}
		if bad == nil {
			bad = err
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			if (!d.begun || e.Name() > d.after) && (!more || e.Name() < bound) {
				part = append(part, e)
			}
		}
		if len(part) >= 2*d.most {
			part, more = least(part, d.most), true
			bound = part[d.most-1].Name()
		}
	}
	if len(part) > d.most {
		more = true
	}
	part = least(part, d.most)
	d.done = !more
	if more {
		d.begun, d.after = true, part[len(part)-1].Name()
		return part, nil // errors come with the last part
	}
	return part, bad
}

// least sorts a list by name and gives its first n entries.
func least(list []fs.DirEntry, n int) []fs.DirEntry {
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	if len(list) > n {
		clear(list[n:])
		list = list[:n]
	}
	return list
}
