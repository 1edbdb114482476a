package btrfs_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestReadLog: a volume that stopped uncleanly, opened read-only, shows what fsync promised, and is not changed.
func TestReadLog(t *testing.T) {
	for _, name := range []string{"log-tree", "log-tree-4k"} {
		image := testenv.Image(t, name)
		before, err := os.Stat(image)
		if err != nil {
			t.Fatal(err)
		}
		v, err := btrfs.Open(context.Background(), image, btrfs.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		top := v.Top()
		files := 0
		for _, e := range testenv.ReadManifest(t, name, "replayed").Entries {
			if e.Subvol != 5 || e.Type != "file" {
				continue
			}
			b, err := top.ReadFile(strings.TrimPrefix(e.Path, "/"))
			if err != nil {
				t.Error(err)
				continue
			}
			files++
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != e.SHA256 {
				t.Errorf("%s: %s differs", name, e.Path)
			}
		}
		t.Logf("%s: %d files", name, files)
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		after, err := os.Stat(image)
		if err != nil {
			t.Fatal(err)
		}
		if !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s was written", name)
		}
	}
}
