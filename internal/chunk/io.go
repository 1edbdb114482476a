package chunk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	stdio "io"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// IO reads and writes logical addresses.
type IO struct {
	m    *Map
	devs map[ondisk.DevID]device.Device // never changed
	rows [256]sync.Mutex                // of parity chunks; held during I/O, and the last lock taken

	claims Claims
}

// MissingError tells that a device is not there.
type MissingError struct{ DevID ondisk.DevID }

func (e *MissingError) Error() string { return fmt.Sprintf("device %d is missing", e.DevID) }

// NewIO makes an IO over the devices that are there. The map of devices must not
// be changed afterwards.
func NewIO(m *Map, devs map[ondisk.DevID]device.Device) *IO { return &IO{m: m, devs: devs} }

// SetClaims tells whom to ask what a row with a wrong parity should hold. It must not be called while something is written. Without it what the
// devices give is believed.
func (io *IO) SetClaims(f Claims) { io.claims = f }

// Map is the chunk map that the IO goes by.
func (io *IO) Map() *Map { return io.m }

// Device gives the device with a number.
func (io *IO) Device(id ondisk.DevID) (device.Device, error) {
	d, ok := io.devs[id]
	if !ok {
		return nil, &MissingError{id}
	}
	return d, nil
}

// find gives the chunk of [at, at+n) and the offset in it.
func (io *IO) find(at ondisk.Bytenr, n int) (*Chunk, uint64, error) {
	c, ok := io.m.Find(at)
	if !ok {
		return nil, 0, &ondisk.CorruptError{What: "address", Bytenr: at, Slot: -1, Reason: fmt.Sprintf("no chunk holds address %d", at)} // which may be 0
	}
	off := uint64(at - c.Logical)
	if uint64(n) > c.Length-off {
		return nil, 0, &ondisk.CorruptError{What: "address", Bytenr: at, Slot: -1, Reason: "range leaves its chunk", Got: n, Want: c.Length - off}
	}
	return c, off, nil
}

// Mirrors is the number of ways to read an address: its copies, and for parity
// profiles the data itself plus one way for each parity, and with two parities
// one for each other data stripe that may be bad too. It is 1 for an address
// that no chunk holds.
func (io *IO) Mirrors(at ondisk.Bytenr) int {
	c, ok := io.m.Find(at)
	if !ok {
		return 1
	}
	n := c.Copies() + c.parity()
	if c.parity() == 2 {
		n += c.dataStripes() - 1
	}
	return n
}

// ReadBlock is Read; it makes IO a treeblock.Backend.
func (io *IO) ReadBlock(ctx context.Context, at ondisk.Bytenr, mirror int, p []byte) error {
	return io.Read(ctx, at, mirror, p)
}

// WriteBlocks writes neighbouring blocks, which may lie in several chunks; it makes IO a treeblock.Backend.
func (io *IO) WriteBlocks(ctx context.Context, at ondisk.Bytenr, p []byte) error {
	for len(p) > 0 {
		c, off, err := io.find(at, 1)
		if err != nil {
			return err
		}
		n := min(uint64(len(p)), c.Length-off)
		if err := io.Write(ctx, at, p[:n]); err != nil {
			return err
		}
		at, p = at+ondisk.Bytenr(n), p[n:]
	}
	return nil
}

// Read fills p from address at in one of Mirrors(at) ways. For parity profiles
// way 0 is the data, way 1 rebuilds it from the other data and P (RAID6: any one
// more lost stripe is rebuilt too), way 2 from Q. The ways from 3 on are of RAID6:
// from P and Q, without one of the other data stripes.
func (io *IO) Read(ctx context.Context, at ondisk.Bytenr, mirror int, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, off, err := io.find(at, len(p))
	if err != nil {
		return err
	}
	for len(p) > 0 {
		pl, n := c.at(off, mirror)
		n = min(n, uint64(len(p)))
		if mirror > 0 && c.parity() > 0 {
			err = io.rebuild(c, off, mirror, p[:n])
		} else {
			err = io.readAt(pl, p[:n])
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (io *IO) readAt(pl place, p []byte) error {
	d, err := io.Device(pl.dev)
	if err != nil {
		return err
	}
	_, err = d.ReadAt(p, int64(pl.physical))
	if errors.Is(err, stdio.EOF) { // readers of files would take it for the end of the file
		err = cmp.Or(device.InRange(int64(pl.physical), int64(len(p)), d.Size()), stdio.ErrUnexpectedEOF)
	}
	if err != nil {
		return fmt.Errorf("read device %d at %d: %w", pl.dev, pl.physical, err)
	}
	return nil
}

// Write writes p to address at, all copies of it side by side.
func (io *IO) Write(ctx context.Context, at ondisk.Bytenr, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, off, err := io.find(at, len(p))
	if err != nil {
		return err
	}
	if c.parity() > 0 {
		return io.writeParity(ctx, c, off, p)
	}
	if c.Copies() == 1 {
		return io.writeCopy(c, off, 0, p)
	}
	errs := make([]error, c.Copies())
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = io.writeCopy(c, off, i, p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (io *IO) writeCopy(c *Chunk, off uint64, mirror int, p []byte) error {
	for len(p) > 0 {
		pl, n := c.at(off, mirror)
		n = min(n, uint64(len(p)))
		if err := io.writeAt(pl, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (io *IO) writeAt(pl place, p []byte) error {
	d, err := io.Device(pl.dev)
	if err != nil {
		return err
	}
	if _, err := d.WriteAt(p, int64(pl.physical)); err != nil {
		return fmt.Errorf("write device %d at %d: %w", pl.dev, pl.physical, err)
	}
	return nil
}

// Flush makes everything written durable, all devices side by side.
func (io *IO) Flush() error {
	errs := make([]error, 0, len(io.devs))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for id, d := range io.devs {
		wg.Go(func() {
			if err := d.Flush(); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("flush device %d: %w", id, err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Discard tells the devices that [at, at+n) is free. It is advice: errors of
// devices that cannot do it are not reported, and parity chunks are left alone,
// because a discarded unit would fit its parity no more.
func (io *IO) Discard(at ondisk.Bytenr, n uint64) error {
	for n > 0 {
		c, off, err := io.find(at, 1)
		if err != nil {
			return err
		}
		m := min(n, c.Length-off)
		if c.parity() == 0 {
			io.discard(c, off, m)
		}
		at, n = at+ondisk.Bytenr(m), n-m
	}
	return nil
}

func (io *IO) discard(c *Chunk, off, n uint64) {
	for mirror := range c.Copies() {
		for o, left := off, n; left > 0; {
			pl, m := c.at(o, mirror)
			m = min(m, left)
			if d, err := io.Device(pl.dev); err == nil {
				_ = d.Discard(int64(pl.physical), int64(m))
			}
			o, left = o+m, left-m
		}
	}
}
