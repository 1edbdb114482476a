package transaction_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestParity does random work on RAID5 and RAID6 volumes; then the kernel must be able to read all of it while devices are
// missing. (btrfs check of btrfs-progs 6.14 is no judge here: it misreads some units of RAID5 when it rebuilds them.)
func TestParity(t *testing.T) {
	testenv.NeedKernel(t)
	seed := testenv.Seed(t, 2)
	for name, missing := range map[string][][2]int{
		"prof-raid5": {{0, 0}, {1, 1}, {2, 2}, {3, 3}},
		"prof-raid6": {{0, 1}, {2, 3}, {3, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, name, seed)
			for range testenv.Rounds(150) {
				w.step()
			}
			w.close()
			all := readBytes(t, w.paths)
			for _, m := range missing {
				t.Run(fmt.Sprintf("without %d and %d", m[0], m[1]), func(t *testing.T) {
					var paths []string
					for i, p := range w.paths {
						if i != m[0] && i != m[1] {
							paths = append(paths, p)
						}
					}
					if got := readBytes(t, paths, "ro", "degraded"); got != all {
						t.Errorf("%d bytes could be read, %d with all devices", got, all)
					}
				})
			}
		})
	}
}

// readBytes reads every file through the kernel, which verifies it, and returns how many bytes that were.
func readBytes(t *testing.T, paths []string, opts ...string) (total int64) {
	t.Helper()
	dir := testenv.Mount(t, paths, append(opts, "subvolid=5")...)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		total += int64(len(b))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	testenv.Umount(t, dir)
	return total
}
