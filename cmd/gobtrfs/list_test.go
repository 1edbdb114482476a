package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// crowd makes a volume with n files in one directory, in no order, and gives their names sorted.
func crowd(t *testing.T, n int) (*btrfs.Volume, []string) {
	t.Helper()
	v, err := btrfs.Open(t.Context(), small(t), btrfs.Options{})
	must(t, err)
	t.Cleanup(func() { v.Close() })
	must(t, v.Top().Mkdir("d", 0o755))
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("name %d", i))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	rnd.Shuffle(n, func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		must(t, v.Top().Mknod("d/"+name, 0o100644, btrfs.Rdev{}))
	}
	slices.Sort(names)
	return v, names
}

// TestSortedDir: a directory is listed by name in parts that are no larger than asked for, and
// read as often as there are parts.
func TestSortedDir(t *testing.T) {
	v, names := crowd(t, 3000)
	for _, most := range []int{1, 700, 1000, 2999, 3000, 3001, mostSorted} {
		want := names
		if most == 1 {
			want = names[:5] // one read of the directory each
		}
		f, err := v.Top().OpenFile("d", 0, 0)
		must(t, err)
		d := &sortedDir{f: f, most: most}
		var got []string
		parts := 0
		for len(got) < len(want) {
			list, err := d.next()
			must(t, err)
			if parts++; len(list) > most || cap(list) > 2*most+4*atOnce {
				t.Fatalf("a part of %d names (room for %d), %d were asked for", len(list), cap(list), most)
			}
			for _, e := range list {
				got = append(got, e.Name())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d at once: wrong names or order: %d names", most, len(got))
		}
		if d.passes != parts || parts != (len(want)+most-1)/most {
			t.Errorf("%d at once: %d parts, %d times read", most, parts, d.passes)
		}
		if list, err := d.next(); most > 1 && (len(list) > 0 || err != io.EOF) {
			t.Errorf("%d at once: %d names behind the end, %v", most, len(list), err)
		}
		must(t, f.Close())
	}
}

// widest tells the largest write and the sum of all.
type widest struct {
	bytes.Buffer
	most int
}

func (w *widest) Write(p []byte) (int, error) {
	w.most = max(w.most, len(p))
	return w.Buffer.Write(p)
}

// TestListStreams: ls prints as it goes, in the form that a whole document has.
func TestListStreams(t *testing.T) {
	v, names := crowd(t, 3000)
	for _, json := range []bool{false, true} {
		w := &widest{}
		l := lister{ctx: t.Context(), out: &output{w: w, json: json}, s: v.Top(), long: true, recursive: true, most: 500}
		must(t, l.run([]string{"/"}))
		if w.most > 2*listBuffer {
			t.Errorf("json %v: wrote %d bytes at once", json, w.most)
		}
		if !json {
			if n := bytes.Count(w.Bytes(), []byte("\n")); n != len(names)+1 {
				t.Errorf("%d lines", n)
			}
			continue
		}
		if w.Len() < 8*listBuffer {
			t.Fatalf("only %d bytes: that shows nothing", w.Len())
		}
		all := parse[[]entry](t, w.String())
		for i, e := range all[1:] {
			if e.Name != names[i] || e.Path != "/d/"+names[i] {
				t.Fatalf("entry %d: %q, %q", i, e.Name, e.Path)
			}
		}
		var whole bytes.Buffer
		must(t, (&output{w: &whole}).document(all))
		if whole.String() != w.String() {
			t.Error("not the form of a whole document")
		}
	}
}

// TestListNothing: an empty array is an array, and a failed listing is no document.
func TestListNothing(t *testing.T) {
	image := small(t)
	if out := ok(t, "ls", "--json", image); out != "[]\n" {
		t.Errorf("%q", out)
	}
	if r := fails(t, 1, []string{fs.ErrNotExist.Error()}, "ls", "--json", image, "/", "/nothing"); r.out != "" {
		t.Errorf("%q", r.out)
	}
}
