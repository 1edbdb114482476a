package logtree_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/logtree"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// replay replays the log of an image, and tells whether it had one.
func replay(t *testing.T, path string) (had bool) {
	t.Helper()
	ctx := context.Background()
	d, err := device.OpenFile(path, device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transaction.Open(ctx, v, transaction.Options{}); err == nil && v.Super().LogRoot != 0 {
		t.Error("a volume with a log is opened for writing")
	}
	had = v.Super().LogRoot != 0
	m, err := transaction.Open(ctx, v, transaction.Options{DropLog: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := logtree.Replay(ctx, m); err != nil {
		t.Fatal(err)
	}
	if v.Super().LogRoot != 0 {
		t.Error("the log is still there")
	}
	if err := m.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return had
}

// TestCorpus replays the logs of the corpus and compares what the kernel then shows with what it showed after it had
// replayed the same logs itself.
func TestCorpus(t *testing.T) {
	testenv.NeedKernel(t)
	for _, name := range []string{"log-tree", "log-tree-4k"} {
		t.Run(name, func(t *testing.T) {
			image := testenv.Image(t, name)
			replay(t, image)
			testenv.Check(t, image)
			dir := testenv.Mount(t, []string{image}, "ro", "subvolid=5")
			compare(t, dir, testenv.ReadManifest(t, name, "replayed"))
		})
	}
}

// compare compares a mounted volume with its manifest.
func compare(t *testing.T, dir string, m *testenv.Manifest) {
	t.Helper()
	paths := map[uint64]string{}
	for _, s := range m.Subvolumes {
		paths[s.ID] = s.Path
	}
	paths[5] = ""
	var want []string
	for _, e := range m.Entries {
		want = append(want, line(filepath.Join(paths[e.Subvol], e.Path), e.Type, e.Size, e.Nlink, e.Mode, e.Mtime, e.SHA256))
	}
	diff(t, want, list(t, dir))
}

// list describes every file of a mounted volume.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var got []string
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(dir, p)
		sum := ""
		if info.Mode().IsRegular() {
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			h := sha256.New()
			_, err = io.Copy(h, f)
			f.Close()
			if err != nil {
				return err
			}
			sum = hex.EncodeToString(h.Sum(nil))
		}
		typ := map[os.FileMode]string{0: "file", os.ModeDir: "dir", os.ModeSymlink: "symlink"}[info.Mode().Type()]
		mtime := fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			for i := range 3 {
				b := make([]byte, 100)
				if n, err := syscall.Getxattr(p, fmt.Sprintf("user.x%d", i), b); err == nil {
					sum += fmt.Sprintf(" x%d=%s", i, b[:n])
				}
			}
		}
		got = append(got, line(rel, typ, st.Size, uint32(st.Nlink), strconv.FormatUint(uint64(st.Mode&0o7777), 8), mtime, sum))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// diff compares two lists.
func diff(t *testing.T, want, got []string) {
	t.Helper()
	sort.Strings(want)
	sort.Strings(got)
	w, g := strings.Join(want, "\n"), strings.Join(got, "\n")
	if w != g {
		for _, l := range want {
			if !strings.Contains(g, l) {
				t.Errorf("missing: %s", l)
			}
		}
		for _, l := range got {
			if !strings.Contains(w, l) {
				t.Errorf("unexpected: %s", l)
			}
		}
	}
	t.Logf("%d entries", len(got))
}

func line(path, typ string, size int64, nlink uint32, mode, mtime, sum string) string {
	path = filepath.Join("/", path)
	return fmt.Sprintf("%s %s size=%d nlink=%d mode=%s mtime=%s %s", path, typ, size, nlink, strings.TrimLeft(mode, "0"), mtime, sum)
}
