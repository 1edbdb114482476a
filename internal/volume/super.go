package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/foreign"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// readSuper reads and verifies copy i of a device's superblock.
func readSuper(d device.Device, i int) (*ondisk.Superblock, error) {
	return readSuperAs(d, i, ondisk.DecodeSuper)
}

func readSuperAs(d device.Device, i int, decode func(b []byte) (*ondisk.Superblock, error)) (*ondisk.Superblock, error) {
	off := ondisk.SuperOffset(i)
	if off+ondisk.SuperSize > uint64(max(d.Size(), 0)) {
		return nil, fmt.Errorf("superblock copy %d: %w", i+1, device.ErrOutOfRange)
	}
	b := make([]byte, ondisk.SuperSize)
	if _, err := d.ReadAt(b, int64(off)); err != nil {
		return nil, fmt.Errorf("superblock copy %d: %w", i+1, err)
	}
	if string(b[64:72]) != ondisk.SuperMagic {
		return nil, fmt.Errorf("superblock copy %d: %w", i+1, errNoSuper)
	}
	sb, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("superblock copy %d: %w", i+1, err)
	}
	if !checksum.Verify(checksum.Type(sb.CsumType), b[:32], b[32:]) {
		return nil, fmt.Errorf("superblock copy %d: %w", i+1, &ondisk.CorruptError{What: "superblock", Slot: -1, Reason: "checksum differs"})
	}
	if sb.Bytenr != off {
		return nil, fmt.Errorf("superblock copy %d: %w", i+1, &ondisk.CorruptError{What: "superblock", Slot: -1, Reason: "belongs elsewhere", Got: sb.Bytenr, Want: off})
	}
	return sb, nil
}

// bestSuper gives the newest valid copy of a device's superblock, or the copy
// that is asked for.
func bestSuper(d device.Device, want int) (*ondisk.Superblock, error) {
	if want >= 0 {
		if want >= ondisk.SuperCopies {
			return nil, refuse("there are %d copies of the superblock", ondisk.SuperCopies)
		}
		return readSuper(d, want)
	}
	var best *ondisk.Superblock
	var errs []error
	none := true // no copy is there, not even a bad one
	for i := range ondisk.SuperCopies {
		sb, err := readSuper(d, i)
		none = none && (errors.Is(err, errNoSuper) || errors.Is(err, device.ErrOutOfRange))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		// A copy of another file system that was here before does not count when
		// the first copy is good.
		if best == nil || sb.FSID == best.FSID && sb.Generation > best.Generation {
			best = sb
		}
	}
	if best == nil {
		return nil, noSuper(d, none, errors.Join(errs...))
	}
	return best, nil
}

// errNoSuper: nothing like a superblock is where one should be.
var errNoSuper error = &RefusedError{Reason: "there is none"}

// ErrSuper: a device that may well hold a volume has no valid superblock. Options.Forensic may do without.
var ErrSuper = errors.New("no valid superblock")

// noSuper tells what a device without a valid superblock may be. Why is worth telling when there is at least a bad one.
func noSuper(d device.Device, none bool, why error) error {
	if !none {
		return fmt.Errorf("%w, but bad ones: %w", ErrSuper, why)
	}
	if what := foreign.Describe(d); what != "" {
		return refuse("no valid superblock, this is no Btrfs volume: it looks like %s", what)
	}
	return fmt.Errorf("%w: %w", ErrSuper, refuse("this is no Btrfs volume, or its beginning is lost"))
}

// superCopies is the number of copies that a device of size bytes has.
func superCopies(size uint64) int {
	n := 0
	for i := range ondisk.SuperCopies {
		if ondisk.SuperOffset(i)+ondisk.SuperSize < size {
			n = i + 1
		}
	}
	return n
}

// WriteSupers writes sb as every device's superblock: the first copies, a flush,
// then the others (FORMAT: commit order). All that sb leads to must be durable.
// The live superblock becomes sb.
func (v *Volume) WriteSupers(ctx context.Context, sb *ondisk.Superblock) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for pass := range 2 {
		for id, d := range v.devs {
			item, ok := v.devItem(id)
			if !ok {
				return fmt.Errorf("device %d has no item in the chunk tree", id)
			}
			n := superCopies(item.TotalBytes)
			for i := range n {
				if (i == 0) != (pass == 0) {
					continue
				}
				if err := writeSuper(d, sb, item, i); err != nil {
					return fmt.Errorf("device %d: %w", id, err)
				}
			}
		}
		if err := v.io.Flush(); err != nil {
			return err
		}
	}
	*v.sb = *sb
	return nil
}

func writeSuper(d device.Device, sb *ondisk.Superblock, item ondisk.DevItem, i int) error {
	one := *sb
	one.Bytenr = ondisk.SuperOffset(i)
	one.Dev = item
	b := make([]byte, ondisk.SuperSize)
	if err := one.Encode(b); err != nil {
		return err
	}
	checksum.Sum(checksum.Type(sb.CsumType), b[:32], b[32:])
	if _, err := d.WriteAt(b, int64(one.Bytenr)); err != nil {
		return fmt.Errorf("write superblock copy %d: %w", i+1, err)
	}
	return nil
}
