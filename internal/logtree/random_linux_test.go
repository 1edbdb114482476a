package logtree_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestLikeKernel lets Linux do random work with fsync in between, takes a copy of the volume as a crash would leave it,
// and compares what the kernel makes of one copy with what this package makes of another.
//
// It runs only with GOBTRFS_ROUNDS set: Linux 6.18 has been seen to stop at a BUG of its own while it replayed such a
// log, and then other tests hang on the same machine. The corpus has logs with what the kernel made of them.
func TestLikeKernel(t *testing.T) {
	if os.Getenv("GOBTRFS_ROUNDS") == "" {
		t.Skip("the kernel's replay may crash the kernel: set GOBTRFS_ROUNDS")
	}
	testenv.NeedKernel(t)
	seed := testenv.Seed(t, 1)
	for round := range testenv.Rounds(4) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), uint64(round)))
			dir := testenv.Scratch(t)
			image := filepath.Join(dir, "a.img")
			args := [][]string{{}, {"-n", "4096"}, {"-O", "^no-holes"}}[round%3]
			testenv.MakeVolume(t, image, 256<<20, args...)
			mnt := testenv.Mount(t, []string{image})
			w := &work{t: t, rng: rng, root: mnt}
			for range 60 {
				w.step()
			}
			testenv.Run(t, "sync", "-f", mnt)
			for range 25 {
				w.step()
				if rng.IntN(3) == 0 {
					w.fsync()
				}
			}
			w.fsync()
			crashed, ours := filepath.Join(dir, "kernel.img"), filepath.Join(dir, "ours.img")
			testenv.Run(t, "cp", "--sparse=always", image, crashed)
			testenv.Run(t, "cp", "--sparse=always", image, ours)
			testenv.Umount(t, mnt)

			mnt = testenv.Mount(t, []string{crashed})
			testenv.Umount(t, mnt)
			mnt = testenv.Mount(t, []string{crashed}, "ro")
			want := list(t, mnt)
			testenv.Umount(t, mnt)

			if !replay(t, ours) {
				t.Log("there was no log")
			}
			testenv.Check(t, ours)
			mnt = testenv.Mount(t, []string{ours}, "ro")
			got := list(t, mnt)
			testenv.Umount(t, mnt)
			diff(t, want, got)
			if t.Failed() {
				t.Logf("work: %v", w.done)
			}
		})
	}
}

// work is random work on a mounted volume.
type work struct {
	t     *testing.T
	rng   *rand.Rand
	root  string
	dirs  []string
	files []string
	n     int
	done  []string
}

func (w *work) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *work) dir() string {
	if len(w.dirs) == 0 || w.rng.IntN(3) == 0 {
		return w.root
	}
	return w.dirs[w.rng.IntN(len(w.dirs))]
}

func (w *work) fresh() string {
	w.n++
	return filepath.Join(w.dir(), fmt.Sprintf("n%d", w.n))
}

func (w *work) note(what string, paths ...string) {
	for i := range paths {
		paths[i], _ = filepath.Rel(w.root, paths[i])
	}
	w.done = append(w.done, fmt.Sprint(what, paths))
}

// fsync makes a file or a directory durable.
func (w *work) fsync() {
	p := w.dir()
	if len(w.files) > 0 && w.rng.IntN(4) > 0 {
		p = w.files[w.rng.IntN(len(w.files))]
	}
	f, err := os.Open(p)
	w.must(err)
	w.must(f.Sync())
	w.must(f.Close())
	w.note("fsync", p)
}

func (w *work) step() {
	if len(w.files) == 0 {
		w.create()
		return
	}
	i := w.rng.IntN(len(w.files))
	p := w.files[i]
	switch w.rng.IntN(12) {
	case 0, 1, 2:
		w.create()
	case 3:
		d := w.fresh()
		w.must(os.Mkdir(d, 0o755))
		w.dirs = append(w.dirs, d)
		w.note("mkdir", d)
	case 4:
		to := w.fresh()
		w.must(os.Rename(p, to))
		w.files[i] = to
		w.note("rename", p, to)
	case 5:
		to := w.fresh()
		w.must(os.Link(p, to))
		w.files = append(w.files, to)
		w.note("link", p, to)
	case 6:
		w.must(os.Remove(p))
		w.files = append(w.files[:i], w.files[i+1:]...)
		w.note("unlink", p)
	case 7:
		w.must(os.Truncate(p, w.rng.Int64N(50000)))
		w.note("truncate", p)
	case 8:
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		w.must(err)
		w.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|[]uint32{0, unix.FALLOC_FL_PUNCH_HOLE}[w.rng.IntN(2)], w.rng.Int64N(20)*1000, 1+w.rng.Int64N(20000)))
		w.must(f.Close())
		w.note("fallocate", p)
	case 9:
		w.must(unix.Setxattr(p, fmt.Sprintf("user.x%d", w.rng.IntN(3)), []byte(fmt.Sprint(w.rng.IntN(100))), 0))
		w.note("setxattr", p)
	case 10:
		if err := unix.Removexattr(p, fmt.Sprintf("user.x%d", w.rng.IntN(3))); err != nil && err != unix.ENODATA {
			w.must(err)
		}
		w.note("removexattr", p)
	case 11: // the name of another file
		j := w.rng.IntN(len(w.files))
		if j == i {
			return
		}
		w.must(unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, w.files[j], unix.RENAME_EXCHANGE))
		w.note("exchange", p, w.files[j])
	}
	if len(w.files) > 0 {
		w.write(w.files[w.rng.IntN(len(w.files))])
	}
}

func (w *work) create() {
	p := w.fresh()
	f, err := os.Create(p)
	w.must(err)
	w.must(f.Close())
	w.files = append(w.files, p)
	w.note("create", p)
	w.write(p)
}

func (w *work) write(p string) {
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return
	}
	w.must(err)
	b := make([]byte, 1+w.rng.IntN(20000))
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	_, err = f.WriteAt(b, w.rng.Int64N(30000))
	w.must(err)
	w.must(f.Close())
	w.note("write", p)
}
