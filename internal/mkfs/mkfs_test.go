package mkfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

const mib = 1 << 20

// mems makes devices of a size in memory.
func mems(n int, size int64) []device.Device {
	var out []device.Device
	for range n {
		out = append(out, device.NewMem(size))
	}
	return out
}

// files makes image files and opens them.
func files(t *testing.T, n int, size int64) ([]string, []device.Device) {
	t.Helper()
	dir := testenv.Scratch(t)
	var names []string
	var devs []device.Device
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("image%d", i))
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
		d, err := device.OpenFile(name, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		names, devs = append(names, name), append(devs, d)
	}
	return names, devs
}

func closeAll(t *testing.T, devs []device.Device) {
	t.Helper()
	for _, d := range devs {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func mustMake(t *testing.T, devs []device.Device, opt mkfs.Options) *mkfs.Result {
	t.Helper()
	r, err := mkfs.Make(context.Background(), devs, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// judge checks a volume by our own checker.
func judge(t *testing.T, v *volume.Volume) {
	t.Helper()
	r, err := check.Check(context.Background(), v, check.Options{Data: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range r.Findings {
		if i < 10 {
			t.Errorf("check: %v", f)
		}
	}
}

// variants are options that all must give a sound volume.
func variants() map[string]struct {
	devs int
	size int64
	opt  mkfs.Options
} {
	type v = struct {
		devs int
		size int64
		opt  mkfs.Options
	}
	return map[string]v{
		"default":     {1, 1 << 30, mkfs.Options{Label: "a label"}},
		"smallest":    {1, 16 * mib, mkfs.Options{}},
		"48MiB":       {1, 48 * mib, mkfs.Options{}},
		"64MiB":       {1, 64 * mib, mkfs.Options{}},
		"100MiB":      {1, 100 * mib, mkfs.Options{Metadata: "single"}},
		"nodes4K":     {1, 256 * mib, mkfs.Options{Nodesize: 4096, Checksum: checksum.XXHash64}},
		"nodes64K":    {1, 256 * mib, mkfs.Options{Nodesize: 65536, Checksum: checksum.SHA256}},
		"blake2":      {1, 300*mib + 512*5, mkfs.Options{Nodesize: 32768, Checksum: checksum.Blake2b, Metadata: "single"}},
		"old":         {1, 256 * mib, mkfs.Options{Features: []string{"^no-holes,^free-space-tree", "^extref,^skinny-metadata"}}},
		"no bgt":      {1, 256 * mib, mkfs.Options{Features: []string{"^block-group-tree"}}},
		"5TiB":        {1, 5 << 40, mkfs.Options{}},
		"raid1":       {2, 256 * mib, mkfs.Options{Data: "raid1"}},
		"raid0":       {3, 256 * mib, mkfs.Options{Data: "raid0", Metadata: "raid1c3"}},
		"raid10":      {4, 256 * mib, mkfs.Options{Data: "raid10", Metadata: "raid10"}},
		"raid1c4":     {4, 256 * mib, mkfs.Options{Data: "raid1c3", Metadata: "raid1c4"}},
		"raid5":       {3, 256 * mib, mkfs.Options{Data: "raid5", Metadata: "raid1"}},
		"raid6":       {4, 256 * mib, mkfs.Options{Data: "raid6", Metadata: "raid6"}},
		"dup":         {1, 256 * mib, mkfs.Options{Data: "dup"}},
		"two devices": {2, 128 * mib, mkfs.Options{Metadata: "dup"}},
	}
}

// TestEmptyOpens: our own reader opens what was made and finds all trees.
func TestEmptyOpens(t *testing.T) {
	for name, v := range variants() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			devs := mems(v.devs, v.size)
			r := mustMake(t, devs, v.opt)
			vol, err := volume.Open(ctx, devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer vol.Close()
			if err := vol.WriteProblem(); err != nil {
				t.Errorf("may not be written: %v", err)
			}
			judge(t, vol)
			sb := vol.Super()
			if sb.FSID != r.UUID || sb.Label != v.opt.Label || sb.NumDevices != uint64(v.devs) || sb.TotalBytes != r.Size {
				t.Errorf("superblock says %v %q %d %d", sb.FSID, sb.Label, sb.NumDevices, sb.TotalBytes)
			}
			for _, id := range []ondisk.TreeID{ondisk.ExtentTree, ondisk.DevTree, ondisk.FSTree, ondisk.CsumTree, ondisk.UUIDTree, ondisk.DataRelocTree} {
				tree, err := vol.Tree(ctx, id)
				if err == nil {
					_, err = tree.RootBlock(ctx)
				}
				if err != nil {
					t.Errorf("%v: %v", id, err)
				}
			}
		})
	}
}

// TestEmptyJudged: btrfs check is silent and the kernel can write to it.
func TestEmptyJudged(t *testing.T) {
	testenv.NeedProgs(t)
	for name, v := range variants() {
		t.Run(name, func(t *testing.T) {
			images, devs := files(t, v.devs, v.size)
			mustMake(t, devs, v.opt)
			closeAll(t, devs)
			testenv.Check(t, images...)
			testenv.NeedKernel(t)
			dir := testenv.Mount(t, images)
			if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 300000), 0o644); err != nil {
				t.Error(err)
			}
			testenv.Run(t, "btrfs", "subvolume", "snapshot", dir, filepath.Join(dir, "snap"))
			testenv.Umount(t, dir)
			testenv.Check(t, images...)
		})
	}
}

func TestRefuses(t *testing.T) {
	for name, opt := range map[string]mkfs.Options{
		"node size":   {Nodesize: 5000},
		"sector size": {Sectorsize: 2048},
		"small nodes": {Nodesize: 4096, Sectorsize: 8192},
		"profile":     {Data: "raid7"},
		"parity":      {Data: "raid5"}, // on one device
		"devices":     {Metadata: "raid1"},
		"feature":     {Features: []string{"holes"}},
		"zoned":       {Features: []string{"zoned"}},
		"contradict":  {Features: []string{"block-group-tree", "^free-space-tree"}},
		"label":       {Label: string(make([]byte, 300))},
		"checksum":    {Checksum: 9},
		"compression": {Compression: "zstd:99"},
		"no source":   {Shrink: true},
		"directory":   {RootDir: "/nonexistent/directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dev := mems(1, 64*mib)
			if _, err := mkfs.Make(context.Background(), dev, opt); err == nil {
				t.Error("made a volume")
			}
		})
	}
	if _, err := mkfs.Make(context.Background(), mems(1, mib), mkfs.Options{}); !errors.Is(err, mkfs.ErrOptions) {
		t.Errorf("too small a device: %v", err)
	}
}
