package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// rename puts name in place of old, as long, in the listing of its directory (what
// the name's hash finds stays).
func rename(t *testing.T, image, old, name string) {
	t.Helper()
	damage(t, image, func(b ondisk.Block) {
		for i := range b.NrItems() {
			item := b.Item(i)
			if at := bytes.Index(item, []byte(old)); at >= 0 && b.Key(i).Type == ondisk.TypeDirIndex {
				copy(item[at:], name)
			}
		}
	})
}

// damage changes the only leaf of the top-level subvolume, and makes the checksum right again.
func damage(t *testing.T, image string, change func(b ondisk.Block)) {
	t.Helper()
	d, err := device.OpenFile(image, device.Options{})
	must(t, err)
	ctx := context.Background()
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
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
		t.Fatal("nothing was changed")
	}
	checksum.Sum(v.CsumType(), b[:32], b[32:])
	must(t, v.IO().Write(ctx, b.Bytenr(), b))
	must(t, v.IO().Flush())
}

// TestHostileNames: whatever names a volume holds, nothing is written outside the
// directory that it is copied to.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{"../evil!", "/../evil", "..", ".", "a/../../b", "evil\x00abc"} {
		t.Run(name, func(t *testing.T) {
			dir := testenv.Scratch(t)
			old := "NAMENAMENAME"[:len(name)]
			image, deep := filepath.Join(dir, "v.img"), filepath.Join(dir, "x", "y")
			must(t, os.MkdirAll(filepath.Join(dir, "src", "sub"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "src", "sub", old), []byte("evil"), 0o644))
			must(t, os.MkdirAll(deep, 0o755))
			ok(t, "mkfs", "-q", "--size", "128M", "--rootdir", filepath.Join(dir, "src"), image)
			must(t, os.RemoveAll(filepath.Join(dir, "src")))
			rename(t, image, old, name)
			for _, verb := range []string{"get", "restore"} {
				args := []string{verb, "-q", image, "/", filepath.Join(deep, verb)}
				if verb == "restore" {
					args = []string{verb, "-q", "-S", "-m", "-x", "-o", image, filepath.Join(deep, verb)}
				}
				fails(t, 1, []string{"cannot be used"}, args...)
			}
			must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && p != image {
					t.Errorf("%s was written", p)
				}
				return err
			}))
		})
	}
}

// TestHostileNamesInside: a name that leads out of its directory leads neither rm nor
// ls elsewhere in the volume; what has usable names is listed.
func TestHostileNamesInside(t *testing.T) {
	for _, name := range []string{"..", ".", "../keep"} {
		t.Run(name, func(t *testing.T) {
			src, old := t.TempDir(), "NAMENAMENAME"[:len(name)]
			write(t, filepath.Join(src, "keep"), "keep me")
			write(t, filepath.Join(src, "sub", "other"), "other")
			must(t, os.MkdirAll(filepath.Join(src, "sub", old), 0o755))
			image := filepath.Join(testenv.Scratch(t), "v.img")
			ok(t, "mkfs", "-q", "--size", "128M", "--rootdir", src, image)
			rename(t, image, old, name)
			if r := fails(t, 1, []string{"no path can have"}, "ls", "-R", image); !strings.Contains(r.out, "sub/other") {
				t.Errorf("ls tells only\n%s", r.out)
			}
			fails(t, 1, []string{"no path can have"}, "rm", "-r", image, "/sub")
			if got := ok(t, "cat", image, "/keep"); got != "keep me" {
				t.Errorf("/keep holds %q", got)
			}
		})
	}
}

// TestDirectoryInItself: every verb that goes into directories comes out of one that is in itself.
func TestDirectoryInItself(t *testing.T) {
	src := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(src, "loop", "inner"), 0o755))
	image := filepath.Join(testenv.Scratch(t), "v.img")
	ok(t, "mkfs", "-q", "--size", "128M", "--rootdir", src, image)
	damage(t, image, func(b ondisk.Block) {
		for i := range b.NrItems() {
			k := b.Key(i)
			if (k.Type == ondisk.TypeDirItem || k.Type == ondisk.TypeDirIndex) && bytes.HasSuffix(b.Item(i), []byte("inner")) {
				binary.LittleEndian.PutUint64(b.Item(i), k.Objectid)
			}
		}
	})
	r := fails(t, 1, []string{"inside itself"}, "ls", "-R", image)
	if r.out != "loop\nloop/inner\n" {
		t.Errorf("listed:\n%s", r.out)
	}
	fails(t, 1, []string{"inside itself"}, "ls", "-R", "--json", image)
	fails(t, 1, []string{"inside itself"}, "rm", "-r", image, "/loop")
	fails(t, 1, []string{"another name"}, "get", "-q", image, "/", filepath.Join(src, "out"))
}
