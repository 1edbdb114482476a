// Package devicetest holds what every device.Device must pass. It is used by tests only.
package devicetest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

const seed = 20090921 // of all random choices here

// Run runs the suite; open returns a new device of size zero bytes, and Run closes it.
func Run(t *testing.T, open func(t *testing.T, size int64) device.Device) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, device.Device)
	}{
		{"fresh", fresh},
		{"model", model},
		{"bounds", bounds},
		{"discard", discard},
		{"parallel", parallel},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, 1<<20)
			if d.Size() != 1<<20 {
				t.Errorf("size is %d, want %d", d.Size(), 1<<20)
			}
			c.run(t, d)
			if err := d.Flush(); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func fresh(t *testing.T, d device.Device) {
	p := bytes.Repeat([]byte{1}, int(d.Size()))
	if n, err := d.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatal(n, err)
	}
	if !bytes.Equal(p, make([]byte, len(p))) {
		t.Error("a new device is not zero")
	}
}

// model compares a device with a slice under reads and writes of all sizes.
func model(t *testing.T, d device.Device) {
	rng := rand.New(rand.NewPCG(seed, 1))
	want := make([]byte, d.Size())
	for range 300 {
		off := rng.IntN(len(want))
		n := min(1<<rng.IntN(18)+rng.IntN(3)-1, len(want)-off)
		if rng.IntN(2) == 0 {
			off, n = off&^4095, (n+4095)&^4095
		}
		p := make([]byte, n)
		if rng.IntN(3) > 0 {
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			copy(want[off:], p)
			if got, err := d.WriteAt(p, int64(off)); got != n || err != nil {
				t.Fatalf("seed %d: write %d at %d: %d, %v", seed, n, off, got, err)
			}
		}
		if got, err := d.ReadAt(p, int64(off)); got != n || err != nil {
			t.Fatalf("seed %d: read %d at %d: %d, %v", seed, n, off, got, err)
		}
		if !bytes.Equal(p, want[off:off+n]) {
			t.Fatalf("seed %d: %d bytes at %d differ from what was written", seed, n, off)
		}
	}
	all := make([]byte, len(want))
	if _, err := d.ReadAt(all, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(all, want) {
		t.Errorf("seed %d: at the end the device differs from what was written", seed)
	}
}

func bounds(t *testing.T, d device.Device) {
	size := d.Size()
	p := []byte("12345678")
	if _, err := d.WriteAt(p, size-8); err != nil {
		t.Error("last bytes:", err)
	}
	for _, off := range []int64{-1, -1 << 63, size - 7, size, size + 4096, 1<<63 - 1} {
		if _, err := d.WriteAt(p, off); !errors.Is(err, device.ErrOutOfRange) {
			t.Errorf("write at %d: %v", off, err)
		}
		if err := d.Discard(off, 8); !errors.Is(err, device.ErrOutOfRange) {
			t.Errorf("discard at %d: %v", off, err)
		}
	}
	q := make([]byte, 16)
	if n, err := d.ReadAt(q, size-8); n != 8 || err != io.EOF || string(q[:8]) != string(p) {
		t.Errorf("read over the end: %d, %v, %q", n, err, q)
	}
	if n, err := d.ReadAt(q, size+1); n != 0 || err != io.EOF {
		t.Errorf("read behind the end: %d, %v", n, err)
	}
	if _, err := d.ReadAt(q, -1); err == nil {
		t.Error("read at -1 accepted")
	}
	if n, err := d.ReadAt(nil, 0); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
}

// discard must leave the neighbours alone; what is inside may be anything.
func discard(t *testing.T, d device.Device) {
	p := bytes.Repeat([]byte{7}, 256<<10)
	if _, err := d.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(10000, 100000); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := d.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:10000], p[:10000]) || !bytes.Equal(got[110000:], p[110000:]) {
		t.Error("discard changed bytes outside its range")
	}
	if _, err := d.WriteAt(p[:100000], 10000); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Error("writing after a discard failed:", err)
	}
}

// parallel works on disjoint ranges at once; the race detector is its best reader.
func parallel(t *testing.T, d device.Device) {
	var wg sync.WaitGroup
	part := d.Size() / 8
	for w := range int64(8) {
		wg.Go(func() {
			p, got := bytes.Repeat([]byte{byte(w + 1)}, 5000), make([]byte, 5000)
			for off := w * part; off+5000 <= (w+1)*part; off += 5000 {
				if _, err := d.WriteAt(p, off); err != nil {
					t.Error(err)
				}
				if _, err := d.ReadAt(got, off); err != nil || !bytes.Equal(got, p) {
					t.Errorf("worker %d at %d: %v", w, off, err)
				}
			}
			if err := d.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
