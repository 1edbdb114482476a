// Package crashdev is a device in memory that can lose its power.
//
// It keeps the durable bytes apart from writes that no Flush has covered yet. Crash makes a device as it might be found
// afterwards: each uncovered write is kept, lost or torn at sectors, in any combination, as the seed of rng has it.
package crashdev

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/device"
)

// sector is what a medium writes whole or not at all.
const sector = 512

// Dev is a device that remembers what is not durable.
type Dev struct {
	// BeforeFlush, when set, is called at each Flush before anything becomes durable: the moment with the most to lose. It
	// may call Crash. Set it before the device is used.
	BeforeFlush func()

	now *device.Mem // every write so far

	mu      sync.Mutex  // guards what follows
	durable *device.Mem // as of the last flush
	pending []change    // since then, in order
	flushes int
}

// change is a write, or a discard when data is nil.
type change struct {
	off, n int64
	data   []byte
}

// New returns a device of size zero bytes, all of them durable.
func New(size int64) *Dev { return FromMem(device.NewMem(size)) }

// FromMem returns a device that starts with the bytes of m, which it takes over.
func FromMem(m *device.Mem) *Dev { return &Dev{now: m, durable: m.Clone()} }

// ReadAt implements io.ReaderAt.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) { return d.now.ReadAt(p, off) }

// WriteAt implements io.WriterAt.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.now.WriteAt(p, off)
	if err == nil {
		d.pending = append(d.pending, change{off, int64(len(p)), slices.Clone(p)})
	}
	return n, err
}

// Discard implements device.Device.
func (d *Dev) Discard(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.now.Discard(off, n)
	if err == nil {
		d.pending = append(d.pending, change{off: off, n: n})
	}
	return err
}

// Flush makes the pending writes durable.
func (d *Dev) Flush() error {
	if d.BeforeFlush != nil {
		d.BeforeFlush()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = d.now.Clone()
	d.pending = nil
	d.flushes++
	return nil
}

// Size implements device.Device.
func (d *Dev) Size() int64 { return d.now.Size() }

// Close implements device.Device. The bytes stay readable through Crash.
func (d *Dev) Close() error { return nil }

// Flushes returns how many flushes there were.
func (d *Dev) Flushes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flushes
}

// Pending returns how many writes and discards a crash may lose now.
func (d *Dev) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

// Durable returns a copy of what a crash cannot take away: all pending writes are lost.
func (d *Dev) Durable() *device.Mem {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.durable.Clone()
}

// Crash returns a copy as it may be found after a power loss at this moment. The device itself lives on.
func (d *Dev) Crash(rng *rand.Rand) *device.Mem {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.durable.Clone()
	// Some crashes lose nearly nothing, some nearly all: a fair coin for each write would hardly ever show either.
	keep := []int{3, 50, 97}[rng.IntN(3)]
	for _, c := range d.pending {
		switch roll := rng.IntN(100); {
		case rng.IntN(8) == 0:
			c.tear(m, rng)
		case roll < keep:
			c.apply(m, 0, c.n)
		}
	}
	return m
}

// tear applies each sector of the change or not, by coin.
func (c change) tear(m *device.Mem, rng *rand.Rand) {
	for from := int64(0); from < c.n; {
		to := min((c.off+from)/sector*sector+sector-c.off, c.n)
		if rng.IntN(2) == 0 {
			c.apply(m, from, to)
		}
		from = to
	}
}

// apply applies the bytes [from, to) of the change. It stays within the device, because the change itself did.
func (c change) apply(m *device.Mem, from, to int64) {
	if c.data == nil {
		_ = m.Discard(c.off+from, to-from)
		return
	}
	_, _ = m.WriteAt(c.data[from:to], c.off+from)
}
