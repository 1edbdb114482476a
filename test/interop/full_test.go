package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestFull fills a volume to the last byte again and again, with files of one kind
// each time, deletes files and snapshots while it is full, and goes on: nothing is
// lost, and there is always a way out.
func TestFull(t *testing.T) {
	for i, opt := range []btrfs.MakeOptions{{}, {Nodesize: 4096, Metadata: "single"}} {
		t.Run(fmt.Sprintf("node %d%s", opt.Nodesize, opt.Metadata), func(t *testing.T) {
			seed := testenv.Seed(t, int64(21+i))
			image := fresh(t, 48<<20, opt)
			f := &filler{t: t, rnd: rand.New(rand.NewPCG(uint64(seed), 1)), want: map[string][]byte{}}
			with(t, image, btrfs.Options{}, f.start)
			for _, size := range []int{1300, 300_000, 20_000} {
				with(t, image, btrfs.Options{}, func(v *btrfs.Volume) { f.fill(v, size) })
				judge(t, image)
				with(t, image, btrfs.Options{}, f.deleteAll)
				judge(t, image)
				with(t, image, btrfs.Options{ReadOnly: true}, f.compare)
			}
			with(t, image, btrfs.Options{}, func(v *btrfs.Volume) {
				must(t, v.Top().WriteFile("live/afterwards", make([]byte, 5<<20), 0o644))
			})
			judge(t, image)
		})
	}
}

// filler fills volumes.
type filler struct {
	t    *testing.T
	rnd  *rand.Rand
	want map[string][]byte // what must be there
	n    int
	snap int
}

func (f *filler) start(v *btrfs.Volume) {
	_, err := v.CreateSubvolume(ctx, "/live")
	must(f.t, err)
	for range 30 {
		must(f.t, f.write(v, 5000))
	}
}

func (f *filler) write(v *btrfs.Volume, size int) error {
	f.n++
	name := fmt.Sprintf("live/f%06d", f.n)
	b := make([]byte, size/2+f.rnd.IntN(size))
	for i := range b {
		b[i] = byte(f.rnd.Uint32() >> 3)
	}
	if err := v.Top().WriteFile(name, b, 0o644); err != nil {
		return err
	}
	f.want[name] = b
	return nil
}

// fill takes snapshots and writes files until there is no room.
func (f *filler) fill(v *btrfs.Volume, size int) {
	for i := 0; ; i++ {
		err := f.write(v, size)
		if err == nil && i%(3_000_000/size) == 0 {
			f.snap++
			_, err = v.Snapshot(ctx, "/live", fmt.Sprintf("/snap%d", f.snap), true)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			f.t.Fatalf("after %d files of %d bytes: %v", i, size, err)
		}
		f.t.Logf("full after %d files of about %d bytes, %d snapshots", i, size, f.snap)
		break
	}
	if !v.Writable() {
		f.t.Fatal("the full volume is read-only")
	}
	f.compare(v)
}

// deleteAll deletes files until there is no room even for that (the snapshots hold
// all blocks, so that a deletion needs room and gives none back), then all snapshots,
// which always works, and then the files that are left.
func (f *filler) deleteAll(v *btrfs.Volume) {
	names := slices.Sorted(maps.Keys(f.want))
	n := f.remove(v, names)
	f.t.Logf("%d of %d files deleted on the full volume", n, len(names))
	paths, err := v.MatchSubvolumes(ctx, []string{"/snap*"})
	must(f.t, err)
	must(f.t, v.DeleteSubvolumes(ctx, paths))
	_, err = v.Drop(ctx, btrfs.DropOptions{})
	must(f.t, err)
	if rest := names[n:]; f.remove(v, rest) != len(rest) {
		f.t.Fatal("no room to delete files after the snapshots are gone")
	}
}

// remove removes all but every 20th of the files and tells how many it looked at
// before there was no room.
func (f *filler) remove(v *btrfs.Volume, names []string) int {
	for i, name := range names {
		if i%20 == 0 {
			continue
		}
		switch err := v.Top().Remove(name); {
		case errors.Is(err, syscall.ENOSPC) && v.Writable():
			return i
		case err != nil:
			f.t.Fatal(err)
		}
		delete(f.want, name)
	}
	return len(names)
}

func (f *filler) compare(v *btrfs.Volume) {
	for name, b := range f.want {
		got, err := v.Top().ReadFile(name)
		if err != nil || !bytes.Equal(got, b) {
			f.t.Fatalf("%s: %d bytes, want %d: %v", name, len(got), len(b), err)
		}
	}
	if _, err := v.Top().Stat("live/none"); !errors.Is(err, fs.ErrNotExist) {
		f.t.Errorf("a file that is not there: %v", err)
	}
}
