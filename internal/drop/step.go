package drop

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/ref"
)

// pending is a step that is worked out.
type pending struct {
	span    *span // nil: only conversions
	changes []ref.Change
	before  Stats
}

// Step gives up one more span of references: Prepare and Apply at once, for who has the volume for himself. Its changes belong into one transaction
// with the new cuts (Roots) and the removal of the roots that are done. After an error of Apply the Drop must not be used any more.
func (d *Drop) Step(ctx context.Context, b Budget) (Result, error) {
	if err := d.Prepare(ctx, b); err != nil || d.next == nil {
		return Result{}, err
	}
	return d.apply(ctx)
}

// Prepare works out the next step. It reads and looks up, and changes nothing, so others may go on working meanwhile.
func (d *Drop) Prepare(ctx context.Context, b Budget) error {
	d.seen, d.next = d.seen[:0], nil
	if len(d.order) == 0 {
		return nil
	}
	if v, ok := d.counts.(Versioned); ok {
		d.version = v.Version()
	}
	before := d.stats
	d.stats.Steps++
	s := newSpan(d, b)
	changes, only, err := s.workOut(ctx, b)
	if err != nil {
		d.stats.Freed, d.stats.Bare, d.stats.Converted = before.Freed, before.Bare, before.Converted
		return err
	}
	d.next = &pending{changes: changes, before: before}
	if !only {
		d.next.span = s
	}
	return nil
}

// Sweeping tells whether the step that Prepare worked out is a sweep, which is big and goes over the whole account.
func (d *Drop) Sweeping() bool {
	return d.next != nil && d.next.span != nil && d.next.span.sweep != nil
}

// workOut finds the changes of a step; only: they are conversions that must come before anything can be given up.
func (s *span) workOut(ctx context.Context, b Budget) (changes []ref.Change, only bool, err error) {
	if err := s.explore(ctx); err != nil {
		return nil, false, err
	}
	fits, err := s.convertAll(ctx, b)
	if err != nil {
		return nil, false, err
	}
	if !fits {
		changes, err := s.d.convertSome(ctx, s.tops, b)
		if len(changes) > 0 || err != nil {
			return changes, true, err
		}
		if _, err := s.convertAll(ctx, Budget{}); err != nil { // blocks of others, that need only be looked at
			return nil, false, err
		}
	}
	s.follow()
	if first := s.chooseHeirs(); len(first) > 0 {
		changes, err := s.d.convertSome(ctx, first, Budget{})
		if len(changes) > 0 || err != nil {
			return changes, true, err
		}
	}
	return s.changes, false, s.settle()
}

// Apply makes the step that Prepare worked out, unless a count that it goes by has changed since: then it changes nothing and reports false.
func (d *Drop) Apply(ctx context.Context) (res Result, ok bool, err error) {
	if d.next == nil {
		return Result{}, true, nil
	}
	if ok, err = d.stillTrue(ctx); !ok || err != nil {
		d.stats.Freed, d.stats.Bare, d.stats.Converted = d.next.before.Freed, d.next.before.Bare, d.next.before.Converted
		d.stats.Again++
		d.next = nil
		clear(d.settled)
		return Result{}, false, err
	}
	res, err = d.apply(ctx)
	return res, true, err
}

// stillTrue looks up once more what the step goes by, where anything can have changed.
func (d *Drop) stillTrue(ctx context.Context) (bool, error) {
	if v, ok := d.counts.(Versioned); ok && v.Version() == d.version {
		return true, nil
	}
	slices.SortFunc(d.seen, func(a, b ref.Info) int { return cmp.Compare(a.At, b.At) })
	d.seen = slices.CompactFunc(d.seen, func(a, b ref.Info) bool { return a.At == b.At })
	at := make([]ondisk.Bytenr, len(d.seen))
	for i := range d.seen {
		at[i] = d.seen[i].At
	}
	now := make([]ref.Info, len(at))
	d.stats.Sweeps++
	d.stats.Rechecks += uint64(len(at))
	if err := d.counts.Lookup(ctx, at, now); err != nil {
		return false, err
	}
	for i := range now {
		if !now[i].Found || now[i].Refs != d.seen[i].Refs || now[i].Flags != d.seen[i].Flags {
			return false, nil
		}
	}
	if d.next.span == nil || d.next.span.sweep == nil {
		return true, nil
	}
	d.stats.Surveys++
	return d.next.span.sweep.stillSo(ctx, d.next.span.account)
}

func (d *Drop) apply(ctx context.Context) (Result, error) {
	n := d.next
	d.next = nil
	var w *sweep
	if n.span != nil {
		w = n.span.sweep
	}
	if err := d.add(ctx, n.changes, w); err != nil {
		return Result{}, err
	}
	d.spare = n.changes[:0]
	if n.span == nil {
		return Result{More: true}, nil
	}
	res := d.advance(n.span)
	if len(n.changes) == 0 && w == nil && len(res.Done) == 0 {
		return res, errors.New("drop: a step that does nothing")
	}
	return res, nil
}

// advance takes over the cuts of a settled span.
func (d *Drop) advance(s *span) Result {
	var res Result
	d.order = slices.DeleteFunc(d.order, func(r *Root) bool {
		cut, left := s.cuts[r.ID]
		if !left {
			delete(d.dying, r.ID)
			d.gone[r.ID] = true
			res.Done = append(res.Done, r.ID)
			return true
		}
		r.Cut = cut
		return false
	})
	d.kept = s.kept
	res.More = len(d.order) > 0
	return res
}
