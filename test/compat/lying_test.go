package compat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// liar is a device that says it read well and gives garbage, everywhere but in its superblocks.
type liar struct{ device.Device }

func (l liar) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.Device.ReadAt(p, off)
	for i := range p[:n] {
		if at := uint64(off) + uint64(i); !inSuper(at) {
			p[i] = byte(at * 0x9e3779b97f4a7c15 >> 56)
		}
	}
	return n, err
}

func inSuper(at uint64) bool {
	for i := range ondisk.SuperCopies {
		if start := ondisk.SuperOffset(i); at >= start && at < start+ondisk.SuperSize {
			return true
		}
	}
	return false
}

// What a device of a volume does.
const (
	good = iota
	missing
	lying
)

var does = []string{"good", "missing", "lying"}

// states gives every way in which n devices, up to most of them, are missing or lie; of three that fail all do the same.
func states(n, most int, fn func(devs []int)) {
	devs := make([]int, n)
	var at func(i, left int)
	at = func(i, left int) {
		if i == n {
			if most-left < 3 || !slices.Contains(devs, missing) || !slices.Contains(devs, lying) {
				fn(devs)
			}
			return
		}
		for _, s := range []int{good, missing, lying} {
			if devs[i] = s; s == good {
				at(i+1, left)
			} else if left > 0 {
				at(i+1, left-1)
			}
		}
		devs[i] = good
	}
	at(0, most)
}

// openState opens a volume whose devices are in a state.
func openState(t *testing.T, paths []string, state []int) (*btrfs.Volume, error) {
	t.Helper()
	var devs []device.Device
	for i, p := range paths {
		if state[i] == missing {
			continue
		}
		d := openFiles(t, []string{p}, true)[0]
		if state[i] == lying {
			d = liar{d}
		}
		devs = append(devs, d)
	}
	v, err := btrfs.OpenDevices(ctx, devs, btrfs.Options{ReadOnly: true})
	if err != nil {
		closeAll(devs)
	}
	return v, err
}

// tolerant are volumes of the corpus whose data and metadata have one profile, and how many devices that may lose.
var tolerant = []struct {
	image string
	most  int
}{
	{"prof-raid1", 1}, {"prof-raid1c3", 2}, {"prof-raid1c4", 3}, {"prof-raid10", 1}, {"prof-raid5", 1}, {"prof-raid6", 2}, {"prof-raid56-mixed", 2},
}

// TestDevices: whichever devices are missing, or give garbage for everything but their superblocks, or some of them
// this and others that: as long as they are no more than the profile may lose, every file is what the kernel read. The
// short run reads a third of the files in each state; GOBTRFS_ROUNDS=all reads all.
func TestDevices(t *testing.T) {
	for _, c := range tolerant {
		t.Run(c.image, func(t *testing.T) {
			t.Parallel()
			paths, m := testenv.ReadImages(t, c.image), testenv.ReadManifest(t, c.image, "")
			tried := 0
			states(len(paths), c.most, func(devs []int) {
				tried++
				t.Run(name(devs), func(t *testing.T) {
					v, err := openState(t, paths, devs)
					must(t, err)
					defer v.Close()
					same(t, v, part(m, tried))
				})
			})
			t.Logf("%d states of %d devices", tried, len(paths))
		})
	}
}

// part is a manifest with a third of the entries, another third for each n.
func part(m *testenv.Manifest, n int) *testenv.Manifest {
	if os.Getenv("GOBTRFS_ROUNDS") == "all" {
		return m
	}
	some := *m
	some.Entries = nil
	for i := n % 3; i < len(m.Entries); i += 3 {
		some.Entries = append(some.Entries, m.Entries[i])
	}
	return &some
}

func name(devs []int) string {
	var words []string
	for i, s := range devs {
		if s != good {
			words = append(words, fmt.Sprintf("%d %s", i+1, does[s]))
		}
	}
	if words == nil {
		return "all good"
	}
	return strings.Join(words, ", ")
}

// TestTooMany: when one device more than the profile may lose lies, what is lost is an error; nothing is ever read as
// something else.
func TestTooMany(t *testing.T) {
	for _, c := range append(tolerant, []struct {
		image string
		most  int
	}{{"prof-single", 0}, {"prof-dup", 0}, {"prof-raid0", 0}}...) {
		t.Run(c.image, func(t *testing.T) {
			t.Parallel()
			paths, m := testenv.ReadImages(t, c.image), testenv.ReadManifest(t, c.image, "")
			lost := 0
			for first := range len(paths) {
				devs := make([]int, len(paths))
				for i := range c.most + 1 {
					devs[(first+i)%len(devs)] = lying
				}
				v, err := openState(t, paths, devs)
				if err != nil {
					lost++
					continue
				}
				entries(v, m, func(where string, err error) {
					if errors.Is(err, errDiffers) {
						t.Errorf("%s: %s %v", name(devs), where, err)
					} else if err != nil {
						lost++
					}
				})
				v.Close()
			}
			if lost == 0 {
				t.Error("nothing was lost: the test tests nothing")
			}
		})
	}
}
