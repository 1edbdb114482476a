package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const seed = 4711

// array is a chunk on devices of its own, and what it should hold.
type array struct {
	chunk *Chunk
	devs  map[ondisk.DevID]device.Device
	m     *Map
	io    *IO
	want  []byte
}

const start = 1 << 30 // logical address of the chunk

func newArray(t *testing.T, profile uint64, n int, rows int) *array {
	t.Helper()
	a := &array{devs: map[ondisk.DevID]device.Device{}, m: NewMap()}
	c := Chunk{Logical: start, ChunkItem: ondisk.ChunkItem{StripeLen: ondisk.StripeLen, Type: ondisk.BlockGroupData | profile, SubStripes: 1}}
	if profile == ondisk.BlockGroupRAID10 {
		c.SubStripes = 2
	}
	for i := range n {
		id, off := ondisk.DevID(i+1), uint64(i+1)<<20
		if profile == ondisk.BlockGroupDUP {
			id = 1
		}
		a.devs[id] = device.NewMem(16 << 20)
		c.Stripes = append(c.Stripes, ondisk.Stripe{DevID: id, Offset: off})
	}
	c.Length = uint64(rows * ondisk.StripeLen * c.dataStripes())
	if err := a.m.Insert(c); err != nil {
		t.Fatal(err)
	}
	a.chunk, _ = a.m.Find(start)
	a.io = NewIO(a.m, a.devs)
	a.want = make([]byte, c.Length)
	return a
}

// without is the array with some devices missing.
func (a *array) without(ids ...ondisk.DevID) *IO {
	devs := map[ondisk.DevID]device.Device{}
	for id, d := range a.devs {
		devs[id] = d
	}
	for _, id := range ids {
		delete(devs, id)
	}
	return NewIO(a.m, devs)
}

func (a *array) write(t *testing.T, rng *rand.Rand) {
	t.Helper()
	off := rng.IntN(len(a.want)/512) * 512
	n := 512 << rng.IntN(11)
	if rng.IntN(4) == 0 { // whole rows have a way of their own
		row := a.chunk.dataStripes() * ondisk.StripeLen
		off, n = off/row*row, row*(1+rng.IntN(2))
	}
	n = min(n, len(a.want)-off)
	p := a.want[off : off+n]
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	if err := a.io.Write(context.Background(), start+ondisk.Bytenr(off), p); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}

