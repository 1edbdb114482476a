package fstree

import (
	"context"
	"io/fs"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// PathOf gives the path of an inode from the root directory of its subvolume, by
// one of its names; "" is the root directory.
func PathOf(ctx context.Context, t *btree.Tree, ino uint64) (string, error) {
	var parts []string
	for range maxDepth {
		if ino == ondisk.FirstFreeObjectid {
			for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
				parts[i], parts[j] = parts[j], parts[i]
			}
			return strings.Join(parts, "/"), nil
		}
		links, err := Links(ctx, t, ino)
		if err != nil {
			return "", err
		}
		if len(links) == 0 {
			return "", place(t, ino, fs.ErrNotExist)
		}
		parts = append(parts, string(links[0].Name))
		ino = links[0].Parent
	}
	return "", place(t, ino, &ondisk.CorruptError{What: "inode ref", Tree: t.ID(), Slot: -1, Reason: "directories lie in a circle", Got: ino})
}
