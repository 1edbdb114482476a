package foreign

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

const mib = 1 << 20

// disk makes a device with bytes at offsets.
func disk(t *testing.T, size int64, parts map[int64]string) *device.Mem {
	t.Helper()
	d := device.NewMem(size)
	for off, b := range parts {
		if _, err := d.WriteAt([]byte(b), off); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// mbr is a boot record with Linux partitions of 1 MiB, which start where starts say, in MiB.
func mbr(starts ...uint32) string {
	b := make([]byte, 512)
	for i, start := range starts {
		e := b[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], start*2048)
		binary.LittleEndian.PutUint32(e[12:], 2048)
	}
	return string(b[:510]) + "\x55\xaa"
}

func TestDescribe(t *testing.T) {
	for name, c := range map[string]struct {
		size  int64
		parts map[int64]string
		want  string // contained; "" = nothing is known
	}{
		"empty":                 {0, nil, ""},
		"zeros":                 {mib, nil, ""},
		"zstd":                  {5, map[int64]string{0: "\x28\xb5\x2f\xfd\x00"}, "zstd; decompress"},
		"cut off in the magic":  {3, map[int64]string{0: "\x28\xb5\x2f"}, ""},
		"qcow2":                 {mib, map[int64]string{0: "QFI\xfb\x00\x00\x00\x03"}, "qemu-img"},
		"VMDK":                  {mib, map[int64]string{0: "KDMV"}, "qemu-img"},
		"ext4":                  {mib, map[int64]string{1080: "\x53\xef"}, "ext4, which is another"},
		"LVM":                   {mib, map[int64]string{512: "LABELONE"}, "logical volume"},
		"partitions":            {9 * mib, map[int64]string{0: mbr(1, 3)}, "(#1, #2), none of them"},
		"partition with Btrfs":  {9 * mib, map[int64]string{0: mbr(1, 3), 3*mib + 65600: "_BHRfS_M"}, "the name: #2"},
		"partition beyond it":   {2 * mib, map[int64]string{0: mbr(1, 1<<20)}, "(#1, #2), none"},
		"FAT is no boot record": {mib, map[int64]string{0: mbr(1)[:82] + "FAT32   " + mbr(1)[90:]}, "FAT, which"},
	} {
		got := Describe(disk(t, c.size, c.parts))
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
