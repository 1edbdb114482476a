package btrfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// makeOn makes a volume on a device in memory.
func makeOn(t testing.TB, size int64, opt btrfs.MakeOptions) (btrfs.Device, error) {
	t.Helper()
	d := device.NewMem(size)
	_, err := btrfs.Make(ctx, []btrfs.Device{d}, opt)
	return d, err
}

// onMemory opens a new volume in memory.
func onMemory(t testing.TB, size int64, opt btrfs.MakeOptions) *btrfs.Volume {
	t.Helper()
	d, err := makeOn(t, size, opt)
	must(t, err)
	v, err := btrfs.OpenDevices(ctx, []btrfs.Device{d}, btrfs.Options{})
	must(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

// TestErrNoSpace: a full volume says so by name, keeps what it has and takes more
// once something was removed.
func TestErrNoSpace(t *testing.T) {
	v := onMemory(t, 64<<20, btrfs.MakeOptions{})
	s := v.Top()
	data := bytes.Repeat([]byte("full"), 256<<10)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = s.WriteFile(fmt.Sprint(n), data, 0o644)
	}
	if !errors.Is(err, btrfs.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d files: %v", n, err)
	}
	if got, err := s.ReadFile("0"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the first file: %v", err)
	}
	must(t, s.Remove("0"))
	must(t, s.Remove(fmt.Sprint(n-1)))
	must(t, v.Commit(ctx))
	must(t, s.WriteFile("again", data, 0o644))
	rep, err := v.Check(ctx, btrfs.CheckOptions{Data: true})
	if err != nil || !rep.OK() {
		t.Errorf("check: %v %+v", err, rep)
	}
}

// TestNamedErrors: what a method refuses can be asked for without a look at texts.
func TestNamedErrors(t *testing.T) {
	v := onMemory(t, 64<<20, btrfs.MakeOptions{Features: []string{"^extref"}})
	s := v.Top()
	for _, p := range []string{"/a", "/a/nested", "/default"} {
		_, err := v.CreateSubvolume(ctx, p)
		must(t, err)
	}
	must(t, v.SetDefaultSubvolume(ctx, "/default"))
	must(t, s.WriteFile("file", []byte("x"), 0o644))
	must(t, s.Symlink("loop", "loop"))
	var links error
	for i := 0; links == nil && i < 1000; i++ {
		links = s.Link("file", fmt.Sprintf("%0200d", i))
	}
	_, loop := s.Stat("loop")
	_, undelete := v.UndeleteSubvolume(ctx, 256, "/b")
	_, options := makeOn(t, 64<<20, btrfs.MakeOptions{Nodesize: 5000})
	_, checksum := makeOn(t, 64<<20, btrfs.MakeOptions{Checksum: "nonsense"})
	big := t.TempDir()
	must(t, os.WriteFile(filepath.Join(big, "big"), bytes.Repeat([]byte("x"), 40<<20), 0o644))
	_, room := makeOn(t, 32<<20, btrfs.MakeOptions{RootDir: big})
	image := fresh(t, btrfs.MakeOptions{})
	open(t, image, btrfs.Options{})
	_, inUse := btrfs.Open(ctx, image, btrfs.Options{})
	for name, c := range map[string]struct{ got, want error }{
		"ErrTooManyLinks":  {links, btrfs.ErrTooManyLinks},
		"ErrTooLarge":      {s.SetXattr("file", "user.x", make([]byte, 20000)), btrfs.ErrTooLarge},
		"ErrLoop":          {loop, btrfs.ErrLoop},
		"ErrCrossDevice":   {s.Link("file", "a/file"), btrfs.ErrCrossDevice},
		"ErrNested":        {v.DeleteSubvolumes(ctx, []string{"/a"}), btrfs.ErrNested},
		"ErrDefault":       {v.DeleteSubvolumes(ctx, []string{"/default"}), btrfs.ErrDefault},
		"ErrTop":           {v.DeleteSubvolumes(ctx, []string{"/"}), btrfs.ErrTop},
		"ErrNotDeleted":    {undelete, btrfs.ErrNotDeleted},
		"ErrOptions":       {options, btrfs.ErrOptions},
		"ErrOptions again": {checksum, btrfs.ErrOptions},
		"ErrNoRoom":        {room, btrfs.ErrNoRoom},
		"ErrInUse":         {inUse, btrfs.ErrInUse},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: got %v", name, c.got)
		}
	}
}

// TestErrorTypes: what tells more than a sentinel can be asked for too.
func TestErrorTypes(t *testing.T) {
	_, err := btrfs.Open(ctx, strings.Join(testenv.Images(t, "exp-remap-tree"), ","), btrfs.Options{})
	var unsupported *btrfs.UnsupportedError
	if !errors.As(err, &unsupported) || len(unsupported.Names) == 0 {
		t.Errorf("an unknown feature: %v", err)
	}
	_, err = btrfs.Open(ctx, strings.Join(testenv.Images(t, "deg-raid1"), ","), btrfs.Options{})
	var refused *btrfs.RefusedError
	if !errors.As(err, &refused) || !refused.Writing {
		t.Errorf("a device is missing: %v", err)
	}
}

// TestAbortError: after a failed commit all changes are refused with its cause, and
// reading goes on.
func TestAbortError(t *testing.T) {
	d, err := makeOn(t, 64<<20, btrfs.MakeOptions{})
	must(t, err)
	bad := faultdev.New(d)
	v, err := btrfs.OpenDevices(ctx, []btrfs.Device{bad}, btrfs.Options{})
	must(t, err)
	defer v.Close()
	s := v.Top()
	must(t, s.Mkdir("before", 0o755))
	must(t, v.Commit(ctx))
	must(t, s.Mkdir("lost", 0o755))
	bad.Add(faultdev.Rule{Op: faultdev.Write})
	if err := v.Commit(ctx); !errors.Is(err, faultdev.ErrInjected) {
		t.Fatalf("commit: %v", err)
	}
	_, create := s.Create("file")
	for what, err := range map[string]error{"mkdir": s.Mkdir("dir", 0o755), "create": create, "commit": v.Commit(ctx)} {
		var abort *btrfs.AbortError
		if !errors.As(err, &abort) || !errors.Is(abort.Cause, faultdev.ErrInjected) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if v.Writable() {
		t.Error("still writable")
	}
	if _, err := s.Stat("before"); err != nil {
		t.Error(err)
	}
}
