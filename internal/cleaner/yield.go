package cleaner

import (
	"context"
	"time"
)

// A drop of low priority takes small steps, and between two of them waits until nobody has asked for a change for a moment. Where others never stop,
// it goes on when they had twenty times as long as its last step took, so that it ends at all.
const (
	lowBudget = 1 << 8 // blocks of one level in one step
	lowShare  = 20
	lowMoment = time.Millisecond
)

// yield lets others go first; took is how long the last step took.
func (c *cleaner) yield(ctx context.Context, took time.Duration) error {
	if !c.opt.Low {
		return nil
	}
	t := time.NewTicker(lowMoment)
	defer t.Stop()
	asked := c.m.Asked()
	for end := time.Now().Add(lowShare * took); ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := c.m.Asked()
		if c.m.Waiting() == 0 && now == asked || time.Now().After(end) {
			return nil
		}
		asked = now
	}
}

// gate is where Run may be held up or ended between two steps.
func (c *cleaner) gate(ctx context.Context) error {
	if err := ctx.Err(); err != nil || c.opt.Gate == nil {
		return err
	}
	return c.opt.Gate(ctx)
}
