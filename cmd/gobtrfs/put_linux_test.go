package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestPutHoles: of a file of a TiB that is nearly all hole only the data are read, and the holes
// stay holes.
func TestPutHoles(t *testing.T) {
	const size = 1<<40 + 7
	src := filepath.Join(testenv.Scratch(t), "sparse")
	f, err := os.Create(src)
	must(t, err)
	must(t, f.Truncate(size))
	data := bytes.Repeat([]byte("data"), 1024)
	for _, off := range []int64{0, 1 << 30, 1<<39 + 4096} {
		_, err := f.WriteAt(data, off)
		must(t, err)
	}
	must(t, f.Close())
	v, err := btrfs.Open(t.Context(), small(t), btrfs.Options{})
	must(t, err)
	defer v.Close()
	p := &putter{s: v.Top(), links: linkSet{}, progress: newProgress(true), ctxErr: t.Context().Err}
	must(t, p.all([]string{src}, "/sparse"))
	if p.bytes < 3*4096 || p.bytes > 8<<20 {
		t.Errorf("%d bytes were read", p.bytes)
	}
	in, err := v.Top().OpenFile("sparse", os.O_RDONLY, 0)
	must(t, err)
	defer in.Close()
	sum := int64(0)
	for r, err := range in.DataRanges(0) {
		must(t, err)
		sum += r.To - r.From
	}
	fi, err := in.Stat()
	must(t, err)
	if fi.Size() != size || sum > 8<<20 {
		t.Errorf("size %d, %d bytes of data", fi.Size(), sum)
	}
	for off, want := range map[int64][]byte{0: data, 1 << 30: data, 1<<39 + 4096: data, 1 << 38: make([]byte, 4096), size - 4096: make([]byte, 4096)} {
		got := make([]byte, 4096)
		if _, err := in.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: wrong bytes, %v", off, err)
		}
	}
}

// TestPutUnsized: what says that it is empty and is not comes whole.
func TestPutUnsized(t *testing.T) {
	image := small(t)
	ok(t, "put", "-q", image, "/proc/self/mountinfo", "/copy")
	if out := ok(t, "cat", image, "/copy"); !strings.Contains(out, " / ") {
		t.Errorf("%d bytes", len(out))
	}
}

// TestPutLinksAcross: hard links into a nested subvolume become copies, which is told once;
// names that lie in one subvolume share an inode.
func TestPutLinksAcross(t *testing.T) {
	image, src := small(t), t.TempDir()
	ok(t, "mkdir", image, "/src")
	ok(t, "subvolume", "create", image, "/src/sub")
	write(t, filepath.Join(src, "src", "a"), "linked")
	must(t, os.Mkdir(filepath.Join(src, "src", "sub"), 0o755))
	for _, name := range []string{"b", "sub/c", "sub/d", "sub/e"} {
		must(t, os.Link(filepath.Join(src, "src", "a"), filepath.Join(src, "src", name)))
	}
	for range 2 { // and once more over what is there
		r := gobtrfs(t, "put", "-q", image, filepath.Join(src, "src"), "/")
		if r.code != 0 || strings.Count(r.err, "become copies") != 1 {
			t.Fatalf("exit %d\n%s", r.code, r.err)
		}
		inodes := map[[2]uint64]int{}
		for _, name := range []string{"a", "b", "sub/c", "sub/d", "sub/e"} {
			e := parse[[]entry](t, ok(t, "stat", "--json", image, "/src/"+name))[0]
			inodes[[2]uint64{e.Subvolume, e.Inode}]++
			if out := ok(t, "cat", image, "/src/"+name); out != "linked" {
				t.Errorf("%s holds %q", name, out)
			}
		}
		if len(inodes) < 2 || len(inodes) > 3 { // one in the subvolume, one or two around it
			t.Errorf("inodes: %v", inodes)
		}
	}
	ok(t, "check", "--data", image)
}
