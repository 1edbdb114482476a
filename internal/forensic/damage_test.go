package forensic_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// load reads the devices of a volume of the corpus into memory.
func load(t testing.TB, name string) (devs []*device.Mem) {
	t.Helper()
	for _, p := range testenv.ReadImages(t, name) {
		f, err := os.Open(p)
		must(t, err)
		defer f.Close()
		fi, err := f.Stat()
		must(t, err)
		m := device.NewMem(fi.Size())
		buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
		for off := int64(0); off < fi.Size(); off += int64(len(buf)) {
			n, err := f.ReadAt(buf, off)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if string(buf[:n]) != string(zero[:n]) {
				_, err := m.WriteAt(buf[:n], off)
				must(t, err)
			}
		}
		devs = append(devs, m)
	}
	return devs
}

func clones(devs []*device.Mem) (out []*device.Mem) {
	for _, d := range devs {
		out = append(out, d.Clone())
	}
	return out
}

func given(devs []*device.Mem) (out []btrfs.Device) {
	for _, d := range devs {
		out = append(out, d)
	}
	return out
}

// super reads copy i of a superblock; nil when there is none.
func super(t testing.TB, d *device.Mem, i int) *ondisk.Superblock {
	t.Helper()
	b := make([]byte, ondisk.SuperSize)
	if _, err := d.ReadAt(b, int64(ondisk.SuperOffset(i))); err != nil {
		return nil
	}
	sb, err := ondisk.DecodeSuper(b)
	if err != nil {
		return nil
	}
	return sb
}

// supers changes the bytes of every copy of the superblock and makes the checksums right.
func supers(t testing.TB, devs []*device.Mem, change func(b []byte)) {
	t.Helper()
	n := 0
	for _, d := range devs {
		for i := range ondisk.SuperCopies {
			sb := super(t, d, i)
			if sb == nil {
				continue
			}
			b := make([]byte, ondisk.SuperSize)
			off := int64(ondisk.SuperOffset(i))
			_, err := d.ReadAt(b, off)
			must(t, err)
			change(b)
			if string(b[64:72]) == ondisk.SuperMagic {
				checksum.Sum(checksum.Type(sb.CsumType), b[:32], b[32:])
			}
			_, err = d.WriteAt(b, off)
			must(t, err)
			n++
		}
	}
	if n < len(devs) {
		t.Fatal("a device has no superblock")
	}
}

// wipe overwrites the tree blocks that match with zeros, wherever they lie, and gives their number.
func wipe(t testing.TB, devs []*device.Mem, match func(sb *ondisk.Superblock, b ondisk.Block) bool) (n int) {
	t.Helper()
	sb := super(t, devs[0], 0)
	if sb == nil {
		sb = super(t, devs[0], 1)
	}
	buf, zero := make([]byte, 1<<20), make([]byte, sb.Nodesize)
	for _, d := range devs {
		for off := int64(0); off < d.Size(); off += int64(len(buf)) {
			have, err := d.ReadAt(buf, off)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			for i := 0; i+4096 <= have; i += int(sb.Sectorsize) {
				b := ondisk.Block(buf[i:have])
				if b.FSID() != sb.TreeUUID() || string(b[64:72]) == ondisk.SuperMagic || !match(sb, b) {
					continue
				}
				_, err := d.WriteAt(zero[:min(len(zero), int(d.Size()-off)-i)], off+int64(i))
				must(t, err)
				n++
			}
		}
	}
	return n
}

// damage is a way to lose trees.
type damage struct {
	name string
	do   func(t testing.TB, devs []*device.Mem)
}

func chunkTree(sb *ondisk.Superblock, b ondisk.Block) bool { return b.Owner() == ondisk.ChunkTree }
func chunkRoot(sb *ondisk.Superblock, b ondisk.Block) bool { return b.Bytenr() == sb.ChunkRoot }
func rootRoot(sb *ondisk.Superblock, b ondisk.Block) bool  { return b.Bytenr() == sb.Root }

func wiped(match ...func(sb *ondisk.Superblock, b ondisk.Block) bool) func(t testing.TB, devs []*device.Mem) {
	return func(t testing.TB, devs []*device.Mem) {
		t.Helper()
		for _, m := range match {
			if wipe(t, devs, m) == 0 {
				t.Fatal("nothing was damaged")
			}
		}
	}
}

var damages = []damage{
	{"chunk root", wiped(chunkRoot)},
	{"chunk tree", wiped(chunkTree)},
	{"root tree's root", wiped(rootRoot)},
	{"both roots", wiped(chunkRoot, rootRoot)},
	{"pointers", func(t testing.TB, devs []*device.Mem) {
		supers(t, devs, func(b []byte) { copy(b[80:96], "\x00\x10\x20\x30\x00\x00\x00\x00\x00\x40\x50\x60") })
	}},
	{"system chunks", func(t testing.TB, devs []*device.Mem) {
		supers(t, devs, func(b []byte) {
			for i := 811; i < 811+300; i++ {
				b[i] ^= byte(i) | 1
			}
		})
	}},
	{"superblocks", func(t testing.TB, devs []*device.Mem) { supers(t, devs, func(b []byte) { clear(b) }) }},
	{"superblocks and chunk tree", func(t testing.TB, devs []*device.Mem) {
		wipe(t, devs, chunkTree)
		supers(t, devs, func(b []byte) { clear(b) })
	}},
}

// contents lists everything in a volume: names, kinds, sizes, owners, times and the bytes of files.
func contents(t testing.TB, devs []btrfs.Device, opt btrfs.Options) (map[string]string, *btrfs.ForensicReport) {
	t.Helper()
	opt.ReadOnly, opt.NoReplay = true, true
	v, err := btrfs.OpenDevices(ctx, devs, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	out := map[string]string{}
	list(v.Top(), ".", out)
	return out, v.ForensicReport()
}

// list tells of a file and of all below it; an error stands for what could not be read.
func list(s *btrfs.Subvolume, name string, out map[string]string) {
	fi, err := s.Lstat(name)
	if err != nil {
		out[name] = " error"
		return
	}
	st := fi.Sys().(btrfs.Stat)
	text := fmt.Sprintf("%v %d %d:%d %v sub %d ino %d", fi.Mode(), fi.Size(), st.UID, st.GID, fi.ModTime(), st.Subvolume, st.Inode)
	var sub []fs.DirEntry
	switch {
	case fi.Mode().IsRegular() && fi.Size() > 64<<20:
		err = fs.ErrInvalid // no file of the tests is that large: its size is damaged
	case fi.Mode().IsRegular():
		var b []byte
		b, err = s.ReadFile(name)
		text += fmt.Sprintf(" %x", sha256.Sum256(b))
	case fi.Mode()&fs.ModeSymlink != 0:
		var target string
		target, err = s.ReadLink(name)
		text += " -> " + target
	case fi.IsDir():
		sub, err = s.ReadDir(name)
	}
	if err != nil {
		text += " error"
	}
	out[name] = text
	for _, e := range sub {
		if strings.Count(name, "/") > 40 {
			return // a directory that holds itself
		}
		list(s, path.Join(name, e.Name()), out)
	}
}

// same compares what is left with what was there.
func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	bad := 0
	for name, w := range want {
		if g := got[name]; g != w {
			if bad++; bad < 5 {
				t.Errorf("%q:\n got %s\nwant %s", name, g, w)
			}
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			if bad++; bad < 5 {
				t.Errorf("%q is too much", name)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d names differ", bad, len(want))
	}
}
