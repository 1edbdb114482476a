package btrfs

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// UUID is a 16-byte identifier.
type UUID = ondisk.UUID

// SubvolumeInfo tells about a subvolume.
type SubvolumeInfo struct {
	ID               uint64
	Parent           uint64 // id of the subvolume that holds it; 0 for the top
	Path             string // from the top-level subvolume; "" when deleted
	ReadOnly         bool
	Generation       uint64
	OriginGeneration uint64 // when it was made
	Created          time.Time
	UUID             UUID
	ParentUUID       UUID // of the subvolume that it is a snapshot of
	ReceivedUUID     UUID
	Deleted          bool // unlinked, not wholly dropped yet
	HalfDropped      bool
}

func infoOf(s subvol.Info) SubvolumeInfo {
	return SubvolumeInfo{
		ID: uint64(s.ID), Parent: uint64(s.Parent), Path: s.Path,
		ReadOnly:   s.Item.Flags&ondisk.RootFlagReadonly != 0,
		Generation: uint64(s.Item.Generation), OriginGeneration: uint64(s.Item.Otransid), Created: timeOf(s.Item.Otime),
		UUID: s.Item.UUID, ParentUUID: s.Item.ParentUUID, ReceivedUUID: s.Item.ReceivedUUID,
		Deleted: s.Deleted, HalfDropped: s.Deleted && !s.Item.DropProgress.IsZero(),
	}
}

// Subvolumes lists all subvolumes, the top-level one and deleted ones that are
// not dropped yet included, in the order of their ids.
func (v *Volume) Subvolumes(ctx context.Context) ([]SubvolumeInfo, error) {
	var out []SubvolumeInfo
	err := v.view(func(tree treeFunc) error {
		list, err := subvol.List(ctx, subvol.Trees(tree))
		for _, s := range list {
			out = append(out, infoOf(s))
		}
		return err
	})
	return out, err
}

// locate gives the directory and id of the subvolume at an absolute path.
func (v *Volume) locate(ctx context.Context, w *walker, p string) (node, error) {
	n, err := w.find(ctx, v.Top().top, strings.TrimPrefix(p, "/"), true)
	if err != nil {
		return node{}, pathErr("open", p, err)
	}
	if n.ino != rootIno || n.stub {
		return node{}, pathErr("open", p, ErrNotSubvolume)
	}
	return n, nil
}

func (v *Volume) walker(tree treeFunc) *walker { return &walker{tree: tree, root: v.Top().top} }

