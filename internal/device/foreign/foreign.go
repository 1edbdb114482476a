// Package foreign tells what a device holds that holds no Btrfs volume, so that an error can say what to do.
//
// It judges by a few bytes at fixed places, reads no more than those and the partition table, and may be wrong: what it says is
// for people, nothing is decided by it.
package foreign

import (
	"fmt"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/partition"
)

// mark is what tells a format.
type mark struct {
	off   int64
	magic string
	what  string
}

const (
	decompress = "; decompress it first"
	toRaw      = "; make a raw image of it (qemu-img convert -O raw), or serve it with qemu-nbd and name its nbd+unix:// URL"
	notBtrfs   = ", which is another file system"
)

// marks are in the order in which they are tried: containers before what may be left of older contents.
var marks = [...]mark{
	{0, "\x28\xb5\x2f\xfd", "a file compressed by zstd" + decompress},
	{0, "\x1f\x8b\x08", "a file compressed by gzip" + decompress},
	{0, "\xfd7zXZ\x00", "a file compressed by xz" + decompress},
	{0, "BZh", "a file compressed by bzip2" + decompress},
	{0, "\x04\x22\x4d\x18", "a file compressed by lz4" + decompress},
	{0, "PK\x03\x04", "a zip archive; unpack it first"},
	{0, "7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"},
	{257, "ustar", "a tar archive; unpack it first"},
	{0, "QFI\xfb", "a qcow2 disk image" + toRaw},
	{0, "KDMV", "a VMDK disk image" + toRaw},
	{0, "COWD", "a VMDK disk image" + toRaw},
	{0, "# Disk DescriptorFile", "a VMDK description; the disk is in the files that it names"},
	{0, "vhdxfile", "a VHDX disk image" + toRaw},
	{0, "conectix", "a VHD disk image" + toRaw},
	{64, "\x7f\x10\xda\xbe", "a VDI disk image" + toRaw},
	{0, "btrfs-stream\x00", "a stream of btrfs send, not a volume"},
	{0, "\x8b\x66\x95\x72\xe2\x25\x5c\xbd", "a dump of btrfs-image; make a volume of it first (btrfs-image -r)"},
	{0, "LUKS\xba\xbe", "an encrypted device (LUKS); open it first and name what cryptsetup makes"},
	{4096, "\xfc\x4e\x2b\xa9", "a member of a Linux RAID; assemble it first (mdadm)"},
	{512, "LABELONE", "a physical volume of LVM; name a logical volume"},
	{1080, "\x53\xef", "ext2, ext3 or ext4" + notBtrfs},
	{0, "XFSB", "XFS" + notBtrfs},
	{3, "NTFS    ", "NTFS" + notBtrfs},
	{3, "EXFAT   ", "exFAT" + notBtrfs},
	{82, "FAT32   ", "FAT" + notBtrfs},
	{54, "FAT1", "FAT" + notBtrfs},
	{0, "hsqs", "squashfs" + notBtrfs},
	{32769, "CD001", "an ISO 9660 image" + notBtrfs},
	{4086, "SWAPSPACE2", "swap space"},
}

// Describe tells what d seems to hold, and what to do about it; "" when it does not know.
func Describe(d device.Device) string {
	for _, m := range marks {
		if holds(d, m.off, m.magic) {
			return m.what
		}
	}
	return partitions(d)
}

func holds(d device.Device, off int64, magic string) bool {
	b := make([]byte, len(magic))
	n, _ := d.ReadAt(b, off)
	return n == len(b) && string(b) == magic
}

// btrfs is where the first superblock of a volume has its magic.
var btrfs = mark{65536 + 64, "_BHRfS_M", ""}

// partitions names the partitions of a disk, those with volumes if there are any.
func partitions(d device.Device) string {
	table, err := partition.Read(d, d.Size())
	if err != nil || len(table.Entries) == 0 {
		return ""
	}
	var all, volumes []string
	for _, e := range table.Entries {
		number := fmt.Sprintf("#%d", e.Number)
		all = append(all, number)
		if e.Start < d.Size() && holds(d, e.Start+btrfs.off, btrfs.magic) {
			volumes = append(volumes, number)
		}
	}
	if len(volumes) == 0 {
		return fmt.Sprintf("a disk with partitions (%s), none of them Btrfs by its first superblock; #N behind the name means partition N", few(all))
	}
	return fmt.Sprintf("a disk with partitions; add the number of the one that is meant to the name: %s", few(volumes))
}

// few puts the first ones of a list into a sentence.
func few(list []string) string {
	const most = 8
	if len(list) > most {
		list = append(list[:most:most], "…")
	}
	return strings.Join(list, ", ")
}
