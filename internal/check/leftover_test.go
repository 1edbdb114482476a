package check_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestFresh: nothing is wrong with what mkfs.btrfs makes, though many versions leave free space of block groups that they
// removed: with RAID1 of the data, of three.
func TestFresh(t *testing.T) {
	testenv.NeedProgs(t)
	dir := testenv.Scratch(t)
	two := []string{filepath.Join(dir, "1"), filepath.Join(dir, "2")}
	for _, name := range two {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, 400<<20); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, "mkfs.btrfs", append([]string{"-q", "-f", "-m", "raid1", "-d", "raid1"}, two...)...)
	if r := judge(t, two...); !r.OK() {
		t.Errorf("%d errors: %v", r.Errors, r.Findings)
	}
}
