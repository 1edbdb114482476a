package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestSuperRecover: bad copies are written anew, and btrfs check has nothing to say.
func TestSuperRecover(t *testing.T) {
	for name, word := range map[string]string{"bad-super-primary": "copy 1", "bad-super-backup": "copy 2"} {
		t.Run(name, func(t *testing.T) {
			image := testenv.Image(t, name)
			before, err := os.ReadFile(image)
			must(t, err)
			fails(t, 1, []string{"nothing was changed"}, "rescue", "super-recover", image)
			after, err := os.ReadFile(image)
			must(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the volume was changed without a yes")
			}
			if out := ok(t, "rescue", "super-recover", "-y", image); !strings.Contains(out, word) {
				t.Errorf("it says %q", out)
			}
			if out := ok(t, "rescue", "super-recover", image); !strings.Contains(out, "nothing to do") {
				t.Errorf("the second time it says %q", out)
			}
			ok(t, "check", "--super", "1", image)
			ok(t, "check", "--super", "2", image)
			testenv.NeedProgs(t)
			testenv.Check(t, image)
		})
	}
}

// TestSuperRecoverStale: a device that missed commits is brought up to date: every
// copy is good, and it can serve alone.
func TestSuperRecoverStale(t *testing.T) {
	images := testenv.Images(t, "stale-raid1")
	both := strings.Join(images, ",")
	if out := ok(t, "rescue", "super-recover", "-y", both); !strings.Contains(out, "generation 9") {
		t.Errorf("it says %q", out)
	}
	ok(t, "check", "--data", both)
	dir := filepath.Join(testenv.Scratch(t), "out")
	ok(t, "restore", "-q", images[1], dir)
	if n := sameFiles(t, testenv.ReadManifest(t, "stale-raid1", ""), dir); n < 50 {
		t.Errorf("only %d files were compared", n)
	}
	testenv.NeedProgs(t)
	testenv.Check(t, images...)
}

// TestSuperRecoverRefuses: without a good copy nothing is written.
func TestSuperRecoverRefuses(t *testing.T) {
	image := testenv.Image(t, "bad-super-primary")
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 64<<20)
	must(t, err)
	must(t, f.Close())
	fails(t, 1, []string{"no valid superblock"}, "rescue", "super-recover", "-y", image)
}
