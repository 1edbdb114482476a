package btrfs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// TestRemoveAll: directories with more names than are read at once go, with all that
// is in them, and nothing beside them; files that are open stay until they are closed.
func TestRemoveAll(t *testing.T) {
	v := onMemory(t, 128<<20, btrfs.MakeOptions{})
	s := v.Top()
	must(t, s.MkdirAll("keep/d/e", 0o755))
	for i := range 5000 {
		must(t, s.Mknod(fmt.Sprintf("keep/d/%04d", i), 0o100644, btrfs.Rdev{}))
	}
	for i := range 700 {
		must(t, s.Mknod(fmt.Sprintf("keep/d/e/%04d", i), 0o100644, btrfs.Rdev{}))
	}
	must(t, s.WriteFile("keep/d/0001", []byte("still open"), 0o644))
	must(t, s.Link("keep/d/0002", "keep/other"))
	must(t, s.Symlink("../keep", "keep/d/link"))
	f, err := s.Open("keep/d/0001")
	must(t, err)
	must(t, s.RemoveAll("keep/d"))
	if list, err := s.ReadDir("keep"); err != nil || len(list) != 1 || list[0].Name() != "other" {
		t.Errorf("left: %v, %v", list, err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "still open" {
		t.Errorf("the open file: %q, %v", b, err)
	}
	must(t, f.Close())
	must(t, s.RemoveAll("keep/d"))
	must(t, v.Commit(ctx))
	if rep, err := v.Check(ctx, btrfs.CheckOptions{Data: true}); err != nil || !rep.OK() {
		t.Errorf("check: %v %+v", err, rep)
	}
}

// TestRemoveAllRefuses: subvolumes stay whole, the root stays, and a context that has
// ended ends it.
func TestRemoveAllRefuses(t *testing.T) {
	v := onMemory(t, 128<<20, btrfs.MakeOptions{})
	s := v.Top()
	must(t, s.Mkdir("d", 0o755))
	_, err := v.CreateSubvolume(ctx, "/d/sub")
	must(t, err)
	must(t, s.WriteFile("d/sub/file", []byte("x"), 0o644))
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.RemoveAllContext(ended, "d"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	for name, want := range map[string]error{"d": fs.ErrPermission, "d/sub": fs.ErrPermission, ".": fs.ErrInvalid, "d/..": fs.ErrInvalid} {
		if err := s.RemoveAll(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Stat("d/sub/file"); err != nil {
		t.Error(err)
	}
}

// TestHostileDirectories: a directory that is in itself, and one whose last index is the
// largest there is, end every walk.
func TestHostileDirectories(t *testing.T) {
	dev, err := makeOn(t, 128<<20, btrfs.MakeOptions{})
	must(t, err)
	v, err := btrfs.OpenDevices(ctx, []btrfs.Device{keepOpen{dev}}, btrfs.Options{})
	must(t, err)
	must(t, v.Top().MkdirAll("loop/in/deep", 0o755))
	must(t, v.Top().MkdirAll("last/a", 0o755))
	must(t, v.Top().Mkdir("last/b", 0o755))
	loop, err := v.Top().Stat("loop")
	must(t, err)
	last, err := v.Top().Stat("last")
	must(t, err)
	must(t, v.Close())
	damage(t, dev, func(b ondisk.Block) {
		for i := range b.NrItems() {
			k := b.Key(i)
			if isEntry := k.Type == ondisk.TypeDirItem || k.Type == ondisk.TypeDirIndex; !isEntry {
				continue
			}
			if k.Objectid == loop.Sys().(btrfs.Stat).Inode && bytes.Contains(b.Item(i), []byte("in")) {
				binary.LittleEndian.PutUint64(b.Item(i), k.Objectid) // leads back
			}
			if k.Objectid == last.Sys().(btrfs.Stat).Inode && k.Type == ondisk.TypeDirIndex && bytes.HasSuffix(b.Item(i), []byte("b")) {
				binary.LittleEndian.PutUint64(b[101+25*i+9:], math.MaxUint64) // the offset of its key
			}
		}
	})
	v, err = btrfs.OpenDevices(ctx, []btrfs.Device{dev}, btrfs.Options{})
	must(t, err)
	defer v.Close()
	var corrupt *btrfs.CorruptError
	if err := v.Top().RemoveAll("loop"); !errors.As(err, &corrupt) {
		t.Errorf("a directory in itself: %v", err)
	}
	d, err := v.Top().OpenFile("last", 0, 0)
	must(t, err)
	defer d.Close()
	var names []string
	for len(names) < 10 {
		list, err := d.ReadDir(1)
		if err == io.EOF {
			break
		}
		must(t, err)
		names = append(names, list[0].Name())
	}
	if fmt.Sprint(names) != "[a b]" {
		t.Errorf("listed: %v", names)
	}
}

// keepOpen is a device that stays open when the volume on it is closed.
type keepOpen struct{ btrfs.Device }

func (keepOpen) Close() error { return nil }

// damage changes the only leaf of the top-level subvolume, behind a right checksum.
func damage(t *testing.T, dev btrfs.Device, change func(b ondisk.Block)) {
	t.Helper()
	v, err := volume.Open(ctx, []btrfs.Device{keepOpen{dev}}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	defer v.Close()
	tree, err := v.Tree(ctx, ondisk.FSTree)
	must(t, err)
	root, err := tree.RootBlock(ctx)
	must(t, err)
	if root.Level() != 0 {
		t.Fatal("the tree has more than one leaf")
	}
	b := ondisk.Block(bytes.Clone(root.Data()))
	change(b)
	if bytes.Equal(b, root.Data()) {
		t.Fatal("nothing was damaged")
	}
	checksum.Sum(v.CsumType(), b[:32], b[32:])
	must(t, v.IO().Write(ctx, b.Bytenr(), b))
	must(t, v.IO().Flush())
}
