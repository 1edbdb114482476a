package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// target names all devices of a volume of the corpus.
func target(t testing.TB, name string) string {
	t.Helper()
	return strings.Join(testenv.ReadImages(t, name), ",")
}

// sameFiles compares the regular files of the top-level subvolume below dir with
// a manifest, but those that the kernel could not read; it gives their number.
func sameFiles(t *testing.T, m *testenv.Manifest, dir string) (same int) {
	t.Helper()
	for _, e := range m.Entries {
		if e.Type != "file" || e.Subvol != 5 || e.SHA256 == "" || e.Error != nil || e.ReadError != nil {
			continue
		}
		name := e.Path
		if e.PathB64 != "" {
			b, err := base64.StdEncoding.DecodeString(e.PathB64)
			must(t, err)
			name = string(b)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if h := sha256.Sum256(b); hex.EncodeToString(h[:]) != e.SHA256 {
			t.Errorf("%q differs", name)
		}
		same++
	}
	return same
}

// TestRestore: what can be read of damaged and degraded volumes is equal to what
// the kernel read of them, and what cannot is named.
func TestRestore(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
		code  int
		words []string
	}{
		{"bad-meta-both", nil, 1, []string{"file-00033", "no good copy"}},
		{"bad-data-single", nil, 1, []string{"8192 bytes could not be read", "no good copy"}},
		{"bad-meta-mirror", nil, 0, []string{"0 sectors of data, 1 tree blocks"}},
		{"bad-data-mirror", nil, 0, []string{"sectors of data, 0 tree blocks"}},
		{"bad-data-single", []string{"--ignore-checksums"}, 0, []string{"d02: no checksum proves 2 sectors of it right", "2 sectors of data were given as they are"}},
		{"bad-data-mirror", []string{"--ignore-checksums"}, 0, []string{"sectors of data, 0 tree blocks"}},
		{"bad-raid5-data", nil, 0, nil},
		{"bad-raid6-data", nil, 0, nil},
		{"stale-raid1", nil, 0, nil},
		{"deg-raid10", nil, 0, []string{"what missing devices hold, and damage that other copies made good"}},
		{"deg-raid5", nil, 0, nil},
		{"deg-raid6", nil, 0, nil},
		{"bad-super-primary", nil, 0, nil},
		{"bad-super-primary", []string{"--super", "2"}, 0, nil},
		{"old-roots", []string{"--backup", "2"}, 0, nil},
	} {
		t.Run(c.name+strings.Join(c.flags, ""), func(t *testing.T) {
			dir := filepath.Join(testenv.Scratch(t), "out")
			args := append([]string{"restore", "-q", "-m", "-S", target(t, c.name), dir}, c.flags...)
			r := fails(t, c.code, c.words, args...)
			if n := sameFiles(t, testenv.ReadManifest(t, c.name, ""), dir); n < 3 {
				t.Errorf("only %d files were compared\n%s", n, r.err)
			}
		})
	}
}

// TestIgnoreChecksums: where the checksum tree is lost, only what needs no checksum is restored, and the way out is told;
// when asked for, everything is, and how much is unproven is told.
func TestIgnoreChecksums(t *testing.T) {
	image := testenv.Image(t, "default")
	wipe(t, image, ondisk.CsumTree)
	dir := testenv.Scratch(t)
	m := testenv.ReadManifest(t, "default", "")
	r := fails(t, 1, []string{"could not be read", "--ignore-checksums"}, "restore", "-q", image, filepath.Join(dir, "less"))
	if less, err := os.ReadDir(filepath.Join(dir, "less")); err != nil || len(less) < 5 {
		t.Errorf("%d names, %v: %s", len(less), err, r.err)
	}
	r = fails(t, 0, []string{"no checksum proves"}, "restore", "-q", "--ignore-checksums", image, filepath.Join(dir, "all"))
	if n := sameFiles(t, m, filepath.Join(dir, "all")); n < 20 {
		t.Errorf("only %d files were compared\n%s", n, r.err)
	}
	fails(t, 0, []string{"no checksum proves"}, "get", "-q", "--ignore-checksums", image, "/", "-")
	before := ok(t, "inspect", "dump-super", image)
	fails(t, 1, []string{"checksum tree"}, "put", "-q", image, os.Args[0], "/new")
	if after := ok(t, "inspect", "dump-super", image); after != before {
		t.Errorf("a change that failed was committed:\n%s", after)
	}
}

