package fstree_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const top = fstree.RootIno

func TestRefusals(t *testing.T) {
	w := newWorld(t, "empty")
	dir := w.make(top, "dir", dirMode)
	inner := w.make(dir, "inner", dirMode)
	file := w.make(top, "file", fileMode)
	w.make(dir, "file", fileMode)
	ctx := w.ctx
	create := func(name string, a fstree.Attr) func(*fstree.Tree) error {
		return func(t *fstree.Tree) error { _, err := t.Create(ctx, top, []byte(name), a); return err }
	}
	plain := fstree.Attr{Mode: fileMode}
	w.refused("a name twice", fs.ErrExist, create("file", plain))
	w.refused("a long name", fstree.ErrNameTooLong, create(strings.Repeat("x", 256), plain))
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b"} {
		w.refused(fmt.Sprintf("the name %q", name), fs.ErrInvalid, create(name, plain))
	}
	w.refused("no type", fs.ErrInvalid, create("x", fstree.Attr{Mode: 0o644}))
	w.refused("an empty target", fs.ErrInvalid, create("x", fstree.Attr{Mode: fstree.ModeSymlink}))
	w.refused("a long target", fstree.ErrNameTooLong, create("x", fstree.Attr{Mode: fstree.ModeSymlink, Target: make([]byte, 4096)}))
	w.refused("create in a file", fstree.ErrNotDir, func(t *fstree.Tree) error {
		_, err := t.Create(ctx, file, []byte("x"), plain)
		return err
	})
	w.refused("unlink of a directory", fstree.ErrIsDir, func(t *fstree.Tree) error { return t.Unlink(ctx, top, []byte("dir")) })
	w.refused("unlink of nothing", fs.ErrNotExist, func(t *fstree.Tree) error { return t.Unlink(ctx, top, []byte("nothing")) })
	w.refused("rmdir of a file", fstree.ErrNotDir, func(t *fstree.Tree) error { return t.Rmdir(ctx, top, []byte("file")) })
	w.refused("rmdir of a full directory", fstree.ErrNotEmpty, func(t *fstree.Tree) error { return t.Rmdir(ctx, top, []byte("dir")) })
	w.refused("link of a directory", fstree.ErrIsDir, func(t *fstree.Tree) error { return t.Link(ctx, dir, top, []byte("x")) })
	rename := func(odir uint64, oname string, ndir uint64, nname string) func(*fstree.Tree) error {
		return func(t *fstree.Tree) error { return t.Rename(ctx, odir, []byte(oname), ndir, []byte(nname)) }
	}
	w.refused("a directory into itself", fs.ErrInvalid, rename(top, "dir", dir, "x"))
	w.refused("a directory into one inside", fs.ErrInvalid, rename(top, "dir", inner, "x"))
	w.refused("a file over a directory", fstree.ErrIsDir, rename(top, "file", dir, "inner"))
	w.refused("a directory over a file", fstree.ErrNotDir, rename(dir, "inner", top, "file"))
	w.refused("a directory over a full one", fstree.ErrNotEmpty, func(t *fstree.Tree) error {
		if _, err := t.Create(ctx, inner, []byte("full"), plain); err != nil {
			return err
		}
		if _, err := t.Create(ctx, top, []byte("other"), fstree.Attr{Mode: dirMode}); err != nil {
			return err
		}
		return t.Rename(ctx, top, []byte("other"), dir, []byte("inner"))
	})
	w.refused("an exchange with a directory around", fs.ErrInvalid, func(t *fstree.Tree) error {
		return t.Exchange(ctx, top, []byte("dir"), dir, []byte("inner"))
	})
	w.refused("an attribute that is too large", fstree.ErrTooLarge, func(t *fstree.Tree) error {
		return t.SetXattr(ctx, file, "user.x", make([]byte, 16223))
	})
	w.refused("an attribute that is not there", fs.ErrNotExist, func(t *fstree.Tree) error { return t.RemoveXattr(ctx, file, "user.x") })
	w.refused("an unknown property", fs.ErrInvalid, func(t *fstree.Tree) error { return t.SetXattr(ctx, file, "btrfs.x", []byte("y")) })
	w.refused("an unknown compression", fs.ErrInvalid, func(t *fstree.Tree) error {
		return t.SetXattr(ctx, file, "btrfs.compression", []byte("rar"))
	})
	w.edit(func(t *fstree.Tree) error { return t.SetXattr(ctx, file, "user.x", make([]byte, 16222)) })
	w.check()
}

