package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// TestMkdirMode: all twelve bits of a mode count.
func TestMkdirMode(t *testing.T) {
	image := small(t)
	for _, mode := range []string{"1777", "2755", "4711", "0700"} {
		ok(t, "mkdir", "-m", mode, image, "/"+mode)
		if text := ok(t, "stat", image, "/"+mode); !strings.Contains(text, "Mode: "+mode) {
			t.Errorf("mkdir -m %s made\n%s", mode, text)
		}
	}
}

// stopper is a writer that ends a context at the first write.
type stopper struct {
	stop func()
	n    int
}

func (s *stopper) Write(p []byte) (int, error) {
	s.stop()
	s.n += len(p)
	return len(p), nil
}

// TestInterrupted: cat and rm end soon after ^C, however much is left.
func TestInterrupted(t *testing.T) {
	image, src := small(t), t.TempDir()
	const size = 8 << 20
	write(t, filepath.Join(src, "dir", "big"), strings.Repeat("x", size))
	ok(t, "put", "-q", image, filepath.Join(src, "dir"), "/")
	v, err := btrfs.Open(context.Background(), image, btrfs.Options{})
	must(t, err)
	defer v.Close()
	ctx, stop := context.WithCancel(context.Background())
	w := &stopper{stop: stop}
	if err := copyOut(ctx, w, v.Top(), "dir/big"); !errors.Is(err, context.Canceled) || w.n >= size {
		t.Errorf("cat wrote %d bytes: %v", w.n, err)
	}
	if err := remove(ctx, v.Top(), "dir", true); !errors.Is(err, context.Canceled) {
		t.Errorf("rm: %v", err)
	}
	if _, err := v.Top().Stat("dir/big"); err != nil {
		t.Error(err)
	}
}

// TestMkfsRefusedLeavesNoTrace: what is refused is neither made nor grown.
func TestMkfsRefusedLeavesNoTrace(t *testing.T) {
	image := small(t)
	fails(t, 1, []string{"holds a btrfs volume", "-f"}, "mkfs", "--size", "300M", image)
	if fi, err := os.Stat(image); err != nil || fi.Size() != 256<<20 {
		t.Errorf("the image became %v long: %v", fi.Size(), err)
	}
	fresh := filepath.Join(t.TempDir(), "new.img")
	fails(t, 2, []string{"nonsense"}, "mkfs", "--size", "256M", "-d", "nonsense", fresh)
	fails(t, 2, []string{"fewer than"}, "mkfs", "--size", "1M", fresh)
	fails(t, 2, []string{"no size of a block"}, "mkfs", "--size", "256M", "-n", "4294983680", fresh)
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was left behind: %v", err)
	}
	disk := make([]byte, 1<<20)
	copy(disk[510:], "\x55\xaa")
	write(t, fresh, string(disk))
	fails(t, 1, []string{"partition table"}, "mkfs", "--size", "256M", fresh)
}

// TestRmRoot: rm -r / removes nothing.
func TestRmRoot(t *testing.T) {
	image := small(t)
	ok(t, "mkdir", image, "/dir")
	for _, p := range []string{"/", "/dir/..", "."} {
		fails(t, 1, []string{"not removed"}, "rm", "-r", "-f", image, "/dir", p)
	}
	if got := ok(t, "ls", image); got != "dir\n" {
		t.Errorf("what is left: %q", got)
	}
}
