package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// A file with holes goes into the stream as GNU tar has it since format 1.0: records of a PAX header tell its name and size, and its contents
// are a list of ranges, in decimal lines padded to a block, and then the bytes of those ranges. archive/tar reads this, but does not
// write it: it refuses the records by their keys. So they get their last letter here, in a header that archive/tar made.

const (
	tarBlock   = 512
	fewestHole = 64 << 10 // bytes of holes for which the list is worth while
)

// ranges gives where a file has data; nil: it has hardly any holes, or they cannot be told.
func (t *tarer) ranges(e *btrfs.WalkEntry) (list [][2]int64) {
	if int64(e.Stat.Allocated) >= e.Stat.Size {
		return nil
	}
	f, err := t.s.Open(e.Path)
	if err != nil {
		return nil
	}
	defer f.Close()
	in, ok := f.(*btrfs.File)
	if !ok {
		return nil
	}
	list = [][2]int64{}
	holes := e.Stat.Size
	for at := int64(0); at < e.Stat.Size; {
		start, err := in.SeekData(at)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil
		}
		end, err := in.SeekHole(start)
		if err != nil || end <= start {
			return nil
		}
		end = min(end, e.Stat.Size)
		list, at, holes = append(list, [2]int64{start, end}), end, holes-(end-start)
	}
	if holes < fewestHole {
		return nil
	}
	return list
}

// sparse writes a file with holes.
func (t *tarer) sparse(e *btrfs.WalkEntry, h *tar.Header, ranges [][2]int64) error {
	list := rangeList(ranges, h.Size)
	stored := int64(len(list))
	for _, r := range ranges {
		stored += r[1] - r[0]
	}
	head, err := sparseHeader(h, stored)
	if err != nil {
		return fmt.Errorf("%s: %w", textName(e.Path), err)
	}
	if err := t.w.Flush(); err != nil {
		return err
	}
	for _, b := range [][]byte{head, list} {
		if _, err := t.raw.Write(b); err != nil {
			return err
		}
	}
	f := &rangesFile{w: t.raw, ranges: ranges}
	if err := t.contents(e, f.put); err != nil {
		return err
	}
	if err := f.put(nil, h.Size); err != nil {
		return err
	}
	_, err = t.raw.Write(zeroUnit[:-stored&(tarBlock-1)])
	return err
}

// rangeList is the list of ranges; one without bytes at the end of a file that ends in a hole tells its size.
func rangeList(ranges [][2]int64, size int64) []byte {
	if n := len(ranges); n == 0 || ranges[n-1][1] < size {
		ranges = append(ranges[:n:n], [2]int64{size, size})
	}
	b := strconv.AppendInt(nil, int64(len(ranges)), 10)
	for _, r := range ranges {
		b = strconv.AppendInt(append(b, '\n'), r[0], 10)
		b = strconv.AppendInt(append(b, '\n'), r[1]-r[0], 10)
	}
	b = append(b, '\n')
	return append(b, zeroUnit[:-len(b)&(tarBlock-1)]...)
}

// sparseHeader is the header of a file with holes, of which stored bytes follow.
func sparseHeader(h *tar.Header, stored int64) ([]byte, error) {
	records := map[string]string{}
	for k, v := range h.PAXRecords {
		records[k] = v
	}
	dir, base := path.Split(h.Name)
	own := map[string]string{"major": "1", "minor": "0", "name": h.Name, "realsize": strconv.FormatInt(h.Size, 10)}
	for k, v := range own {
		records["GNU-sparse."+k] = v
	}
	s := *h
	s.Name, s.Size, s.PAXRecords = dir+"GNUSparseFile.0/"+base, stored, records
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&s); err != nil {
		return nil, err
	}
	head := b.Bytes()
	return head, nameSparse(head)
}

// nameSparse gives the records of a PAX header the keys that archive/tar refuses. It goes from record to record, "LENGTH KEY=VALUE\n" each: names and
// attributes may hold anything, records among it.
func nameSparse(head []byte) error {
	const sizeAt, prefix = 124, "GNU-sparse."
	size, err := strconv.ParseInt(strings.Trim(string(head[sizeAt:sizeAt+12]), " \x00"), 8, 64)
	if err != nil || size > int64(len(head)-tarBlock) {
		return fmt.Errorf("unexpected PAX header: %d bytes, %v", size, err)
	}
	for records := head[tarBlock:][:size]; len(records) > 0; {
		digits, record, _ := bytes.Cut(records, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if err != nil || n <= len(digits) || n > len(records) {
			return fmt.Errorf("unexpected PAX record of %d bytes: %v", n, err)
		}
		if bytes.HasPrefix(record, []byte(prefix)) {
			record[strings.Index(prefix, "-")] = '.'
		}
		records = records[n:]
	}
	return nil
}

// rangesFile writes what a file has in its ranges, zeros where nothing is put.
type rangesFile struct {
	w      io.Writer
	ranges [][2]int64 // what is left to write
}

// put takes bytes at an offset, behind those before.
func (f *rangesFile) put(p []byte, off int64) error {
	for len(f.ranges) > 0 {
		r := &f.ranges[0]
		if err := f.zeros(r, min(off, r[1])); err != nil {
			return err
		}
		if r[0] < r[1] {
			skip := max(r[0]-off, 0) // in a hole
			if skip >= int64(len(p)) {
				return nil
			}
			p, off = p[skip:], off+skip
			n, err := f.w.Write(p[:min(int64(len(p)), r[1]-off)])
			if err != nil {
				return err
			}
			p, off, r[0] = p[n:], off+int64(n), r[0]+int64(n)
		}
		if r[0] < r[1] {
			return nil
		}
		f.ranges = f.ranges[1:]
	}
	return nil
}

// zeros writes zeros from the start of a range up to off.
func (f *rangesFile) zeros(r *[2]int64, off int64) error {
	for r[0] < off {
		n, err := f.w.Write(zeroUnit[:min(off-r[0], sparseUnit)])
		r[0] += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
