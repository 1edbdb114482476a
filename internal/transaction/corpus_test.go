package transaction_test

import (
	"context"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// writable tells whether a volume of the corpus takes changes, and is sound before.
func writable(t *testing.T, name string) bool {
	t.Helper()
	paths := testenv.Images(t, name)
	defer func() {
		for _, p := range paths {
			os.Remove(p)
		}
	}()
	var devs []device.Device
	for _, p := range paths {
		d, err := device.OpenFile(p, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		devs = append(devs, d)
	}
	ctx := context.Background()
	v, err := volume.Open(ctx, devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		return false
	}
	if _, err = transaction.Open(ctx, v, transaction.Options{}); err != nil {
		return false
	}
	_, ok := testenv.TryCheck(t, paths...)
	return ok
}

// TestCorpus does random work on every volume of the corpus that takes changes; btrfs check judges it, the kernel
// goes on with it, and btrfs check judges that.
func TestCorpus(t *testing.T) {
	if os.Getenv("GOBTRFS_ROUNDS") == "" {
		t.Skip("a minute long: set GOBTRFS_ROUNDS")
	}
	seed := testenv.Seed(t, 1)
	unfit := map[string]string{
		"orphans":  "a snapshot must not keep orphans; those who make snapshots clean them",
		"node-64k": "too small for the space that a snapshot asks for",
	}
	for _, name := range testenv.Names(t) {
		t.Run(name, func(t *testing.T) {
			if unfit[name] != "" {
				t.Skip(unfit[name])
			}
			if !writable(t, name) {
				t.Skip("not writable, or not sound")
			}
			w := newWorld(t, name, seed)
			for range testenv.Rounds(60) {
				w.step()
			}
			small := w.v.Sectorsize() == 4096
			w.close()
			testenv.Check(t, w.paths...)
			if !small {
				return // more than the kernel can mount here
			}
			dir := testenv.Mount(t, w.paths)
			if err := os.WriteFile(dir+"/kernel-was-here", make([]byte, 100000), 0o644); err != nil {
				t.Error(err)
			}
			testenv.Umount(t, dir)
			testenv.Check(t, w.paths...)
		})
	}
}