// Subvolume gives the subvolume at an absolute path.
func (v *Volume) Subvolume(ctx context.Context, p string) (*Subvolume, error) {
	var n node
	err := v.view(func(tree treeFunc) error {
		var err error
		n, err = v.locate(ctx, v.walker(tree), p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Subvolume{v: v, top: n}, nil
}

// SubvolumeByID gives the subvolume with an id, also one that no path leads to.
func (v *Volume) SubvolumeByID(ctx context.Context, id uint64) (*Subvolume, error) {
	tid := ondisk.TreeID(id)
	if !tid.IsSubvolume() {
		return nil, fmt.Errorf("subvolume %d: %w", id, ErrNotSubvolume)
	}
	err := v.view(func(tree treeFunc) error {
		_, err := tree(ctx, tid)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Subvolume{v: v, top: node{sub: tid, ino: rootIno}}, nil
}

// SubvolumeInfo tells about the subvolume at an absolute path.
func (v *Volume) SubvolumeInfo(ctx context.Context, p string) (SubvolumeInfo, error) {
	s, err := v.Subvolume(ctx, p)
	if err != nil {
		return SubvolumeInfo{}, err
	}
	return v.infoByID(ctx, s.top.sub)
}

func (v *Volume) infoByID(ctx context.Context, id ondisk.TreeID) (SubvolumeInfo, error) {
	list, err := v.Subvolumes(ctx)
	if err != nil {
		return SubvolumeInfo{}, err
	}
	for _, s := range list {
		if s.ID == uint64(id) {
			return s, nil
		}
	}
	return SubvolumeInfo{}, fmt.Errorf("subvolume %d: %w", id, fs.ErrNotExist)
}

var needSubvolume = transaction.Need{Items: 24}

// place resolves the directory that a new subvolume goes into.
func (v *Volume) place(ctx context.Context, tx *transaction.Tx, p string) (node, string, error) {
	w := v.walker(tx.Tree)
	dir, base, err := w.findParent(ctx, v.Top().top, strings.TrimPrefix(path.Clean("/"+p), "/"))
	if err != nil {
		return node{}, "", pathErr("create", p, err)
	}
	if _, err := writable(ctx, tx, dir.sub); err != nil {
		return node{}, "", pathErr("create", p, err)
	}
	return dir, base, nil
}

// CreateSubvolume makes an empty subvolume at an absolute path.
func (v *Volume) CreateSubvolume(ctx context.Context, p string) (*Subvolume, error) {
	var id ondisk.TreeID
	err := v.change(ctx, needSubvolume, func(tx *transaction.Tx) error {
		dir, base, err := v.place(ctx, tx, p)
		if err != nil {
			return err
		}
		id, err = subvol.Create(ctx, tx, dir.sub, dir.ino, []byte(base))
		return pathErr("create", p, err)
	})
	if err != nil {
		return nil, err
	}
	return &Subvolume{v: v, top: node{sub: id, ino: rootIno}}, nil
}

// Snapshot takes a snapshot of the subvolume at src and puts it at dst.
func (v *Volume) Snapshot(ctx context.Context, src, dst string, readonly bool) (*Subvolume, error) {
	if err := v.files.flushAll(ctx); err != nil {
		return nil, err
	}
	var id ondisk.TreeID
	err := v.change(ctx, needSubvolume, func(tx *transaction.Tx) error {
		from, err := v.locate(ctx, v.walker(tx.Tree), src)
		if err != nil {
			return err
		}
		dir, base, err := v.place(ctx, tx, dst)
		if err != nil {
			return err
		}
		id, err = subvol.Snapshot(ctx, tx, from.sub, dir.sub, dir.ino, []byte(base), readonly)
		return pathErr("snapshot", dst, err)
	})
	if err != nil {
		return nil, err
	}
	// Files that are open without a name in src are nothing to the snapshot.
	if err := filedata.CleanOrphans(ctx, v.mgr, id); err != nil {
		return nil, pathErr("snapshot", dst, err)
	}
	return &Subvolume{v: v, top: node{sub: id, ino: rootIno}}, nil
}

// UndeleteSubvolume takes back the deletion of the subvolume with an id and puts it at
// dst. Nothing of it may have been dropped yet: not by Drop, and not by the kernel,
// which begins soon after it has mounted the volume for writing.
func (v *Volume) UndeleteSubvolume(ctx context.Context, id uint64, dst string) (*Subvolume, error) {
	if !v.dropping.TryLock() {
		return nil, pathErr("undelete", dst, subvol.ErrDropping)
	}
	defer v.dropping.Unlock()
	tid := ondisk.TreeID(id)
	readonly := false
	err := v.change(ctx, needSubvolume, func(tx *transaction.Tx) error {
		dir, base, err := v.place(ctx, tx, dst)
		if err != nil {
			return err
		}
		if err := subvol.Undelete(ctx, tx, tid, dir.sub, dir.ino, []byte(base)); err != nil {
			return pathErr("undelete", dst, err)
		}
		item, _, err := tx.RootItem(ctx, tid)
		readonly = err == nil && item.Flags&ondisk.RootFlagReadonly != 0
		return err
	})
	if err != nil {
		return nil, err
	}
	if !readonly { // files that were open without a name when it was deleted
		if err := filedata.CleanOrphans(ctx, v.mgr, tid); err != nil {
			return nil, pathErr("undelete", dst, err)
		}
	}
	return &Subvolume{v: v, top: node{sub: tid, ino: rootIno}}, nil
}

// SetReadOnly makes the subvolume at p read-only or writable.
func (v *Volume) SetReadOnly(ctx context.Context, p string, readonly bool) error {
	if err := v.Commit(ctx); err != nil {
		return err
	}
	return v.change(ctx, needSubvolume, func(tx *transaction.Tx) error {
		n, err := v.locate(ctx, v.walker(tx.Tree), p)
		if err != nil {
			return err
		}
		return subvol.SetReadOnly(ctx, tx, n.sub, readonly)
	})
}

// DefaultSubvolume tells which subvolume a mount without options shows.
func (v *Volume) DefaultSubvolume(ctx context.Context) (SubvolumeInfo, error) {
	var id ondisk.TreeID
	err := v.view(func(tree treeFunc) error {
		var err error
		id, err = subvol.Default(ctx, subvol.Trees(tree))
		return err
	})
	if err != nil {
		return SubvolumeInfo{}, err
	}
	return v.infoByID(ctx, id)
}

// SetDefaultSubvolume makes the subvolume at p the one that a mount without
// options shows.
func (v *Volume) SetDefaultSubvolume(ctx context.Context, p string) error {
	return v.change(ctx, needSubvolume, func(tx *transaction.Tx) error {
		n, err := v.locate(ctx, v.walker(tx.Tree), p)
		if err != nil {
			return err
		}
		return subvol.SetDefault(ctx, tx, n.sub)
	})
}

// MatchSubvolumes turns patterns (path.Match, on whole paths) into the absolute
// paths of subvolumes. A name without pattern characters must exist.
func (v *Volume) MatchSubvolumes(ctx context.Context, patterns []string) ([]string, error) {
	list, err := v.Subvolumes(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	add := func(p string) {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	for _, pat := range patterns {
		pat = path.Clean("/" + pat)
		if !strings.ContainsAny(pat, "*?[") {
			add(pat)
			continue
		}
		n := len(out)
		for _, s := range list {
			ok, err := path.Match(pat, path.Clean("/"+s.Path))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pat, err)
			}
			if ok && !s.Deleted && s.ID != uint64(ondisk.FSTree) {
				add(path.Clean("/" + s.Path))
			}
		}
		if len(out) == n {
			return nil, fmt.Errorf("%s: no subvolume matches: %w", pat, fs.ErrNotExist)
		}
	}
	return out, nil
}

// ParseUUID reads a UUID in its usual form.
func ParseUUID(s string) (UUID, error) { return ondisk.ParseUUID(s) }
