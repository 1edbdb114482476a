package cleaner_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// Others may change the volume in the gate, which is asked before each step and can end it all.
func TestGate(t *testing.T) {
	images := testenv.Images(t, "dead-roots-many")
	v, m := open(t, images)
	enough := errors.New("enough")
	asked, steps := 0, 0
	opt := cleaner.Options{Budget: 30, Progress: func(cleaner.Report) { steps++ }, Gate: func(ctx context.Context) error {
		if asked++; asked > 5 {
			return enough
		}
		return change(m, func(_ context.Context, tx *transaction.Tx) error { tx.SetLabel("gate"); return nil })
	}}
	r, err := cleaner.Run(context.Background(), m, opt)
	if !errors.Is(err, enough) || asked != 6 || steps != 5 || r.Stats.Steps != 5 {
		t.Errorf("%v: asked %d times, %d steps, %+v", err, asked, steps, r)
	}
	if r, err = cleaner.Run(context.Background(), m, cleaner.Options{}); err != nil || r.RootsDone == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	closeAll(t, v, m)
	testenv.Check(t, images...)
}

// Low priority means many small steps, and the same result.
func TestLowPriority(t *testing.T) {
	drop := func(low bool) cleaner.Report {
		images := testenv.Images(t, "dead-roots-many")
		v, m := open(t, images)
		r, err := cleaner.Run(context.Background(), m, cleaner.Options{Low: low})
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, v, m)
		testenv.Check(t, images...)
		return r
	}
	fast, low := drop(false), drop(true)
	if low.BlocksFreed != fast.BlocksFreed || low.DataFreed != fast.DataFreed || low.RootsDone != fast.RootsDone {
		t.Errorf("low %+v, else %+v", low, fast)
	}
	if low.Stats.Steps < 4*fast.Stats.Steps || low.Stats.Swept != 0 {
		t.Errorf("low: %+v, else %+v", low.Stats, fast.Stats)
	}
}

// How far it got rises from step to step, to 1, and is near the share of blocks that are freed.
func TestPart(t *testing.T) {
	for _, name := range []string{"dead-roots-many", "half-drop-shared", "dead-roots"} {
		images := testenv.Images(t, name)
		v, m := open(t, images)
		var parts []float64
		var freed []uint64
		_, err := cleaner.Run(context.Background(), m, cleaner.Options{Budget: 20, Progress: func(r cleaner.Report) {
			parts, freed = append(parts, r.Part), append(freed, r.BlocksFreed)
		}})
		if err != nil {
			t.Fatal(err)
		}
		last, off := 0.0, 0.0
		for i, p := range parts {
			if p < last || p > 1 {
				t.Errorf("%s: %v", name, parts)
				break
			}
			last = p
			off = max(off, p-float64(freed[i])/float64(freed[len(freed)-1]), float64(freed[i])/float64(freed[len(freed)-1])-p)
		}
		t.Logf("%s: %d steps, off by %.2f", name, len(parts), off)
		if begun := name == "half-drop-shared"; !begun && off > 0.25 || begun != (parts[0] > 0.5) {
			t.Errorf("%s: off by %.2f, first %.2f", name, off, parts[0])
		}
		if last != 1 {
			t.Errorf("%s ended at %f", name, last)
		}
		closeAll(t, v, m)
	}
}