// An inode with thousands of names needs INODE_EXTREF items; without that
// feature it gets as many as one INODE_REF item holds.
func TestManyLinks(t *testing.T) {
	for image, want := range map[string]int{"empty": 2000, "no-extref": 271} {
		t.Run(image, func(t *testing.T) {
			w := newWorld(t, image)
			dir := w.make(top, "links", dirMode)
			ino := w.make(dir, "first", fileMode)
			name := func(i int) []byte { return fmt.Appendf(nil, "%050d", i) }
			n := 1
			for ; n < want; n++ {
				err := w.try(func(t *fstree.Tree) error { return t.Link(w.ctx, ino, dir, name(n)) })
				if err != nil {
					w.refused("one more link", fstree.ErrTooManyLinks, func(t *fstree.Tree) error { return t.Link(w.ctx, ino, dir, name(n)) })
					break
				}
			}
			if n != want || int(w.inode(ino).Nlink) != want {
				t.Fatalf("%d links, nlink %d, want %d", n, w.inode(ino).Nlink, want)
			}
			links, err := fstree.Links(w.ctx, w.tree(), ino)
			w.must(err)
			if len(links) != want {
				t.Fatalf("%d names, want %d", len(links), want)
			}
			for i := 1; i < n; i += 2 { // from both kinds of items
				w.edit(func(t *fstree.Tree) error { return t.Unlink(w.ctx, dir, name(i)) })
			}
			w.edit(func(t *fstree.Tree) error { return t.Rename(w.ctx, dir, name((n-1)&^1), top, []byte("moved")) })
			w.check()
		})
	}
}

// Two names with one hash share an item, and stay apart.
func TestHashCollision(t *testing.T) {
	w := newWorld(t, "empty")
	a, b := "wcjifoae", "ccaoacux"
	inoA, inoB := w.make(top, a, fileMode), w.make(top, b, dirMode)
	find := func(name string) uint64 {
		e, err := fstree.Lookup(w.ctx, w.tree(), top, []byte(name))
		if err != nil {
			return 0
		}
		return e.Location.Objectid
	}
	if find(a) != inoA || find(b) != inoB {
		t.Fatalf("found %d and %d, want %d and %d", find(a), find(b), inoA, inoB)
	}
	for _, name := range []string{a, b} {
		w.edit(func(t *fstree.Tree) error { return t.SetXattr(w.ctx, inoA, "user."+name, []byte(name)) })
	}
	w.edit(func(t *fstree.Tree) error { return t.Exchange(w.ctx, top, []byte(a), top, []byte(b)) })
	if find(a) != inoB || find(b) != inoA {
		t.Fatalf("after the exchange: found %d and %d, want %d and %d", find(a), find(b), inoB, inoA)
	}
	w.edit(func(t *fstree.Tree) error { return t.Rmdir(w.ctx, top, []byte(a)) })
	if find(a) != 0 || find(b) != inoA {
		t.Fatalf("after the removal: found %d and %d, want 0 and %d", find(a), find(b), inoA)
	}
	w.check()
}

