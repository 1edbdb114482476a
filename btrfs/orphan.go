package btrfs

import (
	"context"
	"errors"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// openFiles counts the open Files of each inode, so that one that loses its last
// name stays until the last of them is closed.
type openFiles struct {
	mu     sync.Mutex
	count  map[node]int
	orphan map[node]bool // lost its last name while open
}

func (o *openFiles) opened(n node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == nil {
		o.count, o.orphan = map[node]int{}, map[node]bool{}
	}
	o.count[n]++
}

// closed tells whether the inode is to be removed now.
func (o *openFiles) closed(n node) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count[n]--; o.count[n] > 0 {
		return false
	}
	gone := o.orphan[n]
	delete(o.count, n)
	delete(o.orphan, n)
	return gone
}

// unlinked tells which of the inodes can be removed at once.
func (o *openFiles) unlinked(sub ondisk.TreeID, inos []uint64) (now []uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ino := range inos {
		n := node{sub: sub, ino: ino}
		if o.count[n] > 0 {
			o.orphan[n] = true
			continue
		}
		now = append(now, ino)
	}
	return now
}

func (o *openFiles) any() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.count) > 0
}

// evict removes inodes that lost their last name, unless they are open.
func (v *Volume) evict(ctx context.Context, sub ondisk.TreeID, inos []uint64) error {
	for _, ino := range v.files.unlinked(sub, inos) {
		if err := filedata.Evict(ctx, v.mgr, sub, ino); err != nil {
			return err
		}
	}
	return nil
}

// unlinking runs a change of names that may take the last name of inodes, in the
// directory and last element of name, and then removes those inodes.
func (s *Subvolume) unlinking(op, name string, need transaction.Need, fn func(ctx context.Context, tx *transaction.Tx, w *walker, t *fstree.Tree, dir node, base string) error) error {
	var sub ondisk.TreeID
	var gone []uint64
	err := s.inDir(op, name, need, func(ctx context.Context, tx *transaction.Tx, w *walker, t *fstree.Tree, dir node, base string) error {
		t.KeepOrphans = s.v.files.any()
		err := fn(ctx, tx, w, t, dir, base)
		sub, gone = dir.sub, t.Orphaned()
		return err
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	return pathErr(op, name, s.v.evict(context.Background(), sub, gone))
}

// cleanOrphans removes what a crash left: inodes without names in subvolumes that
// can be written.
func (v *Volume) cleanOrphans(ctx context.Context) error {
	list, err := v.Subvolumes(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range list {
		if !s.Deleted && !s.ReadOnly {
			errs = append(errs, filedata.CleanOrphans(ctx, v.mgr, ondisk.TreeID(s.ID)))
		}
	}
	return errors.Join(errs...)
}
