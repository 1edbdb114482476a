package cleaner_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestFullVolume: a volume that the kernel filled to the last block, data and metadata, can still be emptied.
func TestFullVolume(t *testing.T) {
	testenv.NeedKernel(t)
	image := filepath.Join(testenv.Scratch(t), "full.img")
	testenv.MakeVolume(t, image, 112<<20, "-n", "4096", "-d", "single", "-m", "single")
	mnt := testenv.Mount(t, []string{image}, "max_inline=2048")
	rng := rand.New(rand.NewPCG(5, 5))
	names := []string{"s0"}
	testenv.Run(t, "btrfs", "subvolume", "create", filepath.Join(mnt, "s0"))
	for i := range 900 {
		write(t, filepath.Join(mnt, "s0", fmt.Sprintf("some-file-%05d", i)), rng)
	}
	for n := range 6 {
		name := fmt.Sprintf("s%d", n+1)
		testenv.Run(t, "btrfs", "subvolume", "snapshot", filepath.Join(mnt, "s0"), filepath.Join(mnt, name))
		names = append(names, name)
		for i := range 250 {
			os.Chmod(filepath.Join(mnt, names[rng.IntN(len(names))], fmt.Sprintf("some-file-%05d", (i*7+n)%900)), 0o600)
		}
	}
	fill(t, mnt, 1<<20, 0)
	// Inline files fill metadata; while they wait to be written they need room for data.
	for _, name := range glob(t, filepath.Join(mnt, "fill*", "[0-9]")) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, "sync", "-f", mnt)
	fill(t, mnt, 2000, 200)
	testenv.Run(t, "sync", "-f", mnt)
	fill(t, mnt, 2000, 1)
	fill(t, mnt, 1<<20, 1)
	t.Log(testenv.Run(t, "btrfs", "filesystem", "df", "-b", mnt))
	testenv.Umount(t, mnt)

	r := weDrop(t, image, names[:5], cleaner.Options{})
	t.Logf("%+v", r)
	testenv.Check(t, image)
	if r.RootsDone != 5 {
		t.Errorf("%d of 5 trees done", r.RootsDone)
	}
	r = weDrop(t, image, names[5:], cleaner.Options{})
	testenv.Check(t, image)
	if r.DataFreed < 900*4096 {
		t.Errorf("only %d bytes of data freed", r.DataFreed)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// fill writes files until there is no space. It syncs after each sync of them; 0: never.
func fill(t *testing.T, mnt string, size, sync int) {
	t.Helper()
	dir, err := os.MkdirTemp(mnt, "fill")
	if errors.Is(err, syscall.ENOSPC) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, size)
	for i := range 1 << 20 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err == nil {
			_, err = f.Write(data)
			if err == nil && sync > 0 && i%sync == 0 {
				err = f.Sync()
			}
			err = errors.Join(err, f.Close())
		}
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil && !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
}