// wipe zeroes the root block of a tree in all its copies.
func wipe(t *testing.T, image string, id ondisk.TreeID) {
	t.Helper()
	ctx := context.Background()
	d, err := device.OpenFile(image, device.Options{})
	must(t, err)
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	defer v.Close()
	tree, err := v.Tree(ctx, id)
	must(t, err)
	at := tree.Root().Bytenr
	c, _ := v.Chunks().Find(at)
	for _, s := range c.Stripes {
		_, err := d.WriteAt(make([]byte, v.Nodesize()), int64(s.Offset+uint64(at-c.Logical)))
		must(t, err)
	}
}

// TestRestoreLost: what is lost at the roots is said, with what to try.
func TestRestoreLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	fails(t, 1, []string{"root tree", "--backup 2"}, "restore", target(t, "old-roots"), dir)
	fails(t, 1, []string{"superblock copy 1"}, "restore", "--super", "1", target(t, "bad-super-primary"), dir)
	fails(t, 2, []string{"1 to 3"}, "ls", "--super", "4", target(t, "old-roots"))
	ok(t, "check", "--backup", "2", target(t, "old-roots"))
	ok(t, "stat", "--super", "2", target(t, "bad-super-primary"), "/")
}

// TestRestoreFilters: only what is asked for is copied, and nothing that is there is
// touched.
func TestRestoreFilters(t *testing.T) {
	image, dir := target(t, "bad-meta-both"), t.TempDir()
	only := filepath.Join(dir, "only")
	fails(t, 1, []string{"file-00034"}, "restore", "-q", "--path-regex", "^/dir-000/file-0000[12]$", image, only)
	var got []string
	must(t, filepath.WalkDir(only, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, strings.TrimPrefix(p, only))
		}
		return err
	}))
	if want := []string{"/dir-000/file-00001", "/dir-000/file-00002"}; !slices.Equal(got, want) {
		t.Errorf("copied %q, want %q", got, want)
	}
	kept := filepath.Join(only, "dir-000", "file-00001")
	must(t, os.WriteFile(kept, []byte("mine"), 0o600))
	fails(t, 1, []string{"stays as it is"}, "restore", "-q", "--path-regex", "^/dir-000/file-00001$", image, only)
	if b, err := os.ReadFile(kept); err != nil || string(b) != "mine" {
		t.Errorf("a file that was there was changed: %v", err)
	}
	fails(t, 1, nil, "restore", "-q", "-o", "--path-regex", "^/dir-000/file-00001$", image, only)
	if b, err := os.ReadFile(kept); err != nil || string(b) == "mine" {
		t.Errorf("--overwrite did not: %v", err)
	}
	dry := filepath.Join(dir, "dry")
	if out := fails(t, 1, nil, "restore", "-D", "-c", "--path-regex", "FILE-00001$", image, dry).out; out != "/dir-000/file-00001\n" {
		t.Errorf("dry run says %q", out)
	}
	if _, err := os.Stat(dry); err == nil {
		t.Error("the dry run made the directory")
	}
}

// TestRestoreStaysInside: a link that is in the way is not followed.
func TestRestoreStaysInside(t *testing.T) {
	dir := t.TempDir()
	outside, to := filepath.Join(dir, "outside"), filepath.Join(dir, "to")
	must(t, os.Mkdir(outside, 0o700))
	must(t, os.Mkdir(to, 0o700))
	must(t, os.Symlink(outside, filepath.Join(to, "dir-000")))
	fails(t, 1, []string{"dir-000"}, "restore", "-q", "-o", target(t, "bad-meta-both"), to)
	if list, err := os.ReadDir(outside); err != nil || len(list) > 0 {
		t.Errorf("%d files were written outside: %v", len(list), err)
	}
	for name, want := range map[string]bool{"a": true, "..a": true, ".": false, "..": false, "": false, "a/b": false, "/": false, "../a": false, "a\x00": false} {
		if safeName(name) != want {
			t.Errorf("name %q: %v", name, !want)
		}
	}
}
