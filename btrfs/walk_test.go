package btrfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestWalkCorpus compares all that Walk tells of every volume of the corpus with
// what the plain calls tell, errors among it, with much memory and with the least.
func TestWalkCorpus(t *testing.T) {
	for i, name := range testenv.Names(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := btrfs.Open(ctx, strings.Join(testenv.ReadImages(t, name), ","), btrfs.Options{ReadOnly: true})
			if name == "old-roots" || strings.HasPrefix(name, "exp-") { // those must be refused, by name of what they have
				var unsupported *btrfs.UnsupportedError
				var corrupt *btrfs.CorruptError
				if !errors.As(err, &unsupported) && !errors.As(err, &corrupt) {
					t.Errorf("not refused: %v", err)
				}
				return
			}
			must(t, err)
			defer v.Close()
			compareWalk(t, v.Top(), btrfs.WalkOptions{Memory: int64(i % 2)})
		})
	}
}

func compareWalk(t *testing.T, s *btrfs.Subvolume, opt btrfs.WalkOptions) {
	t.Helper()
	met := map[string]bool{}
	failed := map[string]bool{} // directories of which Walk said that it cannot list them
	must(t, s.Walk(ctx, ".", opt, func(e *btrfs.WalkEntry) error {
		if e.Err != nil && met[e.Path] {
			failed[e.Path] = true
			return nil
		}
		if met[e.Path] {
			t.Errorf("%q is met twice", e.Path)
		}
		met[e.Path] = true
		if err := compareEntry(s, e); err != nil {
			t.Errorf("%q: %v", e.Path, err)
		}
		return nil
	}))
	plain := 0
	var count func(dir string)
	count = func(dir string) {
		list, err := s.ReadDir(dir)
		if (err != nil) != failed[dir] {
			t.Errorf("ReadDir of %q: %v, Walk tells of an error: %v", dir, err, failed[dir])
		}
		for _, d := range list {
			p := strings.TrimPrefix(dir+"/"+d.Name(), "./")
			plain++
			if !met[p] {
				t.Errorf("%q is not met", p)
			}
			if d.IsDir() {
				count(p)
			}
		}
	}
	count(".")
	if plain+1 != len(met) {
		t.Errorf("%d files are met, there are %d", len(met), plain+1)
	}
}

func compareEntry(s *btrfs.Subvolume, e *btrfs.WalkEntry) error {
	fi, err := s.Lstat(e.Path)
	if err != nil || e.Err != nil {
		return differentErrors(e.Err, err)
	}
	if fi.Sys() != e.Stat {
		return fmt.Errorf("Walk has %+v, Lstat %+v", e.Stat, fi.Sys())
	}
	xattrs, err := s.Xattrs(e.Path)
	got, gotErr := e.Xattrs()
	if err := differentErrors(gotErr, err); err != nil {
		return err
	}
	if len(got)+len(xattrs) > 0 && !reflect.DeepEqual(got, xattrs) {
		return fmt.Errorf("xattrs are %q, want %q", got, xattrs)
	}
	switch {
	case e.Stat.IsSymlink():
		if target, err := s.ReadLink(e.Path); target != e.Target || err != nil {
			return fmt.Errorf("target %q, want %q: %v", e.Target, target, err)
		}
	case e.Stat.IsRegular():
		return compareContents(s, e)
	}
	return nil
}

func differentErrors(got, want error) error {
	if (got == nil) != (want == nil) || want != nil && got.Error() != want.Error() {
		return fmt.Errorf("error %v, want %v", got, want)
	}
	return nil
}

// compareContents reads what Chunks gives a second time; between the chunks there
// must be holes.
func compareContents(s *btrfs.Subvolume, e *btrfs.WalkEntry) error {
	in, err := s.Open(e.Path)
	if err != nil {
		return err
	}
	f := in.(*btrfs.File)
	defer f.Close()
	at := int64(0)
	for c, err := range e.Chunks() {
		if c.Off < at || c.Len <= 0 || c.Off+c.Len > e.Stat.Size {
			return fmt.Errorf("chunk [%d,+%d) after %d in %d bytes", c.Off, c.Len, at, e.Stat.Size)
		}
		if err := isHole(f, at, c.Off); err != nil {
			return err
		}
		at = c.Off + c.Len
		want := make([]byte, min(c.Len, 1<<20))
		_, werr := f.ReadAt(want, c.Off)
		if err != nil || werr != nil {
			if (err == nil) != (werr == nil) {
				return fmt.Errorf("at %d: error %v, want %v", c.Off, err, werr)
			}
			continue
		}
		if !bytes.Equal(c.Data, want) {
			return fmt.Errorf("wrong bytes in [%d,+%d)", c.Off, c.Len)
		}
	}
	return isHole(f, at, e.Stat.Size)
}

func isHole(f *btrfs.File, from, to int64) error {
	if from == to {
		return nil
	}
	if next, err := f.SeekData(from); err != io.EOF && (err != nil || next < to) {
		return fmt.Errorf("no chunk for [%d,%d), but data at %d: %v", from, to, next, err)
	}
	return nil
}

