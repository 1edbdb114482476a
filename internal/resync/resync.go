// Package resync brings a device that missed commits up to date from the other
// copies.
//
// Only what the volume uses is copied, and only what was compared with its
// checksum, so that a good block is never replaced with a bad one; data without
// checksums are taken as the current devices have them. The device's superblocks
// are the caller's, to be written afterwards. Of chunks with parity the rows in
// use are made whole: data is rebuilt, and parity computed anew from data that
// was compared. What the device itself still holds counts where it has the right
// checksum, and so may the old parity help where the other devices are bad.
package resync

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// step is how much data is copied at once.
const step = 1 << 20

// kept is a device that is current: nothing is written to it.
type kept struct{ device.Device }

func (kept) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (kept) Flush() error                           { return nil }
func (kept) Discard(int64, int64) error             { return nil }

// syncer copies what one device holds a copy of.
type syncer struct {
	v   *volume.Volume
	id  ondisk.DevID
	to  *chunk.IO // writes reach the device alone
	buf []byte

	chunk *chunk.Chunk // with parity, whose rows before next are done
	next  uint64
}

// Device copies what device id of volume v, which v was opened without, should
// hold. Where no current copy is good the device is left as it is; an error if
// that could not be noticed later, because there are no checksums.
func Device(ctx context.Context, v *volume.Volume, id ondisk.DevID, dev device.Device) error {
	devs := map[ondisk.DevID]device.Device{id: dev}
	for other, d := range v.Devices() {
		devs[other] = kept{d}
	}
	s := &syncer{v: v, id: id, to: chunk.NewIO(v.Chunks(), devs), buf: make([]byte, step)}
	s.to.SetClaims(v.Claims)
	if err := s.all(ctx); err != nil {
		return fmt.Errorf("device %d: %w", id, err)
	}
	return dev.Flush()
}

func holds(c *chunk.Chunk, id ondisk.DevID) bool {
	for _, s := range c.Stripes {
		if s.DevID == id {
			return true
		}
	}
	return false
}

// all copies every extent that the extent tree tells of.
func (s *syncer) all(ctx context.Context) error {
	t, err := s.v.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		return err
	}
	c, err := t.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		k := c.Key()
		if k.Type != ondisk.TypeExtentItem && k.Type != ondisk.TypeMetadataItem {
			continue
		}
		x, err := ondisk.DecodeExtent(k, c.Data())
		if err != nil {
			return err
		}
		if err := s.extent(ctx, ondisk.Bytenr(k.Objectid), k.Offset, x.Flags&ondisk.ExtentFlagTreeBlock != 0); err != nil {
			return err
		}
	}
	return err
}

func (s *syncer) extent(ctx context.Context, at ondisk.Bytenr, n uint64, block bool) error {
	c, ok := s.v.Chunks().Find(at)
	if !ok {
		return &ondisk.CorruptError{What: "extent", Bytenr: at, Slot: -1, Reason: "no chunk holds it"}
	}
	if c.HasParity() && holds(c, s.id) {
		return s.rows(ctx, c, at, n, block)
	}
	if !holds(c, s.id) || c.Copies() == 1 {
		return nil
	}
	if block {
		return s.block(ctx, at)
	}
	for ; n > 0; at, n = at+ondisk.Bytenr(min(n, step)), n-min(n, step) {
		if err := s.data(ctx, at, s.buf[:min(n, step)]); err != nil {
			return err
		}
	}
	return nil
}

// rows brings the rows of an extent up to date. Extents come in the order of their addresses.
func (s *syncer) rows(ctx context.Context, c *chunk.Chunk, at ondisk.Bytenr, n uint64, block bool) error {
	if block {
		n = uint64(s.v.Nodesize())
	}
	if n > uint64(c.End()-at) {
		return &ondisk.CorruptError{What: "extent", Bytenr: at, Slot: -1, Reason: "leaves its chunk", Got: n}
	}
	if s.chunk != c {
		s.chunk, s.next = c, 0
	}
	from, to := c.Rows(at, n)
	for nr := max(from, s.next); nr < to; nr++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.to.Refresh(ctx, c, nr, s.id); err != nil {
			return err
		}
	}
	s.next = max(s.next, to)
	return nil
}

// block copies a tree block.
func (s *syncer) block(ctx context.Context, at ondisk.Bytenr) error {
	b := ondisk.Block(s.buf[:s.v.Nodesize()])
	for m := range s.v.IO().Mirrors(at) {
		if s.v.IO().Read(ctx, at, m, b) != nil {
			continue
		}
		if b.Bytenr() == at && checksum.Verify(s.v.CsumType(), b[:32], b[32:]) {
			return s.to.Write(ctx, at, b)
		}
	}
	return ctx.Err()
}

// data copies len(p) bytes of data, sector by sector from a copy that is good.
func (s *syncer) data(ctx context.Context, at ondisk.Bytenr, p []byte) error {
	size := int(s.v.Sectorsize())
	t, err := s.v.Tree(ctx, ondisk.CsumTree)
	if err != nil {
		return err
	}
	l := csumtree.Layout{Size: s.v.CsumType().Size(), Sectorsize: s.v.Sectorsize(), Nodesize: s.v.Nodesize()}
	sums, err := csumtree.Lookup(ctx, t, l, at, len(p)/size)
	if err != nil {
		return err
	}
	done := make([]bool, len(p)/size)
	for m := range s.v.IO().Mirrors(at) {
		failed := s.v.IO().Read(ctx, at, m, p) != nil
		for i := range done {
			sector := p[i*size : (i+1)*size]
			if done[i] || failed && s.v.IO().Read(ctx, at+ondisk.Bytenr(i*size), m, sector) != nil {
				continue
			}
			want, ok := sums.At(i)
			if ok && !checksum.Verify(s.v.CsumType(), want, sector) {
				continue
			}
			if err := s.to.Write(ctx, at+ondisk.Bytenr(i*size), sector); err != nil {
				return err
			}
			done[i] = true
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range done {
		if _, ok := sums.At(i); !ok && !done[i] {
			// Nothing would ever tell that what the device has is old.
			return &ondisk.CorruptError{What: "data without checksums", Bytenr: at + ondisk.Bytenr(i*size), Slot: -1, Reason: "no current device gives it"}
		}
	}
	return nil
}
