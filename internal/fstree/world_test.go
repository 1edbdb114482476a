package fstree_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// world is a volume that a test changes.
type world struct {
	t     testing.TB
	ctx   context.Context
	paths []string
	v     *volume.Volume
	m     *transaction.Manager
}

func newWorld(t testing.TB, image string) *world {
	t.Helper()
	w := &world{t: t, ctx: context.Background(), paths: testenv.Images(t, image)}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var devs []device.Device
	for _, p := range w.paths {
		d, err := device.OpenFile(p, device.Options{})
		w.must(err)
		devs = append(devs, d)
	}
	var err error
	w.v, err = volume.Open(w.ctx, devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
	w.must(err)
	w.m, err = transaction.Open(w.ctx, w.v, transaction.Options{})
	w.must(err)
}

func (w *world) close() {
	w.t.Helper()
	w.must(w.m.Close(w.ctx))
	w.must(w.v.Close())
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// try runs fn on the tree of the top subvolume and gives its error. An error
// must leave the transaction usable.
func (w *world) try(fn func(t *fstree.Tree) error) error {
	w.t.Helper()
	tx, err := w.m.Begin(w.ctx, transaction.Need{Items: 12})
	w.must(err)
	t, err := fstree.Open(w.ctx, tx, ondisk.FSTree)
	w.must(err)
	err = fn(t)
	w.must(tx.End(w.ctx))
	return err
}

func (w *world) edit(fn func(t *fstree.Tree) error) {
	w.t.Helper()
	w.must(w.try(fn))
}

// refused checks that fn gives the error want.
func (w *world) refused(what string, want error, fn func(t *fstree.Tree) error) {
	w.t.Helper()
	if err := w.try(fn); !errors.Is(err, want) {
		w.t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (w *world) make(dir uint64, name string, mode uint32) uint64 {
	w.t.Helper()
	var ino uint64
	w.edit(func(t *fstree.Tree) (err error) {
		ino, err = t.Create(w.ctx, dir, []byte(name), fstree.Attr{Mode: mode})
		return err
	})
	return ino
}

func (w *world) tree() *btree.Tree {
	w.t.Helper()
	t, err := w.m.Tree(w.ctx, ondisk.FSTree)
	w.must(err)
	return t
}

func (w *world) inode(ino uint64) ondisk.InodeItem {
	w.t.Helper()
	it, err := fstree.ReadInode(w.ctx, w.tree(), ino)
	w.must(err)
	return it
}

// check closes the volume and gives it to btrfs check.
func (w *world) check() {
	w.t.Helper()
	w.close()
	testenv.Check(w.t, w.paths...)
}

const (
	fileMode = fstree.ModeFile | 0o644
	dirMode  = fstree.ModeDir | 0o755
)
