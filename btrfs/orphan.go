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
// name stays until the last of them is closed. All Files of an inode share one
// writer: what one of them wrote, the others read.
type openFiles struct {
	mu      sync.Mutex
	count   map[node]int
	orphan  map[node]bool // lost its last name while open
	writers map[node]*filedata.Writer
}

// writer gives the writer of an open inode; make makes the first.
func (o *openFiles) writer(n node, make func() *filedata.Writer) *filedata.Writer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writers[n] == nil {
		o.writers[n] = make()
	}
	return o.writers[n]
}

// pending gives the writer of an inode, if there is one with bytes that are not
// in the trees yet.
func (o *openFiles) pending(n node) *filedata.Writer {
	o.mu.Lock()
	w := o.writers[n]
	o.mu.Unlock()
	if w == nil || !w.Pending() {
		return nil
	}
	return w
}

// flush brings into the trees what is gathered for an inode.
func (o *openFiles) flush(ctx context.Context, n node) error {
	if w := o.pending(n); w != nil {
		return w.Flush(ctx)
	}
	return nil
}

// flushAll is flush for all inodes that are open.
func (o *openFiles) flushAll(ctx context.Context) error {
	o.mu.Lock()
	list := make([]*filedata.Writer, 0, len(o.writers))
	for _, w := range o.writers {
		list = append(list, w)
	}
	o.mu.Unlock()
	var errs []error
	for _, w := range list {
		errs = append(errs, w.Flush(ctx))
	}
	return errors.Join(errs...)
}

func (o *openFiles) opened(n node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count == nil {
		o.count, o.orphan, o.writers = map[node]int{}, map[node]bool{}, map[node]*filedata.Writer{}
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
	delete(o.writers, n)
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
