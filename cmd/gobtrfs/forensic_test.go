package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// loseRoot overwrites every copy of the tree block to which the field at an offset of the superblock points.
func loseRoot(t *testing.T, image string, field int) {
	t.Helper()
	b, err := os.ReadFile(image)
	must(t, err)
	sb := b[64<<10:][:4096]
	size := int(binary.LittleEndian.Uint32(sb[148:]))
	n := 0
	for off := 0; off+size <= len(b); off += 4096 {
		if bytes.Equal(b[off+32:off+48], sb[32:48]) && bytes.Equal(b[off+48:off+56], sb[field:field+8]) && off != 64<<10 {
			f, err := os.OpenFile(image, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(make([]byte, size), int64(off))
			must(t, err)
			must(t, f.Close())
			n++
		}
	}
	if n == 0 {
		t.Fatal("nothing was damaged")
	}
}

const (
	rootField  = 80
	chunkField = 88
)

// TestForensic: what is lost at the roots is found by --forensic: all of it, and then the exit status is 0, or what there is, and then it
// is told.
func TestForensic(t *testing.T) {
	m := testenv.ReadManifest(t, "default", "")
	image := testenv.Image(t, "default")
	restore := func(code int, words ...string) {
		t.Helper()
		dir := filepath.Join(testenv.Scratch(t), "out")
		r := fails(t, code, words, "restore", "-q", "-m", "-S", "--forensic", image, dir)
		if n := sameFiles(t, m, dir); n < 3 {
			t.Errorf("only %d files were compared\n%s", n, r.err)
		}
	}
	restore(0, "chunk tree: as the superblock says")
	names := ok(t, "ls", "-R", image, "/")

	loseRoot(t, image, chunkField)
	fails(t, 1, []string{"chunk tree cannot be read", "--forensic"}, "ls", image, "/")
	restore(0, "chunk tree: lost")
	if out := ok(t, "ls", "-R", "--forensic", image, "/"); out != names {
		t.Errorf("listed:\n%s\nwant:\n%s", out, names)
	}

	loseRoot(t, image, rootField)
	before, err := os.ReadFile(image)
	must(t, err)
	restore(1, "lost: root tree")
	for _, args := range [][]string{{"ls", "-R"}, {"get", "-q"}, {"cat"}, {"stat"}, {"inspect", "dump-tree", "-t", "fs"}} {
		args = append(args, "--forensic", image)
		switch args[0] {
		case "get":
			args = append(args, "/", filepath.Join(t.TempDir(), "got"))
		case "cat":
			args = append(args, "/"+firstFile(t, m))
		case "ls", "stat":
			args = append(args, "/")
		}
		fails(t, 1, []string{"tree blocks found", "lost: root tree"}, args...)
	}
	after, err := os.ReadFile(image)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the image was changed")
	}
	fails(t, 1, []string{"no tree block was found"}, "restore", "--forensic", os.Args[0], t.TempDir())
}

// firstFile gives the path of a file of the top-level subvolume.
func firstFile(t *testing.T, m *testenv.Manifest) string {
	t.Helper()
	for _, e := range m.Entries {
		if e.Type == "file" && e.Subvol == 5 && e.PathB64 == "" {
			return e.Path
		}
	}
	t.Fatal("no file")
	return ""
}
