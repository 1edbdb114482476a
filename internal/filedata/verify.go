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
	lax, unproven := r.v.IgnoresDataChecksums(), 0
	if it.Flags&ondisk.InodeNodatasum == 0 {
		sums, err := r.sums(ctx, at, len(p)/ss)
		switch {
		case err != nil && (!lax || ctx.Err() != nil):
			return err
		case err != nil:
			unproven = len(p) / ss
		case sums.Missing() > 0 && !lax:
			return fmt.Errorf("data at %d: %w", at, ErrNoChecksum)
		default:
			v.sums, unproven = sums, sums.Missing()
		}
	}
	err := v.read(ctx)
	if lax && len(v.todo) > 0 && ctx.Err() == nil {
		unproven += v.left()
		err = v.readAny(ctx)
	}
	if err == nil && unproven > 0 {
		r.unproven.Add(int64(unproven))
		r.v.AddUnproven(unproven)
	}
	return err
}

// sums looks up the checksums of n sectors.
func (r *Reader) sums(ctx context.Context, at ondisk.Bytenr, n int) (*csumtree.Sums, error) {
	if r.trees.csums == nil {
		return nil, fmt.Errorf("data at %d: %w: the checksum tree is lost", at, ErrNoChecksum)
	}
	return csumtree.Lookup(ctx, r.trees.csums, r.layout, at, n)
}

// verifier brings one range of sectors together from its mirrors.
type verifier struct {
	r    *Reader
	p    []byte
	at   ondisk.Bytenr
	ss   int
	sums *csumtree.Sums // nil: nothing to compare with
	any  bool           // what is read need not be right
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
			if !v.any {
				v.r.v.AddRescued(late)
			}
			return nil
		}
		if mirror == 0 {
			late = v.left()
		}
	}
	return &ReadError{At: v.at + ondisk.Bytenr(v.todo[0].from*v.ss), Mirrors: v.errs}
}

// left counts the sectors that are not yet good.
func (v *verifier) left() (n int) {
	for _, u := range v.todo {
		n += u.to - u.from
	}
	return n
}

// readAny gives sectors of which no mirror is good as the first mirror that can be read has them.
func (v *verifier) readAny(ctx context.Context) error {
	v.sums, v.errs, v.any = nil, nil, true
	return v.read(ctx)
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
	sum, ok := v.sums.At(i)
	return !ok || checksum.Verify(v.r.v.CsumType(), sum, v.p[i*v.ss:(i+1)*v.ss])
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
