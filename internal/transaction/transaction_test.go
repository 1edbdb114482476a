package transaction_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// refused are volumes that take no changes, and a word of the reason.
var refused = map[string]string{"old-roots": "root tree", "replace-interrupted": "replacement", "balance-interrupted": "balance"}

// TestRandom does random work on volumes of many kinds, and lets btrfs check judge. With GOBTRFS_ROUNDS set it takes
// every volume of the corpus that can be written.
func TestRandom(t *testing.T) {
	seed := testenv.Seed(t, 1)
	names := []string{"default", "default-old", "node-4k", "node-64k", "no-skinny", "fst-bitmaps", "fst-no-bgt", "mixed", "space-cache-v1", "old-roots",
		"snap30", "full-backrefs", "balanced", "quota", "metadata-uuid", "csum-blake2", "replace-interrupted", "balance-interrupted", "prof-raid10", "prof-raid1c3", "prof-uneven", "half-drop"}
	if os.Getenv("GOBTRFS_ROUNDS") != "" {
		names = testenv.Names(t)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			why, word := unwritable(t, name), refused[name]
			switch {
			case word != "" && strings.Contains(why, word):
				return
			case word != "":
				t.Fatalf("refused with %q, want %q", why, word)
			case why != "" && os.Getenv("GOBTRFS_ROUNDS") != "":
				t.Skip(why)
			case why != "":
				t.Fatal(why)
			}
			w := newWorld(t, name, seed)
			before, clean := testenv.TryCheck(t, w.paths...)
			for range testenv.Rounds(100) {
				w.step()
			}
			t.Logf("%d commits, %d subvolumes, %+v", w.m.Commits(), len(w.subs), w.m.Stats())
			w.close()
			after, ok := testenv.TryCheck(t, w.paths...)
			// A snapshot of orphans is an error to btrfs check's original mode, though not to its lowmem mode.
			if clean && !ok && name != "orphans" {
				t.Errorf("check was content before; now it says:\n%s", after)
			}
			if !clean {
				t.Logf("check was not content before:\n%s\nnow:\n%s", before, after)
			}
		})
	}
}

// unwritable tells why a volume cannot be opened for writing, "" if it can.
func unwritable(t *testing.T, name string) string {
	var devs []device.Device
	for _, p := range testenv.Images(t, name) {
		d, err := device.OpenFile(p, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		devs = append(devs, d)
	}
	v, err := volume.Open(context.Background(), devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		return err.Error()
	}
	if err := v.WriteProblem(); err != nil {
		return err.Error()
	}
	if _, err := transaction.Open(context.Background(), v, transaction.Options{}); err != nil {
		return err.Error()
	}
	return ""
}