// TestWalkOrders: fn may leave out directories, end the walk, fail, and be
// interrupted; Want leaves out more.
func TestWalkOrders(t *testing.T) {
	v := open(t, treeOf(t, 40, 10_000), btrfs.Options{ReadOnly: true})
	stop := errors.New("stop")
	cancelled, cancel := context.WithCancel(ctx)
	for _, c := range []struct {
		name string
		opt  btrfs.WalkOptions
		ctx  context.Context
		fn   func(e *btrfs.WalkEntry) error
		err  error
		n    int
	}{
		{name: "all", n: 1 + 4 + 40},
		{name: "SkipDir", fn: func(e *btrfs.WalkEntry) error {
			if e.Path == "d1" {
				return fs.SkipDir
			}
			return nil
		}, n: 1 + 4 + 30},
		{name: "SkipAll", fn: func(e *btrfs.WalkEntry) error {
			if e.Path == "d1" {
				return fs.SkipAll
			}
			return nil
		}, n: 13},
		{name: "error", fn: func(e *btrfs.WalkEntry) error { return stop }, err: stop, n: 1},
		{name: "cancel", ctx: cancelled, fn: func(e *btrfs.WalkEntry) error {
			cancel()
			for _, err := range e.Chunks() {
				if err != nil {
					return err
				}
			}
			return nil
		}, err: context.Canceled, n: -1},
		{name: "Want", opt: btrfs.WalkOptions{Want: func(e *btrfs.WalkEntry) bool { return e.Name != "d2" }}, n: 1 + 3 + 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, use := 0, ctx
			if c.ctx != nil {
				use = c.ctx
			}
			err := v.Top().Walk(use, ".", c.opt, func(e *btrfs.WalkEntry) error {
				n++
				if c.fn != nil {
					return c.fn(e)
				}
				return nil
			})
			if !errors.Is(err, c.err) || c.n >= 0 && n != c.n {
				t.Errorf("%d calls, want %d; error %v, want %v", n, c.n, err, c.err)
			}
		})
	}
}

// treeOf makes a volume with so many files of a size in four directories, d0 to
// d3.
func treeOf(t *testing.T, files, size int) string {
	t.Helper()
	image := fresh(t, btrfs.MakeOptions{})
	v := open(t, image, btrfs.Options{})
	for i := range files {
		dir := fmt.Sprint("d", i*4/files)
		if i*4%files == 0 {
			must(t, v.Top().Mkdir(dir, 0o755))
		}
		must(t, v.Top().WriteFile(fmt.Sprintf("%s/f%d", dir, i), bytes.Repeat([]byte{byte(i), 1, 2, 3}, size/4), 0o644))
	}
	must(t, v.Close())
	return image
}

// TestWalkChanging: the volume changes under the walk, by the walk's own function
// and by others. What stays is read right.
func TestWalkChanging(t *testing.T) {
	v := open(t, treeOf(t, 400, 20_000), btrfs.Options{})
	s := v.Top()
	f, err := s.Create("pending") // not in the trees yet
	must(t, err)
	_, err = f.Write([]byte("written"))
	must(t, err)
	done := make(chan error)
	go func() {
		var errs []error
		for i := range 50 {
			errs = append(errs, s.WriteFile(fmt.Sprintf("d3/new%d", i), bytes.Repeat([]byte("new"), 3000), 0o644), v.Commit(ctx))
		}
		done <- errors.Join(errs...)
	}()
	read := map[string]string{}
	must(t, s.Walk(ctx, ".", btrfs.WalkOptions{Memory: 1}, func(e *btrfs.WalkEntry) error {
		if e.Err != nil {
			return e.Err
		}
		var b []byte
		for c, err := range e.Chunks() {
			if err != nil {
				return err
			}
			b = append(b, c.Data...)
		}
		read[e.Path] = string(b)
		if strings.HasSuffix(e.Name, "7") && !strings.HasPrefix(e.Name, "new") {
			return s.Remove(e.Path)
		}
		return nil
	}))
	must(t, <-done)
	must(t, f.Close())
	if read["pending"] != "written" {
		t.Errorf("what is gathered reads %q", read["pending"])
	}
	for i := range 400 {
		name := fmt.Sprintf("d%d/f%d", i*4/400, i)
		if want := strings.Repeat(string([]byte{byte(i), 1, 2, 3}), 5000); read[name] != want {
			t.Errorf("%s reads wrong", name)
		}
	}
}

// counting counts the bytes that are read of a device.
type counting struct {
	btrfs.Device
	bytes atomic.Int64
}

func (d *counting) ReadAt(p []byte, off int64) (int, error) {
	d.bytes.Add(int64(len(p)))
	return d.Device.ReadAt(p, off)
}

// TestWalkMemory: however long fn takes, no more is read ahead than the memory that
// was given holds.
func TestWalkMemory(t *testing.T) {
	const files, size, memory = 60, 1 << 20, 8 << 20
	file, err := btrfs.OpenDevice(treeOf(t, files, size), true)
	must(t, err)
	dev := &counting{Device: file}
	v, err := btrfs.OpenDevices(ctx, []btrfs.Device{dev}, btrfs.Options{ReadOnly: true})
	must(t, err)
	defer v.Close()
	done := int64(0)
	must(t, v.Top().Walk(ctx, ".", btrfs.WalkOptions{Memory: memory}, func(e *btrfs.WalkEntry) error {
		if done == 0 && e.Stat.IsRegular() { // let the others read what they may
			for range 100 {
				time.Sleep(time.Millisecond)
			}
		}
		const trees = 1 << 20
		if ahead := dev.bytes.Load() - done; ahead > memory+size+trees {
			return fmt.Errorf("%s: %d bytes are read ahead", e.Path, ahead)
		}
		for c, err := range e.Chunks() {
			if err != nil {
				return err
			}
			done += c.Len
		}
		return nil
	}))
	if done != files*size {
		t.Errorf("%d bytes came out, want %d", done, files*size)
	}
	if read := dev.bytes.Load(); read > files*size*11/10 {
		t.Errorf("%d bytes were read for %d", read, files*size)
	}
}
