package crashdev_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/crashdev"
)

func read(t *testing.T, d device.Device, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if _, err := d.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCrash(t *testing.T) {
	d := crashdev.New(1 << 20)
	flushes := 0
	d.BeforeFlush = func() { flushes++ }
	old, new := bytes.Repeat([]byte{'o'}, 4096), bytes.Repeat([]byte{'n'}, 4096)
	_, _ = d.WriteAt(old, 8192)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	_, _ = d.WriteAt(new, 8192)
	if flushes != 1 || d.Flushes() != 1 || d.Pending() != 1 {
		t.Errorf("%d flushes seen, %d counted, %d pending", flushes, d.Flushes(), d.Pending())
	}
	if !bytes.Equal(read(t, d.Durable(), 8192, 4096), old) {
		t.Error("a flushed write was lost")
	}

	rng := rand.New(rand.NewPCG(1, 2))
	seen := map[string]int{}
	for range 200 {
		got := read(t, d.Crash(rng), 8192, 4096)
		for i := 0; i < 4096; i += 512 { // a sector is old or new, never a mixture
			if s := got[i : i+512]; !bytes.Equal(s, old[:512]) && !bytes.Equal(s, new[:512]) {
				t.Fatal("a sector is torn")
			}
		}
		switch {
		case bytes.Equal(got, old):
			seen["lost"]++
		case bytes.Equal(got, new):
			seen["kept"]++
		default:
			seen["torn"]++
		}
	}
	if seen["lost"] < 10 || seen["kept"] < 10 || seen["torn"] < 5 {
		t.Errorf("200 crashes gave %v", seen)
	}
	if !bytes.Equal(read(t, d, 8192, 4096), new) {
		t.Error("a crash changed the device itself")
	}
}

func TestSameSeedSameCrash(t *testing.T) {
	d := crashdev.New(1 << 20)
	for i := range int64(50) {
		_, _ = d.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 3000), i*5000)
	}
	_ = d.Discard(0, 100000)
	a := read(t, d.Crash(rand.New(rand.NewPCG(7, 7))), 0, 1<<20)
	b := read(t, d.Crash(rand.New(rand.NewPCG(7, 7))), 0, 1<<20)
	if !bytes.Equal(a, b) {
		t.Error("the same seed gave two different crashes")
	}
}