// What a directory hands on to what is made in it.
func TestInheritance(t *testing.T) {
	w := newWorld(t, "empty")
	dir := w.make(top, "packed", dirMode)
	mode, gid := uint32(0o2755), uint32(77)
	w.edit(func(t *fstree.Tree) error {
		if err := t.SetXattr(w.ctx, dir, "btrfs.compression", []byte("zstd")); err != nil {
			return err
		}
		return t.SetAttr(w.ctx, dir, fstree.SetAttr{Mode: &mode, GID: &gid})
	})
	file, sub := w.make(dir, "file", fileMode), w.make(dir, "sub", dirMode)
	deep := w.make(sub, "deep", fileMode)
	for _, ino := range []uint64{file, sub, deep} {
		v, err := fstree.Xattr(w.ctx, w.tree(), ino, "btrfs.compression")
		if it := w.inode(ino); err != nil || string(v) != "zstd" || it.Flags != ondisk.InodeCompress || it.GID != gid {
			t.Errorf("inode %d: property %q, flags %#x, gid %d, %v", ino, v, it.Flags, it.GID, err)
		}
	}
	if m := w.inode(sub).Mode; m != dirMode|0o2000 {
		t.Errorf("a directory in one with setgid has mode %o", m)
	}
	if w.m.Super().Incompat&ondisk.IncompatCompressZstd == 0 {
		t.Error("the superblock does not tell that zstd is used")
	}
	cow := w.make(top, "nocow", dirMode)
	flags := ondisk.InodeNodatacow
	w.edit(func(t *fstree.Tree) error { return t.SetAttr(w.ctx, cow, fstree.SetAttr{Flags: &flags}) })
	if f := w.inode(w.make(cow, "file", fileMode)).Flags; f != ondisk.InodeNodatacow|ondisk.InodeNodatasum {
		t.Errorf("a file in a directory without copy-on-write has flags %#x", f)
	}
	w.check()
}

// An inode whose names go while it is kept is an orphan until it is removed, and
// may get a name again before.
func TestOrphans(t *testing.T) {
	w := newWorld(t, "empty")
	gone, back := w.make(top, "gone", fileMode), w.make(top, "back", fileMode)
	w.edit(func(t *fstree.Tree) error {
		t.KeepOrphans = true
		for _, name := range []string{"gone", "back"} {
			if err := t.Unlink(w.ctx, top, []byte(name)); err != nil {
				return err
			}
		}
		if o := t.Orphaned(); len(o) != 2 || o[0] != gone || o[1] != back {
			return fmt.Errorf("orphaned %v", o)
		}
		return t.Link(w.ctx, back, top, []byte("again"))
	})
	w.close()
	w.open()
	list, err := fstree.Orphans(w.ctx, w.tree())
	if err != nil || len(list) != 1 || list[0] != gone {
		t.Fatalf("orphans %v, %v, want %d", list, err, gone)
	}
	w.edit(func(t *fstree.Tree) error {
		done, err := t.RemoveOrphan(w.ctx, gone, 10)
		if !done {
			return fmt.Errorf("not done: %v", err)
		}
		return err
	})
	w.refused("reading what was removed", fs.ErrNotExist, func(t *fstree.Tree) error {
		_, err := fstree.ReadInode(w.ctx, t.Items(), gone)
		return err
	})
	if n := w.inode(back).Nlink; n != 1 {
		t.Errorf("what got its name back has %d links", n)
	}
	w.check()
}

// Names of nested subvolumes move with their references; the empty directory
// that a snapshot shows for one can be removed.
func TestSubvolumeNames(t *testing.T) {
	w := newWorld(t, "subvolumes")
	dir := w.make(top, "dir", dirMode)
	var moved []byte
	w.must(fstree.ReadDir(w.ctx, w.tree(), top, 0, func(e fstree.Entry) error {
		if e.IsSubvolume() && moved == nil {
			moved = bytes.Clone(e.Name)
		}
		return nil
	}))
	if moved == nil {
		t.Fatal("no nested subvolume")
	}
	w.refused("rmdir of a subvolume", fstree.ErrSubvolume, func(t *fstree.Tree) error { return t.Rmdir(w.ctx, top, moved) })
	w.edit(func(t *fstree.Tree) error { return t.Rename(w.ctx, top, moved, dir, []byte("new name")) })
	other := w.make(top, "other", fileMode)
	w.edit(func(t *fstree.Tree) error { return t.Exchange(w.ctx, dir, []byte("new name"), top, []byte("other")) })
	e, err := fstree.Lookup(w.ctx, w.tree(), dir, []byte("new name"))
	if err != nil || e.Location.Objectid != other {
		t.Fatalf("after the exchange: %v, %v, want %d", e.Location, err, other)
	}
	w.check()
}
