package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

var le = binary.LittleEndian

// putMBR writes a boot record with (type, start, length) triples.
func putMBR(b []byte, entries ...[3]uint32) {
	for i, e := range entries {
		p := b[mbrEntries+16*i:]
		p[4] = byte(e[0])
		le.PutUint32(p[8:], e[1])
		le.PutUint32(p[12:], e[2])
	}
	b[mbrSignature], b[mbrSignature+1] = 0x55, 0xaa
}

// mbrDisk has primaries 1 and 3 and two logical partitions in an extended one.
func mbrDisk() []byte {
	b := make([]byte, 1<<20)
	putMBR(b, [3]uint32{0x83, 100, 50}, [3]uint32{0x0f, 1000, 800}, [3]uint32{0x83, 200, 60})
	putMBR(b[1000*512:], [3]uint32{0x83, 8, 10}, [3]uint32{0x05, 400, 100})
	putMBR(b[1400*512:], [3]uint32{0x83, 16, 20})
	return b
}

// gptDisk has partitions 1 and 3.
func gptDisk(ss int) []byte {
	b := make([]byte, 1<<20)
	putMBR(b, [3]uint32{typeGPT, 1, 0xffffffff})
	entries := b[2*ss:][:4*128]
	put := func(i int, first, last uint64, name string) {
		e := entries[128*i:]
		e[0] = 1
		le.PutUint64(e[32:], first)
		le.PutUint64(e[40:], last)
		for j, c := range []byte(name) {
			e[56+2*j] = c
		}
	}
	put(0, 40, 49, "boot")
	put(2, 50, 149, "data")
	header := func(at int) {
		h := b[at*ss:]
		copy(h, "EFI PART")
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[72:], 2)
		le.PutUint32(h[80:], 4)
		le.PutUint32(h[84:], 128)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	}
	header(1)
	header(len(b)/ss - 1)
	return b
}

func show(t *testing.T, disk []byte) string {
	t.Helper()
	table, err := Read(strings.NewReader(string(disk)), int64(len(disk)))
	if err != nil {
		return err.Error()
	}
	out := table.Scheme
	for _, e := range table.Entries {
		out += fmt.Sprintf(" %d%s[%d,%d)", e.Number, e.Name, e.Start, e.Start+e.Size)
	}
	return out
}

func TestRead(t *testing.T) {
	if got := show(t, mbrDisk()); got != "MBR 1[51200,76800) 5[516096,521216) 6[724992,735232) 3[102400,133120)" {
		t.Error(got)
	}
	for _, ss := range []int{512, 4096} {
		want := fmt.Sprintf("GPT 1boot[%d,%d) 3data[%d,%d)", 40*ss, 50*ss, 50*ss, 150*ss)
		disk := gptDisk(ss)
		if got := show(t, disk); got != want {
			t.Error(got)
		}
		disk[ss+20]++ // the first header is broken, the last is not
		if got := show(t, disk); got != want {
			t.Error(got)
		}
		disk[2*ss]++ // the entries are broken
		if got := show(t, disk); !strings.Contains(got, "checksum") {
			t.Error(got)
		}
	}
	if got := show(t, make([]byte, 1<<20)); got != ErrNoTable.Error() {
		t.Error(got)
	}
	loop := mbrDisk()
	putMBR(loop[1400*512:], [3]uint32{0x83, 16, 20}, [3]uint32{0x05, 400, 100})
	if got := show(t, loop); !strings.Contains(got, "more than") {
		t.Error(got)
	}
}

func TestParse(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"disk", "odd#1"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]Target{
		"disk":            {Path: "disk"},
		"disk#2":          {Path: "disk", Partition: 2},
		"odd#1":           {Path: "odd#1"},
		"odd#1#3":         {Path: "odd#1", Partition: 3},
		"disk@1M":         {Path: "disk", Offset: 1 << 20},
		"disk@0x200+2g":   {Path: "disk", Offset: 512, Size: 2 << 30},
		"none#1":          {Path: "none#1"},
		"#1":              {Path: "#1"},
		"a@b/none":        {Path: "a@b/none"},
		"disk@4096+10000": {Path: "disk", Offset: 4096, Size: 10000},

		"nbd://host/disk":                {Path: "nbd://host/disk"},
		"nbd://host/disk#2":              {Path: "nbd://host/disk", Partition: 2},
		"nbd://me@host/disk":             {Path: "nbd://me@host/disk"},
		"nbd+unix:///x?socket=/run/s@1M": {Path: "nbd+unix:///x?socket=/run/s", Offset: 1 << 20},
	} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"disk#0", "disk#x", "disk@", "disk@-1", "disk@1+0", "disk@9999999T", "disk@1M+", "disk#", "nbd://host/disk#x"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %+v", in, got)
		}
	}
}

func TestOpen(t *testing.T) {
	disk := gptDisk(512)
	copy(disk[50*512:], "here")
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for target, size := range map[string]int64{
		path: 1 << 20, path + "#3": 51200, path + "@25600": 1<<20 - 25600, path + "@25600+4096": 4096,
	} {
		d, err := Open(target, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4)
		if d.Size() != size {
			t.Errorf("%s: %d bytes", target, d.Size())
		}
		if _, err := d.ReadAt(p, 0); err != nil || size != 1<<20 && string(p) != "here" {
			t.Errorf("%s: read %q, %v", target, p, err)
		}
		d.Close() // or the next is refused by the lock
	}
	for _, target := range []string{path + "#2", path + "@2M", path + "@1M+1"} {
		if _, err := Open(target, device.Options{}); err == nil {
			t.Errorf("%s was opened", target)
		}
	}
	if _, err := Open(path+"@1M+1", device.Options{}); !errors.Is(err, device.ErrOutOfRange) {
		t.Error(err)
	}
}

// mend makes the checksums right in what looks like the first or last header of a GPT.
func mend(disk []byte) {
	le := binary.LittleEndian
	for _, ss := range []int{512, 4096} {
		for _, at := range []int{ss, len(disk)/ss*ss - ss} {
			if at < 0 || at+ss > len(disk) || string(disk[at:at+8]) != "EFI PART" {
				continue
			}
			h := disk[at : at+ss]
			from, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
			if from < 1<<32 && n < 1<<32 && from*uint64(ss)+n <= uint64(len(disk)) {
				le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[from*uint64(ss):][:n]))
			}
			if size := le.Uint32(h[12:]); size >= 92 && int(size) <= ss {
				clear(h[16:20])
				le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:size]))
			}
		}
	}
}

// FuzzRead reads partition tables, GPTs behind right checksums: what is read lies where it can be told.
func FuzzRead(f *testing.F) {
	small := make([]byte, 8*512)
	putMBR(small, [3]uint32{0x83, 100, 50}, [3]uint32{0x0f, 4, 800})
	putMBR(small[4*512:], [3]uint32{0x83, 8, 10}, [3]uint32{0x05, 2, 100})
	putMBR(small[6*512:], [3]uint32{0x83, 16, 20})
	f.Add(small)
	f.Add(gptDisk(512)[:4<<10])
	f.Add(gptDisk(4096)[:16<<10])
	f.Fuzz(func(t *testing.T, start []byte) {
		disk := make([]byte, 1<<20)
		copy(disk, start)
		mend(disk)
		table, err := Read(bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			return
		}
		if len(table.Entries) > gptTableMax/gptEntryMin {
			t.Errorf("%d entries", len(table.Entries))
		}
		for _, e := range table.Entries {
			if e.Start < 0 || e.Size < 0 || e.Start+e.Size < 0 {
				t.Errorf("%+v", e)
			}
		}
	})
}
