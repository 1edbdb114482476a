package btrfs_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// ghosts counts what is deleted and not gone yet.
func ghosts(t *testing.T, v *btrfs.Volume) (n int) {
	t.Helper()
	list, err := v.Subvolumes(ctx)
	must(t, err)
	for _, s := range list {
		if s.Deleted {
			n++
		}
	}
	return n
}

// TestPause: a drop that is paused stands still between two steps, with what it did committed; others write meanwhile. It
// goes on where it stood, or ends with its context.
func TestPause(t *testing.T) {
	image := testenv.Image(t, "dead-roots-many")
	v := open(t, image, btrfs.Options{})
	before := ghosts(t, v)
	var p btrfs.Pause
	p.Resume() // not paused: nothing happens
	steps, standing, ended := 0, make(chan bool, 1), make(chan error, 1)
	var r btrfs.DropReport
	start := func(ctx context.Context) {
		go func() {
			var err error
			r, err = v.Drop(ctx, btrfs.DropOptions{Budget: 60, LowPriority: true, Pause: &p, Progress: func(btrfs.DropReport) {
				if steps++; steps == 3 {
					p.Pause()
					p.Pause() // twice is once
					standing <- true
				}
			}})
			ended <- err
		}()
	}
	soon, cancel := context.WithCancel(ctx)
	start(soon)
	<-standing
	must(t, v.Top().WriteFile("beside", []byte("written beside"), 0o644))
	must(t, v.Commit(ctx))
	if !p.Paused() || steps != 3 || ghosts(t, v) == 0 {
		t.Errorf("paused: %v, %d steps", p.Paused(), steps)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || steps != 3 || r.RootsDone >= before {
		t.Errorf("%v after %d steps, %+v", err, steps, r)
	}
	steps = 1 // of the next, two more until it pauses itself
	p.Resume()
	start(ctx)
	<-standing
	p.Resume()
	must(t, <-ended)
	if n := ghosts(t, v); n != 0 || steps < 5 || r.Part != 1 {
		t.Errorf("%d ghosts left, %d steps, %+v", n, steps, r)
	}
	must(t, v.Close())
	testenv.Check(t, image)
	v = open(t, image, btrfs.Options{ReadOnly: true})
	if b, err := v.Top().ReadFile("beside"); string(b) != "written beside" {
		t.Errorf("%q, %v", b, err)
	}
}
