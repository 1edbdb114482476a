package history

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestHistories: random histories, gobtrfs and the kernel in turn; after every
// turn both judges and all contents are asked.
func TestHistories(t *testing.T) {
	for i, args := range [][]string{
		{"-n", "4096"}, {"-n", "16384"}, {"--csum", "xxhash"}, {"-n", "4096", "--csum", "sha256"}, {"--csum", "blake2", "-O", "^no-holes"},
		{"-M", "-n", "4096"}, {"-m", "single", "-O", "^free-space-tree,^block-group-tree"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			testenv.NeedKernel(t)
			seed := testenv.Seed(t, int64(7+i))
			image := filepath.Join(testenv.Scratch(t), "history.img")
			testenv.MakeVolume(t, image, 512<<20, args...)
			p := &player{w: &world{subs: map[string]*subvolume{}}, rnd: rand.New(rand.NewPCG(uint64(seed), 1))}
			for turn := range testenv.Rounds(3) {
				play(t, p, image, turn%2 == 1)
			}
		})
	}
}

const stepsPerTurn = 250

// play lets gobtrfs or the kernel do a turn, and then asks everybody.
func play(t *testing.T, p *player, image string, byKernel bool) {
	t.Helper()
	p.note("-- turn, by the kernel: %v", byKernel)
	var err error
	if byKernel {
		dir := testenv.Mount(t, []string{image})
		p.t = kernel{dir}
		err = p.steps(stepsPerTurn)
		testenv.Umount(t, dir)
	} else {
		err = withOurs(image, false, func(v *btrfs.Volume) error {
			p.t = ours{v}
			return p.steps(stepsPerTurn)
		})
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, p.tail())
	}
	testenv.Check(t, image)
	err = withOurs(image, true, func(v *btrfs.Volume) error {
		rep, err := v.Check(context.Background(), btrfs.CheckOptions{Data: true})
		if err != nil {
			return err
		}
		if !rep.OK() {
			return fmt.Errorf("gobtrfs check: %v", rep.Findings)
		}
		return compareFS(v.Top(), p.w, func(name, attr string) ([]byte, error) { return v.Top().Xattr(name, attr) })
	})
	if err != nil {
		t.Fatalf("ours: %v\n%s", err, p.tail())
	}
	dir := testenv.Mount(t, []string{image}, "ro")
	err = compareFS(kernelFS{dir}, p.w, func(name, attr string) ([]byte, error) {
		b := make([]byte, 4096)
		n, err := unix.Lgetxattr(filepath.Join(dir, name), attr, b)
		return b[:max(n, 0)], err
	})
	testenv.Umount(t, dir)
	if err != nil {
		t.Fatalf("kernel: %v\n%s", err, p.tail())
	}
}

func (p *player) steps(n int) error {
	for range n {
		if err := p.step(); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) tail() string { return strings.Join(p.log[max(0, len(p.log)-25):], "\n") }

func withOurs(image string, readonly bool, fn func(v *btrfs.Volume) error) error {
	v, err := btrfs.Open(context.Background(), image, btrfs.Options{ReadOnly: readonly})
	if err != nil {
		return err
	}
	err = fn(v)
	if cerr := v.Close(); err == nil {
		err = cerr
	}
	return err
}

// kernelFS reads a mounted volume.
type kernelFS struct{ dir string }

func (k kernelFS) at(name string) string { return filepath.Join(k.dir, name) }

func (k kernelFS) Open(name string) (fs.File, error)          { return os.Open(k.at(name)) }
func (k kernelFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(k.at(name)) }
func (k kernelFS) ReadFile(name string) ([]byte, error)       { return os.ReadFile(k.at(name)) }
func (k kernelFS) ReadLink(name string) (string, error)       { return os.Readlink(k.at(name)) }
func (k kernelFS) Lstat(name string) (fs.FileInfo, error)     { return os.Lstat(k.at(name)) }

type lookFS interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.ReadLinkFS
}

// compareFS compares all subvolumes with the model.
func compareFS(f lookFS, w *world, xattr func(name, attr string) ([]byte, error)) error {
	top, err := f.ReadDir(".")
	if err != nil {
		return err
	}
	if len(top) != len(w.subs) {
		return fmt.Errorf("%d subvolumes, want %d", len(top), len(w.subs))
	}
	for name, s := range w.subs {
		if err := compareDir(f, name, s.root, xattr); err != nil {
			return err
		}
	}
	return nil
}

func compareDir(f lookFS, name string, dir *file, xattr func(name, attr string) ([]byte, error)) error {
	list, err := f.ReadDir(name)
	if err != nil {
		return err
	}
	if len(list) != len(dir.entries) {
		return fmt.Errorf("%s: %d entries, want %d", name, len(list), len(dir.entries))
	}
	for n, want := range dir.entries {
		if err := compareFile(f, name+"/"+n, want, xattr); err != nil {
			return err
		}
	}
	return nil
}

func compareFile(f lookFS, name string, want *file, xattr func(name, attr string) ([]byte, error)) error {
	fi, err := f.Lstat(name)
	if err != nil {
		return err
	}
	for attr, value := range want.xattrs {
		got, err := xattr(name, attr)
		if err != nil || string(got) != value {
			return fmt.Errorf("%s: xattr %s: %d bytes, want %d: %v", name, attr, len(got), len(value), err)
		}
	}
	switch want.kind {
	case 'd':
		if !fi.IsDir() || uint32(fi.Mode().Perm()) != want.mode {
			return fmt.Errorf("%s: %v, want a directory %o", name, fi.Mode(), want.mode)
		}
		return compareDir(f, name, want, xattr)
	case 'l':
		got, err := f.ReadLink(name)
		if err != nil || got != want.target {
			return fmt.Errorf("%s: target %q, want %q: %v", name, got, want.target, err)
		}
		return nil
	}
	if !fi.Mode().IsRegular() || uint32(fi.Mode().Perm()) != want.mode || fi.Size() != int64(len(want.data)) {
		return fmt.Errorf("%s: %v, %d bytes, want %o, %d bytes", name, fi.Mode(), fi.Size(), want.mode, len(want.data))
	}
	got, err := f.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want.data) {
		for i := range got {
			if got[i] != want.data[i] {
				return fmt.Errorf("%s: byte %d of %d differs", name, i, len(got))
			}
		}
	}
	return nil
}
