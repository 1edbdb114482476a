package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"
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

// ranger tells where a file has data.
type ranger interface {
	DataRanges(off int64) iter.Seq2[btrfs.Range, error]
	io.Closer
}

// sparseFile is a file with holes. There may be any number of them, so the ranges are not kept: they are found three times, to know how long the list of
// them will be, to write the list, and to write what is in them.
type sparseFile struct {
	in   ranger
	size int64
	n    int64 // ranges
	list int64 // bytes of the list, padded
	data int64 // bytes of the ranges
}

// sparseFile tells of a file that has holes worth a list; nil: of no other, nor where holes cannot be told. Who gets one closes it.
func (t *tarer) sparseFile(e *btrfs.WalkEntry) *sparseFile {
	if int64(e.Stat.Allocated) >= e.Stat.Size {
		return nil
	}
	in, err := t.s.OpenFile(e.Path, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	f := &sparseFile{in: in, size: e.Stat.Size}
	if err := f.measure(); err != nil || f.size-f.data < fewestHole {
		in.Close()
		return nil
	}
	return f
}

// ranges gives the ranges in order; one without bytes at the end of a file that ends in a hole tells its size.
func (f *sparseFile) ranges() iter.Seq2[btrfs.Range, error] {
	return func(yield func(btrfs.Range, error) bool) {
		end := int64(0)
		for r, err := range f.in.DataRanges(0) {
			r.To = min(r.To, f.size)
			if r.From >= r.To && err == nil {
				continue
			}
			if end = r.To; !yield(r, err) || err != nil {
				return
			}
		}
		if end < f.size {
			yield(btrfs.Range{From: f.size, To: f.size}, nil)
		}
	}
}

// measure finds out how long the list and the data are.
func (f *sparseFile) measure() error {
	c := &counter{w: io.Discard}
	for r, err := range f.ranges() {
		if err != nil {
			return err
		}
		f.n++
		f.data += r.To - r.From
		if err := writeRange(c, r); err != nil {
			return err
		}
	}
	n := int64(len(strconv.FormatInt(f.n, 10))) + 1 + c.n
	f.list = (n + tarBlock - 1) / tarBlock * tarBlock
	return nil
}

// writeRange writes a range as the list has it.
func writeRange(w io.Writer, r btrfs.Range) error {
	_, err := fmt.Fprintf(w, "%d\n%d\n", r.From, r.To-r.From)
	return err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeList writes the list.
func (f *sparseFile) writeList(w io.Writer) error {
	c := &counter{w: w}
	fmt.Fprintf(c, "%d\n", f.n)
	for r, err := range f.ranges() {
		if err != nil {
			return err
		}
		if err := writeRange(c, r); err != nil {
			return err
		}
	}
	pad := f.list - c.n
	if pad < 0 || pad >= tarBlock {
		return fmt.Errorf("its holes changed while it was read")
	}
	_, err := w.Write(zeroUnit[:pad])
	return err
}

// sparse writes a file with holes. An error is one of the stream, which is lost then.
func (t *tarer) sparse(e *btrfs.WalkEntry, h *tar.Header, in *sparseFile) error {
	stored := in.list + in.data
	head, err := sparseHeader(h, stored)
	if err == nil {
		err = t.w.Flush()
	}
	if err == nil {
		_, err = t.raw.Write(head)
	}
	if err == nil {
		err = in.writeList(t.raw)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", textName(e.Path), err)
	}
	next, stop := iter.Pull2(in.ranges())
	defer stop()
	f := &rangesFile{w: t.raw, next: next}
	if err := t.contents(e, f.put); err != nil {
		return err
	}
	if err := f.put(nil, h.Size); err != nil {
		return err
	}
	_, err = t.raw.Write(zeroUnit[:-stored&(tarBlock-1)])
	return err
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
	w    io.Writer
	next func() (btrfs.Range, error, bool) // gives the next range
	r    btrfs.Range                       // what is left to write of this one
}

// put takes bytes at an offset, behind those before.
func (f *rangesFile) put(p []byte, off int64) error {
	for {
		if f.r.From == f.r.To {
			r, err, more := f.next()
			if err != nil || !more {
				return err
			}
			f.r = r
		}
		if err := f.zeros(min(off, f.r.To)); err != nil {
			return err
		}
		if f.r.From == f.r.To {
			continue
		}
		skip := max(f.r.From-off, 0) // in a hole
		if skip >= int64(len(p)) {
			return nil
		}
		p, off = p[skip:], off+skip
		n, err := f.w.Write(p[:min(int64(len(p)), f.r.To-off)])
		if err != nil {
			return err
		}
		p, off, f.r.From = p[n:], off+int64(n), f.r.From+int64(n)
		if f.r.From < f.r.To {
			return nil
		}
	}
}

// zeros writes zeros from the start of the range up to off.
func (f *rangesFile) zeros(off int64) error {
	for f.r.From < off {
		n, err := f.w.Write(zeroUnit[:min(off-f.r.From, sparseUnit)])
		f.r.From += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
