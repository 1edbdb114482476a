package btrfs

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

// TestWalkForgets: a walk remembers neither directories nor inodes with several names that
// it is done with, and reads no more than some attributes ahead.
func TestWalkForgets(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := device.NewMem(128 << 20)
	_, err := Make(ctx, []Device{d}, MakeOptions{})
	must(err)
	v, err := OpenDevices(ctx, []Device{d}, Options{})
	must(err)
	defer v.Close()
	s := v.Top()
	value := bytes.Repeat([]byte("x"), 8000)
	const n = 700
	for i := range n {
		dir := fmt.Sprintf("%03d/inner", i)
		must(s.MkdirAll(dir, 0o755))
		must(s.WriteFile(dir+"/a", []byte("a"), 0o644))
		must(s.Link(dir+"/a", dir+"/b"))
		must(s.SetXattr(dir+"/a", "user.large", value))
	}
	a := newAhead(s, ".", WalkOptions{})
	wait := a.start(ctx)
	f := &feed{ctx: ctx, a: a}
	entries, attrs := 0, 0
	for it := f.next(); it != nil; it = f.next() {
		if e := it.entry; e != nil {
			must(e.Err)
			entries++
			for _, value := range e.xattrs {
				attrs += len(value)
			}
			got, err := e.Xattrs()
			must(err)
			if name := e.Name; (name == "a" || name == "b") && !bytes.Equal(got["user.large"], value) {
				t.Fatalf("%s: wrong attributes", e.Path)
			}
		}
	}
	wait()
	must(f.err)
	if entries != 1+4*n {
		t.Errorf("%d entries", entries)
	}
	if len(a.dirs) != 1 || len(a.linked) != 0 {
		t.Errorf("%d directories and %d inodes are remembered", len(a.dirs), len(a.linked))
	}
	if most := 2 * batchAttrs; attrs == 0 || attrs > most {
		t.Errorf("%d bytes of attributes were read ahead in two batches", attrs)
	}
}
