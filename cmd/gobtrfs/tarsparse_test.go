package main

import (
	"iter"
	"os"
	"runtime"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// heapAt is a writer that looks at the live heap once, after so many bytes.
type heapAt struct {
	at, n int64
	heap  uint64
}

func (w *heapAt) Write(p []byte) (int, error) {
	if w.n += int64(len(p)); w.n >= w.at && w.heap == 0 {
		w.heap = liveHeap()
	}
	return len(p), nil
}

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// comb is a file of n ranges of data with holes before them.
type comb int64

func (c comb) Close() error { return nil }

func (c comb) DataRanges(off int64) iter.Seq2[btrfs.Range, error] {
	return func(yield func(btrfs.Range, error) bool) {
		for i := off / 8192; i < int64(c) && yield(btrfs.Range{From: i*8192 + 4096, To: (i + 1) * 8192}, nil); i++ {
		}
	}
}

// TestManyHoles: the list of a million ranges is as long as was told, the contents too, and
// neither is kept.
func TestManyHoles(t *testing.T) {
	const n = 1000000
	s := &sparseFile{in: comb(n), size: n*8192 + 1} // ends in a hole
	before := liveHeap()
	must(t, s.measure())
	if s.n != n+1 || s.data != n*4096 {
		t.Errorf("%d ranges of %d bytes", s.n, s.data)
	}
	list := &heapAt{at: s.list / 2}
	must(t, s.writeList(list))
	if list.n != s.list || list.n < 15*n {
		t.Errorf("the list has %d bytes, told were %d", list.n, s.list)
	}
	next, stop := iter.Pull2(s.ranges())
	defer stop()
	data := &heapAt{at: s.data / 2}
	f := &rangesFile{w: data, next: next}
	must(t, f.put(make([]byte, 100), 12288-50)) // half of it in a hole
	must(t, f.put(nil, s.size))
	if data.n != s.data {
		t.Errorf("%d bytes of contents, told were %d", data.n, s.data)
	}
	for _, w := range []*heapAt{list, data} {
		if grown := int64(w.heap) - int64(before); grown > 1<<20 {
			t.Errorf("%d bytes more were in use halfway", grown)
		}
	}
}

// TestHolesChange: a list that does not become what was told ends the stream.
func TestHolesChange(t *testing.T) {
	s := &sparseFile{in: comb(1000), size: 1000 * 8192}
	must(t, s.measure())
	for _, n := range []comb{0, 500, 900} {
		s.in = n
		if err := s.writeList(&heapAt{}); err == nil {
			t.Errorf("%d ranges in the place of 1000", int64(n))
		}
	}
}

// TestLostPlaces: however many places of a file are lost, only some are kept, and all are counted.
func TestLostPlaces(t *testing.T) {
	c := &contents{}
	for i := range int64(100000) {
		c.lost(i*8192, i*8192+2048, os.ErrInvalid)
		c.lost(i*8192+2048, i*8192+4096, os.ErrInvalid) // goes on where the last ended
	}
	want := "409600000 bytes could not be read and are left out, at 0-4095 8192-12287 16384-20479 24576-28671" +
		" 32768-36863 40960-45055 49152-53247 57344-61439 and 99992 more places"
	if got := c.lostText(); got != want || len(c.bad) != mostPlaces {
		t.Errorf("%d kept: %s", len(c.bad), got)
	}
}

// TestLinkSet: an inode is forgotten with its last name.
func TestLinkSet(t *testing.T) {
	s := linkSet{}
	for ino := range uint64(1000) {
		id := inodeID{5, ino}
		s.put(id, "first", 3)
		for range 2 {
			if name, met := s.again(id); !met || name != "first" {
				t.Fatalf("got %q, %v", name, met)
			}
		}
		if _, met := s.again(id); met || len(s) != 0 {
			t.Fatalf("%d inodes are remembered", len(s))
		}
	}
	if s.put(inodeID{5, 1}, "alone", 1); len(s) != 0 {
		t.Error("an inode with one name is remembered")
	}
}
