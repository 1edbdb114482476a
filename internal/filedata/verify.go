package filedata

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/csumtree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// ReadError tells that no mirror has the right bytes of a sector.
type ReadError struct {
	At      ondisk.Bytenr
	Mirrors []error // what was wrong with each
}

func (e *ReadError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no good copy of the data at %d", e.At)
	for i, err := range e.Mirrors {
		fmt.Fprintf(&b, "; mirror %d: %v", i+1, err)
	}
	return b.String()
}

// Unwrap gives the errors of the mirrors.
func (e *ReadError) Unwrap() []error { return e.Mirrors }

// ErrChecksum is the error of a mirror whose bytes do not match their checksum,
// ErrNoChecksum that of a sector that should have one.
var (
	ErrChecksum   = errors.New("checksum does not match")
	ErrNoChecksum = errors.New("checksum is missing")
)

// run is some sectors of a read, by number.
type run struct{ from, to int }

// sectors reads whole sectors from at and verifies each, unless the inode has
// no checksums. What is wrong in one mirror is read from the next.
func (r *Reader) sectors(ctx context.Context, it ondisk.InodeItem, p []byte, at ondisk.Bytenr) error {
	ss := int(r.layout.Sectorsize)
	if len(p)%ss != 0 || int(at)%ss != 0 {
		return badExtent("not aligned", at)
	}
	v := verifier{r: r, p: p, at: at, ss: ss, todo: []run{{0, len(p) / ss}}}
	if it.Flags&ondisk.InodeNodatasum == 0 {
		sums, err := csumtree.Lookup(ctx, r.trees.csums, r.layout, at, len(p)/ss)
		if err != nil {
			return err
		}
		if sums.Missing() > 0 {
			return fmt.Errorf("data at %d: %w", at, ErrNoChecksum)
		}
		v.sums = sums
	}
	return v.read(ctx)
}

// verifier brings one range of sectors together from its mirrors.
type verifier struct {
	r    *Reader
	p    []byte
	at   ondisk.Bytenr
	ss   int
	sums *csumtree.Sums // nil: nothing to compare with
	todo []run          // not yet good
	bad  []run          // not good in the present mirror
	errs []error        // of the first sector in todo, by mirror
}

func (v *verifier) read(ctx context.Context) error {
	late := 0 // sectors that were bad in the first mirror
	for mirror := range max(v.r.v.IO().Mirrors(v.at), 1) {
		v.bad = nil
		for _, u := range v.todo {
			if err := v.run(ctx, mirror, u); err != nil {
				return err
			}
		}
		if v.todo = v.bad; len(v.todo) == 0 {
			v.r.v.AddRescued(late)
			return nil
		}
		if mirror == 0 {
			for _, u := range v.todo {
				late += u.to - u.from
			}
		}
	}
	return &ReadError{At: v.at + ondisk.Bytenr(v.todo[0].from*v.ss), Mirrors: v.errs}
}

// run reads and verifies one run from a mirror. A device error of several
// sectors is looked at sector by sector.
func (v *verifier) run(ctx context.Context, mirror int, u run) error {
	p := v.p[u.from*v.ss : u.to*v.ss]
	err := v.r.v.IO().Read(ctx, v.at+ondisk.Bytenr(u.from*v.ss), mirror, p)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && u.to-u.from > 1 {
		for i := u.from; i < u.to; i++ {
			if err := v.run(ctx, mirror, run{i, i + 1}); err != nil {
				return err
			}
		}
		return nil
	}
	for i := u.from; i < u.to; i++ {
		switch {
		case err != nil:
			v.fail(i, err)
		case v.sums != nil && !v.good(i):
			v.fail(i, ErrChecksum)
		}
	}
	return nil
}

func (v *verifier) good(i int) bool {
	sum, _ := v.sums.At(i)
	return checksum.Verify(v.r.v.CsumType(), sum, v.p[i*v.ss:(i+1)*v.ss])
}

// fail notes that sector i is not good in this mirror.
func (v *verifier) fail(i int, err error) {
	if len(v.bad) == 0 {
		v.errs = append(v.errs, err)
	}
	if n := len(v.bad); n > 0 && v.bad[n-1].to == i {
		v.bad[n-1].to++
		return
	}
	v.bad = append(v.bad, run{i, i + 1})
}
