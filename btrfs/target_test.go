package btrfs_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// useTarget does a little of everything on a volume, and looks at it again.
func useTarget(t *testing.T, target string) {
	t.Helper()
	v := open(t, target, btrfs.Options{})
	must(t, v.Top().WriteFile("file", []byte("hello"), 0o644))
	_, err := v.Snapshot(ctx, "/", "/snap", true)
	must(t, err)
	must(t, v.DeleteSubvolumes(ctx, []string{"/snap"}))
	_, err = v.Drop(ctx, btrfs.DropOptions{})
	must(t, err)
	must(t, v.Close())
	v = open(t, target, btrfs.Options{ReadOnly: true})
	if b, err := v.Top().ReadFile("file"); string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
	if r, err := v.Check(ctx, btrfs.CheckOptions{Data: true}); err != nil || !r.OK() {
		t.Error(r, err)
	}
	must(t, v.Close())
}

// TestRange: a volume in the middle of a file.
func TestRange(t *testing.T) {
	image := fresh(t, btrfs.MakeOptions{})
	disk := filepath.Join(testenv.Scratch(t), "disk.img")
	from, err := os.Open(image)
	must(t, err)
	to, err := os.Create(disk)
	must(t, err)
	size, err := io.Copy(io.NewOffsetWriter(to, 3<<20), from)
	must(t, err)
	must(t, errors.Join(to.Truncate(size+7<<20), from.Close(), to.Close()))
	useTarget(t, disk+"@3M+"+strconv.FormatInt(size, 10))
}

// TestNBD: a volume behind a server.
func TestNBD(t *testing.T) {
	nbdkit := testenv.NeedProgram(t, "nbdkit")
	image := fresh(t, btrfs.MakeOptions{})
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(nbdkit, "-f", "-U", socket, "file", image)
	must(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	target := "nbd+unix://?socket=" + socket
	for range 300 { // until it listens
		d, err := btrfs.OpenDevice(target, true)
		if err == nil {
			must(t, d.Close())
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	useTarget(t, target)
}
