package volume

import (
	"context"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

func openImages(t *testing.T, paths []string) (*Volume, error) { return openBackup(t, paths, 0) }

// openBackup opens a volume by backup root n, from 1; 0 is the current one.
func openBackup(t *testing.T, paths []string, n int) (*Volume, error) {
	t.Helper()
	var devs []device.Device
	for _, p := range paths {
		d, err := device.OpenFile(p, device.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		devs = append(devs, d)
	}
	v, err := Open(context.Background(), devs, Options{ReadOnly: true, SuperCopy: -1, BackupRoot: n - 1})
	if err != nil {
		for _, d := range devs {
			d.Close()
		}
		return nil, err
	}
	t.Cleanup(func() { v.Close() })
	return v, nil
}

// refused are the volumes with features that are not supported.
var refused = map[string]bool{"exp-raid-stripe-tree": true, "exp-remap-tree": true}

// backup are the volumes whose current roots are lost.
var backup = map[string]int{"old-roots": 1}

// broken are the volumes whose trees cannot be read to the end.
var broken = map[string]bool{"bad-meta-both": true}

// TestCorpus reads every item of every tree of every volume of the corpus.
func TestCorpus(t *testing.T) {
	for _, name := range testenv.Names(t) {
		t.Run(name, func(t *testing.T) {
			v, err := openImages(t, testenv.ReadImages(t, name))
			if refused[name] {
				if err == nil {
					t.Error("opened a volume with unknown features")
				}
				return
			}
			if n := backup[name]; n > 0 {
				if err == nil {
					t.Error("opened though its roots are lost")
				}
				for ; err != nil && n <= 4; n++ {
					v, err = openBackup(t, testenv.ReadImages(t, name), n)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			n, err := readAll(v)
			if (err != nil) != broken[name] {
				t.Errorf("after %d items: %v", n, err)
			}
			if n < 20 {
				t.Errorf("only %d items", n)
			}
		})
	}
}

// readAll walks all trees and gives the number of items.
func readAll(v *Volume) (int, error) {
	ctx := context.Background()
	n := 0
	trees := []*btree.Tree{v.RootTree(), v.ChunkTree()}
	err := roots.All(ctx, v.RootTree(), func(k ondisk.Key, item ondisk.RootItem) error {
		if item.Refs == 0 && !item.DropProgress.IsZero() {
			return nil // pointers left of the progress lead nowhere
		}
		id := ondisk.TreeID(k.Objectid)
		trees = append(trees, v.TreeAt(id, item))
		return nil
	})
	if err != nil {
		return n, err
	}
	for _, t := range trees {
		c, err := t.Seek(ctx, ondisk.Key{})
		for ; err == nil && c.Valid(); err = c.Next(ctx) {
			n++
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
