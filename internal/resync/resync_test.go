package resync

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

const size = 256 << 10 // of the extent

// TestBadSector: one sector of the current device cannot be read. The rest of what is copied together with it reaches the device that is behind; and
// if there is no checksum, which would show the old sector for what it is, bringing the device up to date fails.
func TestBadSector(t *testing.T) {
	testenv.NeedKernel(t)
	ctx := context.Background()
	for _, option := range []string{"datasum", "nodatasum"} {
		t.Run(option, func(t *testing.T) {
			dir := testenv.Scratch(t)
			images := []string{filepath.Join(dir, "d1.img"), filepath.Join(dir, "d2.img")}
			makeMirrors(t, images, option)
			good, behind := faultdev.New(openFile(t, images[0])), openFile(t, images[1])
			v, err := volume.Open(ctx, []device.Device{good}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			from, to := places(t, v)
			old := bytes.Repeat([]byte{0xee}, size)
			if _, err := behind.WriteAt(old, to); err != nil {
				t.Fatal(err)
			}
			good.Add(faultdev.Rule{Op: faultdev.Read, Off: from + 4096, Len: 4096})

			err = Device(ctx, v, 2, behind)
			var corrupt *ondisk.CorruptError
			if option == "nodatasum" && !errors.As(err, &corrupt) || option == "datasum" && err != nil {
				t.Fatal(err)
			}
			good.Clear()
			got, want := make([]byte, size), make([]byte, size)
			for d, p := range map[device.Device][]byte{good: want, behind: got} {
				if _, err := d.ReadAt(p, map[device.Device]int64{good: from, behind: to}[d]); err != nil {
					t.Fatal(err)
				}
			}
			copy(want[4096:8192], old)
			if !bytes.Equal(got, want) {
				t.Error("not all but the bad sector was copied")
			}
		})
	}
}

// makeMirrors has the kernel make a RAID1 volume with one file.
func makeMirrors(t *testing.T, images []string, option string) {
	t.Helper()
	for _, image := range images {
		f, err := os.Create(image)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(256<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Run(t, "mkfs.btrfs", "-q", "-m", "raid1", "-d", "raid1", images[0], images[1])
	mnt := testenv.Mount(t, images, option)
	if err := os.WriteFile(filepath.Join(mnt, "file"), bytes.Repeat([]byte("what is current "), size/16), 0o644); err != nil {
		t.Fatal(err)
	}
	testenv.Umount(t, mnt)
}

func openFile(t *testing.T, image string) device.Device {
	t.Helper()
	d, err := device.OpenFile(image, device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// places finds the file's extent on both devices.
func places(t *testing.T, v *volume.Volume) (first, second int64) {
	t.Helper()
	ctx := context.Background()
	tree, err := v.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tree.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		k := c.Key()
		if k.Type != ondisk.TypeExtentItem || k.Offset != size {
			continue
		}
		ch, _ := v.Chunks().Find(ondisk.Bytenr(k.Objectid))
		off := map[ondisk.DevID]int64{}
		for _, s := range ch.Stripes {
			off[s.DevID] = int64(s.Offset + uint64(ondisk.Bytenr(k.Objectid)-ch.Logical))
		}
		return off[1], off[2]
	}
	t.Fatal("the file's extent is not there: ", err)
	return 0, 0
}