// readable reads everything piece by piece, in the first way that works; it gives
// what it found.
func readable(in *IO, n int) ([]byte, error) {
	got := make([]byte, n)
	for off := 0; off < n; off += 16 << 10 {
		p := got[off:min(off+16<<10, n)]
		at := start + ondisk.Bytenr(off)
		var err error
		for way := range in.Mirrors(at) {
			if err = in.Read(context.Background(), at, way, p); err == nil {
				break
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

var profiles = []struct {
	name    string
	profile uint64
	n       int
}{
	{"single", 0, 1},
	{"dup", ondisk.BlockGroupDUP, 2},
	{"raid0 of 1", ondisk.BlockGroupRAID0, 1},
	{"raid0 of 3", ondisk.BlockGroupRAID0, 3},
	{"raid1", ondisk.BlockGroupRAID1, 2},
	{"raid1c3", ondisk.BlockGroupRAID1C3, 3},
	{"raid1c4", ondisk.BlockGroupRAID1C4, 4},
	{"raid10 of 2", ondisk.BlockGroupRAID10, 2},
	{"raid10 of 6", ondisk.BlockGroupRAID10, 6},
	{"raid5 of 2", ondisk.BlockGroupRAID5, 2},
	{"raid5 of 4", ondisk.BlockGroupRAID5, 4},
	{"raid6 of 3", ondisk.BlockGroupRAID6, 3},
	{"raid6 of 5", ondisk.BlockGroupRAID6, 5},
}

// TestProfiles writes at random and reads back: in every way, and with as many
// devices missing as the profile tolerates.
func TestProfiles(t *testing.T) {
	for _, c := range profiles {
		t.Run(c.name, func(t *testing.T) {
			a := newArray(t, c.profile, c.n, 3)
			rng := rand.New(rand.NewPCG(seed, uint64(c.n)))
			for range 25 {
				a.write(t, rng)
			}
			got := make([]byte, len(a.want))
			for way := range a.io.Mirrors(start) {
				if err := a.io.Read(context.Background(), start, way, got); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, a.want) {
					t.Errorf("way %d reads something else", way)
				}
			}
			a.checkParity(t)
			for x := range a.devs {
				for y := range a.devs {
					if x <= y {
						a.checkMissing(t, x, y)
					}
				}
			}
		})
	}
}

// checkMissing reads without devices x and y, which may be one.
func (a *array) checkMissing(t *testing.T, x, y ondisk.DevID) {
	t.Helper()
	lost := 1
	if x != y {
		lost = 2
	}
	got, err := readable(a.without(x, y), len(a.want))
	var missing *MissingError
	switch {
	case err == nil && !bytes.Equal(got, a.want):
		t.Errorf("without %d and %d it reads something else", x, y)
	case err != nil && lost <= a.chunk.Tolerated():
		t.Errorf("without %d and %d: %v", x, y, err)
	case err != nil && !errors.As(err, &missing):
		t.Errorf("without %d and %d: %v does not name the missing device", x, y, err)
	}
}

// checkParity compares P and Q of each row with their definitions, at the places
// that FORMAT names.
func (a *array) checkParity(t *testing.T) {
	t.Helper()
	c := a.chunk
	d, n := c.dataStripes(), len(c.Stripes)
	for row := 0; c.parity() > 0 && row < len(a.want)/(d*ondisk.StripeLen); row++ {
		p, q := make([]byte, ondisk.StripeLen), make([]byte, ondisk.StripeLen)
		for j := d - 1; j >= 0; j-- {
			for i, b := range a.want[(row*d+j)*ondisk.StripeLen:][:ondisk.StripeLen] {
				p[i] ^= b
				q[i] = q[i]<<1 ^ q[i]>>7*0x1d ^ b
			}
		}
		for k, want := range [][]byte{p, q}[:c.parity()] {
			s := c.Stripes[(row+d+k)%n]
			got := make([]byte, ondisk.StripeLen)
			if _, err := a.devs[s.DevID].ReadAt(got, int64(s.Offset)+int64(row)*ondisk.StripeLen); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("row %d: parity %d is wrong", row, k)
			}
		}
	}
}

// slow lets others run between a read and what is done with it.
type slow struct{ device.Device }

func (s slow) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Device.ReadAt(p, off)
	time.Sleep(20 * time.Microsecond)
	return n, err
}

// TestParallelRows: writers of one row must not undo each other's parity.
func TestParallelRows(t *testing.T) {
	a := newArray(t, ondisk.BlockGroupRAID6, 5, 2)
	for id, d := range a.devs {
		a.devs[id] = slow{d}
	}
	rng := rand.New(rand.NewPCG(seed, 9))
	for i := range a.want {
		a.want[i] = byte(rng.Uint32())
	}
	var wg sync.WaitGroup
	for unit := range len(a.want) / ondisk.StripeLen {
		wg.Go(func() {
			for off := unit * ondisk.StripeLen; off < (unit+1)*ondisk.StripeLen; off += 8192 {
				if err := a.io.Write(context.Background(), start+ondisk.Bytenr(off), a.want[off:off+8192]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	a.checkParity(t)
}

// TestWholeRowsReadNothing: the speed of large writes depends on it.
func TestWholeRowsReadNothing(t *testing.T) {
	a := newArray(t, ondisk.BlockGroupRAID5, 3, 4)
	for id, d := range a.devs {
		a.devs[id] = faultdev.New(d, faultdev.Rule{Op: faultdev.Read})
	}
	if err := NewIO(a.m, a.devs).Write(context.Background(), start, a.want); err != nil {
		t.Error(err)
	}
	for id, d := range a.devs {
		if n := d.(*faultdev.Dev).Calls(faultdev.Write); n != 4 {
			t.Errorf("device %d: %d writes for 4 rows", id, n)
		}
	}
}

// TestUnreadableNeighbour: a row with one unreadable unit can still be written,
// and keeps that unit rebuildable.
func TestUnreadableNeighbour(t *testing.T) {
	for _, profile := range []uint64{ondisk.BlockGroupRAID5, ondisk.BlockGroupRAID6} {
		a := newArray(t, profile, 4, 2)
		rng := rand.New(rand.NewPCG(seed, 3))
		for range 20 {
			a.write(t, rng)
		}
		for id, d := range a.devs {
			bad := map[ondisk.DevID]device.Device{}
			for k, v := range a.devs {
				bad[k] = v
			}
			bad[id] = faultdev.New(d, faultdev.Rule{Op: faultdev.Read})
			a.io = NewIO(a.m, bad)
			for range 5 {
				a.write(t, rng)
			}
			a.checkParity(t)
		}
	}
}

// TestOutside: addresses that no chunk holds, and ranges that leave one.
func TestOutside(t *testing.T) {
	a := newArray(t, ondisk.BlockGroupRAID5, 3, 2)
	p := make([]byte, 4096)
	for _, at := range []ondisk.Bytenr{0, start - 1, start + ondisk.Bytenr(len(a.want)) - 4095, start + ondisk.Bytenr(len(a.want)), 1<<64 - 1} {
		var corrupt *ondisk.CorruptError
		if err := a.io.Read(context.Background(), at, 0, p); !errors.As(err, &corrupt) {
			t.Errorf("read at %d: %v", at, err)
		}
		if err := a.io.Write(context.Background(), at, p); !errors.As(err, &corrupt) {
			t.Errorf("write at %d: %v", at, err)
		}
	}
	if err := a.io.Discard(start, a.chunk.Length); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.io.Write(ctx, start, p); !errors.Is(err, context.Canceled) {
		t.Error("a cancelled write:", err)
	}
}

// TestBeyondDevice: a chunk that a device is too short for cannot be read there, which is not the end of a file.
func TestBeyondDevice(t *testing.T) {
	d := device.NewMem(64 << 10)
	m := NewMap()
	c := single(1<<20, ondisk.Stripe{DevID: 1, Offset: 0})
	if err := m.Insert(*c); err != nil {
		t.Fatal(err)
	}
	cio := NewIO(m, map[ondisk.DevID]device.Device{1: d})
	for off, good := range map[uint64]bool{0: true, 60 << 10: true, 62 << 10: false, 64 << 10: false, 1 << 20: false} {
		err := cio.Read(context.Background(), c.Logical+ondisk.Bytenr(off), 0, make([]byte, 4096))
		if good != (err == nil) || !good && (!errors.Is(err, device.ErrOutOfRange) || errors.Is(err, io.EOF)) {
			t.Errorf("at %d: %v", off, err)
		}
	}
}

// TestNothingElse: writes touch the chunk's stripes only.
func TestNothingElse(t *testing.T) {
	for _, c := range profiles {
		a := newArray(t, c.profile, c.n, 2)
		rng := rand.New(rand.NewPCG(seed, 5))
		for range 20 {
			a.write(t, rng)
		}
		for id, d := range a.devs {
			all := make([]byte, d.Size())
			if _, err := d.ReadAt(all, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			for _, s := range a.chunk.Stripes {
				if s.DevID == id {
					clear(all[s.Offset:][:a.chunk.DevExtentLen()])
				}
			}
			if !bytes.Equal(all, make([]byte, len(all))) {
				t.Errorf("%s: device %d was written outside the stripes", c.name, id)
			}
		}
	}
}

// TestPlan: every profile finds its places, without overlaps, and no more than
// there is.
func TestPlan(t *testing.T) {
	const devSize = 2 << 30
	for _, c := range profiles {
		for devices := 1; devices <= 6; devices++ {
			var devs []DevSpec
			for i := range devices {
				devs = append(devs, DevSpec{ID: ondisk.DevID(i + 1), Total: devSize, Used: [][2]uint64{{4 << 20, 12 << 20}}})
			}
			got, err := Plan(NewMap(), devs, ondisk.BlockGroupData|c.profile, 4096)
			if need, _ := minStripes(c.profile); devices < need && c.profile != ondisk.BlockGroupDUP {
				if !errors.Is(err, ErrNoRoom) {
					t.Errorf("%s on %d devices: %v", c.name, devices, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s on %d devices: %v", c.name, devices, err)
				continue
			}
			if err := places(got, devSize); err != nil {
				t.Errorf("%s on %d devices: %v", c.name, devices, err)
			}
		}
	}
}

func places(c Chunk, devSize uint64) error {
	length := c.DevExtentLen()
	for i, s := range c.Stripes {
		if s.Offset < 12<<20 || s.Offset+length > devSize {
			return fmt.Errorf("stripe %d at %d, %d bytes", i, s.Offset, length)
		}
		for _, o := range c.Stripes[:i] {
			if o.DevID == s.DevID && o.Offset < s.Offset+length && s.Offset < o.Offset+length {
				return fmt.Errorf("stripes at %d and %d overlap", o.Offset, s.Offset)
			}
		}
	}
	return nil
}

// TestSuperRanges: the copy at 64 MiB of a single chunk, and the row around it of
// RAID5.
func TestSuperRanges(t *testing.T) {
	single := Chunk{Logical: 20 << 20, ChunkItem: ondisk.ChunkItem{Length: 100 << 20, Stripes: []ondisk.Stripe{{DevID: 1, Offset: 20 << 20}}}}
	if got := fmt.Sprint(single.SuperRanges()); got != "[[67108864 67174400]]" {
		t.Error("single:", got)
	}
	raid5 := single
	raid5.Type, raid5.Length = ondisk.BlockGroupRAID5, 200<<20
	raid5.Stripes = []ondisk.Stripe{{DevID: 1, Offset: 20 << 20}, {DevID: 2, Offset: 70 << 20}, {DevID: 3, Offset: 70 << 20}}
	row := uint64(44<<20) / ondisk.StripeLen
	from := 20<<20 + row*2*ondisk.StripeLen
	if got, want := fmt.Sprint(raid5.SuperRanges()), fmt.Sprintf("[[%d %d]]", from, from+2*ondisk.StripeLen); got != want {
		t.Error("raid5:", got, "want", want)
	}
}
