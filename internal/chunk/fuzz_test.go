package chunk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// What the chunks may lie on.
const (
	devices    = 5
	deviceSize = 16 << 30
)

// Where the system chunk array and its size lie in a superblock.
const arrayOff, arraySizeOff = 811, 160

// chunksOf gives the chunks of a real volume in the form of a system chunk array.
func chunksOf(f *testing.F, name string) (array []byte) {
	var devs []device.Device
	for _, p := range testenv.ReadImages(f, name) {
		dev, err := device.OpenFile(p, device.Options{ReadOnly: true})
		if err != nil {
			f.Fatal(err)
		}
		devs = append(devs, dev)
	}
	v, err := volume.Open(f.Context(), devs, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		f.Fatal(err)
	}
	defer v.Close()
	for _, c := range v.Chunks().All() {
		array = ondisk.Key{Objectid: ondisk.FirstChunkTreeObjectid, Type: ondisk.TypeChunkItem, Offset: uint64(c.Logical)}.Append(array)
		array = c.ChunkItem.Append(array)
	}
	return array
}

// FuzzChunks reads a system chunk array (chunk items have the same form) and does I/O through the map of its chunks.
func FuzzChunks(f *testing.F) {
	for _, name := range []string{"default", "mixed", "prof-dup", "prof-raid0", "prof-raid10", "prof-raid5", "prof-raid6", "prof-raid1c3", "prof-uneven"} {
		f.Add(chunksOf(f, name))
	}
	super := make([]byte, ondisk.SuperSize)
	sb := &ondisk.Superblock{Sectorsize: 4096, Nodesize: 16384, Leafsize: 16384, NumDevices: 1, TotalBytes: 1 << 30}
	if err := sb.Encode(super); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, array []byte) {
		array = array[:min(len(array), ondisk.SysArrayMax)]
		b := bytes.Clone(super)
		copy(b[arrayOff:], array)
		binary.LittleEndian.PutUint32(b[arraySizeOff:], uint32(len(array)))
		sb, err := ondisk.DecodeSuper(b)
		if err != nil {
			corrupt(t, err)
			return
		}
		m := chunk.NewMap()
		for _, c := range sb.SysChunks {
			if err := m.Insert(chunk.Chunk{Logical: c.Logical, ChunkItem: c.Chunk}); err != nil {
				corrupt(t, err)
			}
		}
		tryMap(t, m)
	})
}

func corrupt(t *testing.T, err error) {
	t.Helper()
	var c *ondisk.CorruptError
	if !errors.As(err, &c) {
		t.Errorf("%v is no CorruptError", err)
	}
}

// tryMap looks at every chunk of a map, and reads and writes at its borders.
func tryMap(t *testing.T, m *chunk.Map) {
	var now atomic.Pointer[chunk.Chunk]
	devs := map[ondisk.DevID]device.Device{}
	for id := range ondisk.DevID(devices) {
		devs[id] = guarded{device.NewMem(deviceSize), t, id, &now}
	}
	io := chunk.NewIO(m, devs)
	var end ondisk.Bytenr
	for _, c := range m.All() {
		if c.Logical < end || c.End() <= c.Logical {
			t.Fatalf("chunk [%d, %d) after one that ends at %d", c.Logical, c.End(), end)
		}
		end = c.End()
		now.Store(c)
		for _, at := range []ondisk.Bytenr{c.Logical, c.Logical + ondisk.Bytenr(c.Length/2), c.End() - 1} {
			if got, ok := m.Find(at); !ok || got != c {
				t.Fatalf("%d is not found in its chunk", at)
			}
		}
		for _, r := range c.SuperRanges() {
			if r[0] < c.Logical || r[1] > c.End() || r[0] >= r[1] {
				t.Errorf("superblocks in %v of chunk [%d, %d)", r, c.Logical, c.End())
			}
		}
		tryIO(t, io, c)
	}
}

// tryIO writes at the borders of a chunk and its stripe units, and reads it again from all mirrors.
func tryIO(t *testing.T, io *chunk.IO, c *chunk.Chunk) {
	ctx := t.Context()
	corrupt(t, io.Read(ctx, c.End()-1, 0, make([]byte, 2)))
	for i, off := range []uint64{0, min(c.Length, ondisk.StripeLen) - 1, c.Length / 2, c.Length - min(c.Length, 700)} {
		p := bytes.Repeat([]byte{byte(i + 1)}, int(min(700, c.Length-off)))
		at := c.Logical + ondisk.Bytenr(off)
		written := io.Write(ctx, at, p) == nil
		for mirror := range io.Mirrors(at) {
			got := make([]byte, len(p))
			err := io.Read(ctx, at, mirror, got)
			if written && apart(c) && (err != nil || !bytes.Equal(got, p)) {
				t.Errorf("chunk %+v: what was written at %d is not read from mirror %d: %v", c, at, mirror, err)
			}
		}
	}
}

// apart tells whether the stripes of a chunk lie on devices that are there, and apart from each other.
func apart(c *chunk.Chunk) bool {
	n := c.DevExtentLen()
	for i, a := range c.Stripes {
		if a.DevID >= devices || a.Offset+n > deviceSize {
			return false
		}
		for _, b := range c.Stripes[:i] {
			if a.DevID == b.DevID && a.Offset < b.Offset+n && b.Offset < a.Offset+n {
				return false
			}
		}
	}
	return true
}

// guarded is a device on which only the extents of one chunk may be touched.
type guarded struct {
	*device.Mem
	t   *testing.T
	id  ondisk.DevID
	now *atomic.Pointer[chunk.Chunk]
}

func (d guarded) inside(off int64, n int) {
	c := d.now.Load()
	for _, s := range c.Stripes {
		if s.DevID == d.id && uint64(off) >= s.Offset && uint64(off)+uint64(n) <= s.Offset+c.DevExtentLen() {
			return
		}
	}
	d.t.Errorf("device %d was used at %d, %d bytes, which is outside of chunk %+v", d.id, off, n, c)
}

func (d guarded) ReadAt(p []byte, off int64) (int, error) {
	d.inside(off, len(p))
	return d.Mem.ReadAt(p, off)
}

func (d guarded) WriteAt(p []byte, off int64) (int, error) {
	d.inside(off, len(p))
	return d.Mem.WriteAt(p, off)
}
