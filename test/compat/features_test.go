package compat

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// What is done with a volume that has a feature.
const (
	refused = iota // the zero value: what is not known
	read
	written
)

// incompat are the incompatible features that are not refused.
var incompat = map[string]int{
	"mixed-backref": written, "default-subvol": written, "mixed-groups": written, "compress-lzo": written, "compress-zstd": written,
	"big-metadata": written, "extended-iref": written, "raid56": written, "skinny-metadata": written, "no-holes": written, "metadata-uuid": written,
	"raid1c34": written, "simple-quota": read,
}

// compatRO are the features that only a writer must know, and that we know.
var compatRO = map[string]int{"free-space-tree": written, "free-space-tree-valid": written, "verity": written, "block-group-tree": written}

// superFlags are the flags of the superblock that are not refused, by their bit.
var superFlags = map[int]int{0: written, 1: written, 2: written, 32: read, 33: read, 34: read}

const mib = 1 << 20

// editSuper changes every copy of the superblock of a device.
func editSuper(t *testing.T, d device.Device, change func(*ondisk.Superblock)) {
	t.Helper()
	for i := range ondisk.SuperCopies {
		at := int64(ondisk.SuperOffset(i))
		if at+ondisk.SuperSize > d.Size() {
			continue
		}
		b := make([]byte, ondisk.SuperSize)
		_, err := d.ReadAt(b, at)
		must(t, err)
		sb, err := ondisk.DecodeSuper(b)
		must(t, err)
		change(sb)
		must(t, sb.Encode(b))
		checksum.Sum(checksum.Type(sb.CsumType), b[:32], b[32:])
		_, err = d.WriteAt(b, at)
		must(t, err)
	}
}

// TestBits: every bit of the superblock, of those that nobody uses too, is known and stays as it is when the volume is
// written, or it is refused and named.
func TestBits(t *testing.T) {
	blank := device.NewMem(128 * mib)
	_, err := mkfs.Make(ctx, []device.Device{blank}, mkfs.Options{})
	must(t, err)
	for bit := range 64 {
		one := uint64(1) << bit
		name := ondisk.IncompatNames(one)[0]
		t.Run("incompat/"+name, func(t *testing.T) {
			access(t, blank, incompat[name], name, func(sb *ondisk.Superblock) bool {
				if old := sb.Incompat & one; old == 0 && one == ondisk.IncompatMetadataUUID {
					sb.MetadataUUID = sb.FSID
				}
				had := sb.Incompat&one != 0
				sb.Incompat |= one
				return had
			})
		})
		name2 := ondisk.CompatRONames(one)[0]
		t.Run("compat-ro/"+name2, func(t *testing.T) {
			access(t, blank, max(read, compatRO[name2]), name2, func(sb *ondisk.Superblock) bool {
				had := sb.CompatRO&one != 0
				sb.CompatRO |= one
				return had
			})
		})
		t.Run(fmt.Sprint("compat/bit ", bit), func(t *testing.T) {
			access(t, blank, written, "", func(sb *ondisk.Superblock) bool {
				had := sb.Compat&one != 0
				sb.Compat |= one
				return had
			})
		})
		t.Run(fmt.Sprint("flags/bit ", bit), func(t *testing.T) {
			access(t, blank, superFlags[bit], "", func(sb *ondisk.Superblock) bool {
				had := sb.Flags&one != 0
				sb.Flags |= one
				return had
			})
		})
	}
}

// access opens a copy of a volume whose superblock has a bit, which set sets and tells whether it was there before.
func access(t *testing.T, blank *device.Mem, want int, name string, set func(*ondisk.Superblock) bool) {
	t.Helper()
	dev := blank.Clone()
	editSuper(t, dev, func(sb *ondisk.Superblock) { set(sb) })
	for _, opt := range []btrfs.Options{{ReadOnly: true}, {}} {
		need := written
		if opt.ReadOnly {
			need = read
		}
		v, err := btrfs.OpenDevices(ctx, []device.Device{keep{dev}}, opt)
		if want < need {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("read-only %v: opened with error %v", opt.ReadOnly, err)
			}
			continue
		}
		must(t, err)
		if !opt.ReadOnly {
			must(t, v.Top().WriteFile("file", []byte("text"), 0o644))
		}
		must(t, v.Close())
	}
	b := make([]byte, ondisk.SuperSize)
	_, err := dev.ReadAt(b, int64(ondisk.SuperOffset(0)))
	must(t, err)
	sb, err := ondisk.DecodeSuper(b)
	must(t, err)
	if !set(sb) {
		t.Error("the bit is gone")
	}
}

// keep is a device that can be opened again after it was closed.
type keep struct{ device.Device }

func (keep) Close() error { return nil }

// TestKnownBits: the tables above and those of package ondisk name the same bits, but for those that are refused.
func TestKnownBits(t *testing.T) {
	for _, name := range slices.Concat(slices.Collect(maps.Keys(incompat)), slices.Collect(maps.Keys(compatRO))) {
		all := slices.Concat(ondisk.IncompatNames(^uint64(0)), ondisk.CompatRONames(^uint64(0)))
		if !slices.Contains(all, name) {
			t.Errorf("no bit is called %s", name)
		}
	}
}

// TestFreeSpaceTreeNotValid: a free space tree whose bit says that it is out of date is not believed, and left for the
// kernel to make anew.
func TestFreeSpaceTreeNotValid(t *testing.T) {
	image := testenv.Image(t, "fst-no-bgt")
	d, err := device.OpenFile(image, device.Options{})
	must(t, err)
	editSuper(t, d, func(sb *ondisk.Superblock) { sb.CompatRO &^= ondisk.CompatROFreeSpaceTreeValid })
	must(t, d.Close())
	v, err := btrfs.Open(ctx, image, btrfs.Options{})
	must(t, err)
	if slices.Contains(v.Info().Features, "free-space-tree-valid") {
		t.Error("the tree counts as valid")
	}
	change(t, v)
	must(t, v.Close())
	dir := testenv.Mount(t, []string{image})
	if b, err := os.ReadFile(dir + "/by-gobtrfs"); err != nil || len(b) != 100_000 {
		t.Errorf("the kernel reads %d bytes: %v", len(b), err)
	}
	must(t, os.WriteFile(dir+"/by-kernel", make([]byte, 100_000), 0o644))
	testenv.Umount(t, dir)
	testenv.Check(t, image)
}

// TestUnknownChecksum: a volume with an algorithm that is not known is not opened.
func TestUnknownChecksum(t *testing.T) {
	dev := device.NewMem(128 * mib)
	_, err := mkfs.Make(ctx, []device.Device{dev}, mkfs.Options{})
	must(t, err)
	editSuper(t, dev, func(sb *ondisk.Superblock) { sb.CsumType = 4 })
	if _, err := btrfs.OpenDevices(ctx, []device.Device{dev}, btrfs.Options{ReadOnly: true}); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("opened with error %v", err)
	}
}
