package roots

import (
	"context"
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// defaultKey is where directory 6 of the root tree has its entry "default";
// the offset is the hash of that name (FORMAT: hashes).
func defaultKey() ondisk.Key {
	return ondisk.Key{Objectid: ondisk.RootDirObjectid, Type: ondisk.TypeDirItem, Offset: 2378154706}
}

// Default gives the subvolume that a mount without options shows; the top-level
// one when nothing is said.
func Default(ctx context.Context, rt *btree.Tree) (ondisk.TreeID, error) {
	b, err := rt.Get(ctx, defaultKey())
	if errors.Is(err, fs.ErrNotExist) {
		return ondisk.FSTree, nil
	}
	if err != nil {
		return 0, err
	}
	entries, err := ondisk.DecodeDirEntries(b)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if string(e.Name) == "default" {
			return ondisk.TreeID(e.Location.Objectid), nil
		}
	}
	return ondisk.FSTree, nil
}

// SetDefault sets the subvolume that a mount without options shows. Who calls it
// sets the feature bit DEFAULT_SUBVOL.
func SetDefault(ctx context.Context, rt *btree.Tree, id ondisk.TreeID) error {
	loc := ondisk.Key{Objectid: uint64(id), Type: ondisk.TypeRootItem, Offset: ^uint64(0)}
	b := ondisk.AppendDirEntry(nil, ondisk.DirEntry{Location: loc, Type: ondisk.FTDir, Name: []byte("default")})
	return rt.Put(ctx, defaultKey(), b)
}
