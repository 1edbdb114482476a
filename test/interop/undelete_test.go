package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// contents reads all files below dir.
func contents(t *testing.T, fsys fs.FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := fs.ReadFile(fsys, p)
		out[p] = string(b)
		return err
	}))
	return out
}

func sameContents(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(want) == 0 || len(got) != len(want) {
		t.Errorf("%s: %d files of %d", what, len(got), len(want))
	}
	for p, w := range want {
		if got[p] != w {
			t.Errorf("%s: %s differs", what, p)
		}
	}
}

// TestUndelete: subvolumes that the kernel deleted and did not begin to drop are brought back whole; the kernel then
// shows them, changes them, and deletes them for good.
func TestUndelete(t *testing.T) {
	testenv.NeedKernel(t)
	dir := testenv.Scratch(t)
	image, after := filepath.Join(dir, "before.img"), filepath.Join(dir, "cut.img")
	testenv.MakeVolume(t, image, 256<<20)
	mnt := testenv.Mount(t, []string{image})
	at := func(elem ...string) string { return filepath.Join(append([]string{mnt}, elem...)...) }
	testenv.Run(t, "btrfs", "subvolume", "create", at("live"))
	for i := range 300 {
		must(t, os.WriteFile(at("live", fmt.Sprintf("file%d", i)), bytes.Repeat([]byte{byte(i)}, i*60), 0o644))
	}
	testenv.Run(t, "btrfs", "subvolume", "snapshot", "-r", at("live"), at("ro"))
	must(t, os.Remove(at("live", "file7")))
	testenv.Run(t, "btrfs", "subvolume", "snapshot", at("live"), at("rw"))
	must(t, os.WriteFile(at("rw", "more"), []byte("more"), 0o644))
	want := map[string]map[string]string{}
	// While a file is open the kernel does not begin to drop; then the power fails.
	for _, s := range []string{"ro", "rw", "live"} {
		want[s] = contents(t, os.DirFS(at(s)))
		f, err := os.Open(at(s, "file9"))
		must(t, err)
		defer f.Close()
	}
	uuids := map[string]string{}
	must(t, os.WriteFile(at("top"), []byte("top"), 0o644))
	testenv.Run(t, "sync", "-f", mnt)
	with(t, image, btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) {
		list, err := v.Subvolumes(ctx)
		must(t, err)
		for _, s := range list {
			uuids[s.UUID.String()] = s.Path
		}
	})
	testenv.Run(t, "btrfs", "subvolume", "delete", "--commit-after", at("ro"), at("rw"), at("live"))
	must(t, testenv.CopySparse(image, after))
	back := undeleteAll(t, after, uuids)
	if len(back) != 3 {
		t.Fatalf("brought back %v", back)
	}
	judge(t, after)
	with(t, after, btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) {
		for s, p := range back {
			sub, err := v.Subvolume(ctx, p)
			must(t, err)
			sameContents(t, "gobtrfs: "+p, contents(t, sub), want[s])
		}
	})
	kernelUses(t, after, back, want)
	judge(t, after)
}

// undeleteAll brings back all deleted subvolumes; it gives where each went by its old name.
func undeleteAll(t *testing.T, image string, uuids map[string]string) map[string]string {
	t.Helper()
	back := map[string]string{}
	with(t, image, btrfs.Options{}, func(v *btrfs.Volume) {
		list, err := v.Subvolumes(ctx)
		must(t, err)
		must(t, v.Top().Mkdir("back", 0o755))
		for _, s := range list {
			if !s.Deleted {
				continue
			}
			dst := "/back/" + uuids[s.UUID.String()]
			_, err := v.UndeleteSubvolume(ctx, s.ID, dst)
			must(t, err)
			if _, err := v.UndeleteSubvolume(ctx, s.ID, dst+"2"); !errors.Is(err, btrfs.ErrNotDeleted) {
				t.Errorf("undeleted twice: %v", err)
			}
			back[uuids[s.UUID.String()]] = dst
		}
		if n, err := v.Drop(ctx, btrfs.DropOptions{}); n.Roots != 0 || err != nil {
			t.Errorf("dropped %+v, %v", n, err)
		}
	})
	return back
}

// kernelUses mounts the volume with the kernel, for writing: it shows what came back, changes it, takes a snapshot of it
// and deletes it.
func kernelUses(t *testing.T, image string, back map[string]string, want map[string]map[string]string) {
	t.Helper()
	mnt := testenv.Mount(t, []string{image}, "subvolid=5")
	for s, p := range back {
		dir := filepath.Join(mnt, p)
		sameContents(t, "kernel: "+p, contents(t, os.DirFS(dir)), want[s])
		testenv.Run(t, "btrfs", "subvolume", "snapshot", dir, dir+"-snap")
		err := os.WriteFile(filepath.Join(dir, "file9"), []byte("changed"), 0o644)
		if (err == nil) != (s != "ro") {
			t.Errorf("writing into %s: %v", p, err)
		}
		must(t, os.WriteFile(filepath.Join(dir+"-snap", "file9"), []byte("changed"), 0o644))
		testenv.Run(t, "btrfs", "subvolume", "delete", "--commit-after", dir)
	}
	testenv.Umount(t, mnt)
}
