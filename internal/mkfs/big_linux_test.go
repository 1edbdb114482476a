package mkfs_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// manySource is a directory with many files of the same content, and one of another.
type manySource struct {
	memSource
	n     int
	small string
}

func (m *manySource) ReadDir(dir string) ([]string, error) {
	out := make([]string, 0, m.n+1)
	for i := range m.n {
		out = append(out, fmt.Sprintf("file-%d", i))
	}
	return append(out, "large"), nil
}

func (m *manySource) text(name string) string {
	if name == "large" {
		return m.files["large"]
	}
	return m.small
}

func (m *manySource) Stat(name string) (mkfs.Stat, error) {
	if name == "" {
		return mkfs.Stat{Mode: syscall.S_IFDIR | 0o755, Links: 1}, nil
	}
	return mkfs.Stat{Mode: syscall.S_IFREG | 0o644, Size: uint64(len(m.text(name))), Links: 1}, nil
}

func (m *manySource) Open(name string) (mkfs.File, error) {
	return &memFile{strings.NewReader(m.text(name)), &m.memSource, name}, nil
}

// TestAlmostFull: many files, trees of three levels, and data in many chunks up to the last of the volume.
func TestAlmostFull(t *testing.T) {
	src := &manySource{n: 20000, small: strings.Repeat("s", 3000)}
	src.files = map[string]string{"large": strings.Repeat("0123456789abcde\n", 5<<20), "file-0": src.small}
	for i := range src.n { // what memFile.Stat looks up
		src.files[fmt.Sprintf("file-%d", i)] = src.small
	}
	devs := mems(1, 250*mib)
	mustMake(t, devs, mkfs.Options{Source: src, Nodesize: 4096})
	v, err := volume.Open(context.Background(), devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	judge(t, v)
	if n := len(v.Chunks().All()); n < 6 {
		t.Errorf("only %d chunks", n)
	}
	tree, err := v.Tree(context.Background(), 5)
	if err != nil || tree.Root().Level < 2 {
		t.Errorf("top-level subvolume: %v of level %d", err, tree.Root().Level)
	}
}
