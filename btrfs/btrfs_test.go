package btrfs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

var ctx = context.Background()

func open(t testing.TB, image string, opt btrfs.Options) *btrfs.Volume {
	t.Helper()
	v, err := btrfs.Open(ctx, image, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// TestFS: a subvolume is a correct fs.FS, nested subvolumes, links and holes
// included.
func TestFS(t *testing.T) {
	image := fresh(t, btrfs.MakeOptions{})
	v := open(t, image, btrfs.Options{})
	_, err := v.CreateSubvolume(ctx, "/sub")
	must(t, err)
	must(t, v.Top().MkdirAll("sub/dir/deep", 0o755))
	for i, name := range []string{"a", "sub/b", "sub/dir/c", "sub/dir/deep/d"} {
		must(t, v.Top().WriteFile(name, make([]byte, i*3000), 0o644))
	}
	must(t, v.Top().Symlink("dir/c", "sub/link"))
	must(t, v.Top().Link("sub/b", "sub/dir/hard"))
	must(t, v.Close())
	v = open(t, image, btrfs.Options{ReadOnly: true})
	if err := fstest.TestFS(v.Top(), "a", "sub/b", "sub/dir/deep/d"); err != nil {
		t.Error(err)
	}
	s, err := v.Subvolume(ctx, "/sub")
	must(t, err)
	if err := fstest.TestFS(s, "b", "link", "dir/hard"); err != nil {
		t.Error(err)
	}
}

// fresh makes an empty volume.
func fresh(t testing.TB, opt btrfs.MakeOptions) string {
	t.Helper()
	image := filepath.Join(testenv.Scratch(t), "fresh.img")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(256<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := btrfs.OpenDevice(image, false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = btrfs.Make(ctx, []btrfs.Device{d}, opt)
	if err := errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	return image
}

// TestMistakes: wrong use is refused with an error that can be asked for, and
// changes nothing.
func TestMistakes(t *testing.T) {
	v := open(t, fresh(t, btrfs.MakeOptions{}), btrfs.Options{})
	s := v.Top()
	must(t, s.Mkdir("dir", 0o755))
	must(t, s.WriteFile("dir/file", []byte("x"), 0o644))
	_, err := v.CreateSubvolume(ctx, "/sub")
	must(t, err)
	_, err = v.Snapshot(ctx, "/sub", "/ro", true)
	must(t, err)
	long := make([]byte, 256)
	for i := range long {
		long[i] = 'n'
	}
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"mkdir where something is", s.Mkdir("dir", 0o755), fs.ErrExist},
		{"mkdir in what is not there", s.Mkdir("no/dir", 0o755), fs.ErrNotExist},
		{"mkdir in a file", s.Mkdir("dir/file/x", 0o755), btrfs.ErrNotDir},
		{"a long name", s.Mkdir(string(long), 0o755), btrfs.ErrNameTooLong},
		{"remove a full directory", s.Remove("dir"), btrfs.ErrNotEmpty},
		{"remove what is not there", s.Remove("nothing"), fs.ErrNotExist},
		{"remove a subvolume as a file", s.Remove("sub"), fs.ErrPermission},
		{"write in a read-only snapshot", s.WriteFile("ro/x", nil, 0o644), btrfs.ErrReadOnly},
		{"rename out of a subvolume", s.Rename("dir/file", "sub/file"), btrfs.ErrCrossDevice},
		{"rename a directory into itself", s.Rename("dir", "dir/sub"), fs.ErrInvalid},
		{"a path that io/fs forbids", s.Mkdir("/abs", 0o755), fs.ErrInvalid},
		{"delete what is no subvolume", v.DeleteSubvolumes(ctx, []string{"/sub", "/dir"}), btrfs.ErrNotSubvolume},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.err, c.want)
		}
	}
	if list, err := s.ReadDir("."); err != nil || len(list) != 3 {
		t.Errorf("after all that: %v, %v", list, err)
	}
	if _, err := btrfs.Open(ctx, "/nonexistent.img", btrfs.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open what is not there: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLocked: a volume that is open for writing cannot be opened again.
func TestLocked(t *testing.T) {
	image := fresh(t, btrfs.MakeOptions{})
	open(t, image, btrfs.Options{})
	if v, err := btrfs.Open(ctx, image, btrfs.Options{}); err == nil {
		v.Close()
		t.Error("opened twice for writing")
	}
}

// TestUnlinkedOpenFile: a file that is open when its last name goes can be read
// and written until it is closed; then its space comes back.
func TestUnlinkedOpenFile(t *testing.T) {
	image := fresh(t, btrfs.MakeOptions{})
	v := open(t, image, btrfs.Options{})
	f, err := v.Top().Create("gone")
	must(t, err)
	_, err = f.Write(make([]byte, 1<<20))
	must(t, err)
	must(t, v.Top().Remove("gone"))
	must(t, v.Commit(ctx))
	if n, err := f.ReadAt(make([]byte, 4096), 8192); n != 4096 || err != nil {
		t.Errorf("read of an unlinked file: %d, %v", n, err)
	}
	must(t, f.Close())
	must(t, v.Close())
	testenv.Check(t, image)
	v = open(t, image, btrfs.Options{ReadOnly: true})
	groups, err := v.Usage(ctx)
	must(t, err)
	for _, g := range groups {
		if g.Type == "Data" && g.Used != 0 {
			t.Errorf("%d bytes of data are still used", g.Used)
		}
	}
}

// TestDropPlanIsExact: what the dry run says is what df shows after the deletion.
func TestDropPlanIsExact(t *testing.T) {
	image := fresh(t, btrfs.MakeOptions{})
	v := open(t, image, btrfs.Options{})
	_, err := v.CreateSubvolume(ctx, "/a")
	must(t, err)
	var paths []string
	for i := range 12 {
		for k := range 30 {
			must(t, v.Top().WriteFile(fmt.Sprintf("a/f%03d", (i*7+k)%100), make([]byte, 3000*(k%5)+i), 0o644))
		}
		p := fmt.Sprintf("/s%d", i)
		_, err := v.Snapshot(ctx, "/a", p, true)
		must(t, err)
		paths = append(paths, p)
	}
	must(t, v.Commit(ctx))
	plan, err := v.DropPlan(ctx, paths)
	must(t, err)
	before := usedData(t, v)
	must(t, v.DeleteSubvolumes(ctx, paths))
	rep, err := v.Drop(ctx, btrfs.DropOptions{})
	must(t, err)
	must(t, v.Commit(ctx))
	if got := before - usedData(t, v); got != plan.DataBytes || rep.DataFreed != plan.DataBytes {
		t.Errorf("data: %d came back, the drop says %d, the plan said %d", got, rep.DataFreed, plan.DataBytes)
	}
	if rep.BlocksFreed != plan.TreeBlocks {
		t.Errorf("tree blocks: %d came back, the plan said %d", rep.BlocksFreed, plan.TreeBlocks)
	}
	must(t, v.Close())
	testenv.Check(t, image)
}

func usedData(t testing.TB, v *btrfs.Volume) (n uint64) {
	t.Helper()
	groups, err := v.Usage(ctx)
	must(t, err)
	for _, g := range groups {
		if g.Type == "Data" {
			n += g.Used
		}
	}
	return n
}

func Example() {
	image := filepath.Join(os.TempDir(), fmt.Sprintf("gobtrfs-example-%d.img", os.Getpid()))
	defer os.Remove(image)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		log.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		log.Fatal(err)
	}
	d, err := btrfs.OpenDevice(image, false)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := btrfs.Make(context.Background(), []btrfs.Device{d}, btrfs.MakeOptions{Label: "example"}); err != nil {
		log.Fatal(err)
	}
	d.Close()

	v, err := btrfs.Open(context.Background(), image, btrfs.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer v.Close()
	home, err := v.CreateSubvolume(context.Background(), "/home")
	if err != nil {
		log.Fatal(err)
	}
	if err := home.WriteFile("note.txt", []byte("first"), 0o644); err != nil {
		log.Fatal(err)
	}
	if _, err := v.Snapshot(context.Background(), "/home", "/before", true); err != nil {
		log.Fatal(err)
	}
	if err := home.WriteFile("note.txt", []byte("second"), 0o644); err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"home/note.txt", "before/note.txt"} {
		b, err := fs.ReadFile(v.Top(), name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", name, b)
	}
	// Output:
	// home/note.txt: second
	// before/note.txt: first
}
