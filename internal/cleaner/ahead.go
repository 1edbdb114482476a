package cleaner

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/gobtrfs/gobtrfs/internal/drop"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// How blocks are read ahead: neighbours, and what lies close, in one read; a few reads at once; some runs in memory.
const (
	maxRun     = 512 << 10
	maxGap     = 32 << 10
	runReaders = 4
	runsAhead  = 12
)

// run is a piece of the address space that holds blocks which are wanted.
type run struct {
	at    ondisk.Bytenr
	size  int
	left  atomic.Int32  // blocks not taken yet
	ready chan struct{} // closed when data or err is there
	data  []byte
	buf   *[]byte // what data lies in
	err   error
}

// ahead reads runs in the order of addresses while others take blocks out of them, in the same order: so the run that is waited for is always among
// those that are read first, however few may be in memory.
type ahead struct {
	v      *volume.Volume
	bufs   *sync.Pool
	runs   []*run
	mu     sync.Mutex
	byAt   map[ondisk.Bytenr]*run // blocks not taken yet; mu
	slots  chan struct{}
	next   atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// readAhead begins to read blocks, given sorted by address.
func readAhead(ctx context.Context, v *volume.Volume, bufs *sync.Pool, ps []drop.Ptr) *ahead {
	a := &ahead{v: v, bufs: bufs, byAt: make(map[ondisk.Bytenr]*run, len(ps)), slots: make(chan struct{}, runsAhead)}
	a.plan(ps)
	ctx, a.cancel = context.WithCancel(ctx)
	for range min(runReaders, len(a.runs)) {
		a.wg.Go(func() { a.read(ctx) })
	}
	return a
}

// plan makes the runs.
func (a *ahead) plan(ps []drop.Ptr) {
	node := int(a.v.Nodesize())
	var r *run
	var limit ondisk.Bytenr // end of the chunk
	for _, p := range ps {
		if a.byAt[p.At] != nil {
			continue
		}
		if r != nil {
			size := int64(p.At-r.at) + int64(node)
			gap := size - int64(r.size) - int64(node)
			if p.At < r.at || size > maxRun || gap < 0 || gap > maxGap || r.at+ondisk.Bytenr(size) > limit {
				r = nil
			} else {
				r.size = int(size)
			}
		}
		if r == nil {
			c, ok := a.v.Chunks().Find(p.At)
			if !ok || p.At+ondisk.Bytenr(node) > c.End() {
				continue // whoever reads it will get the error
			}
			limit = c.End()
			r = &run{at: p.At, size: node, ready: make(chan struct{})}
			a.runs = append(a.runs, r)
		}
		r.left.Add(1)
		a.byAt[p.At] = r
	}
}

func (a *ahead) read(ctx context.Context) {
	for {
		select {
		case a.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		i := int(a.next.Add(1)) - 1
		if i >= len(a.runs) {
			return
		}
		r := a.runs[i]
		r.buf, _ = a.bufs.Get().(*[]byte)
		if r.buf == nil {
			b := make([]byte, maxRun)
			r.buf = &b
		}
		r.data = (*r.buf)[:r.size]
		r.err = a.v.IO().Read(ctx, r.at, 0, r.data)
		close(r.ready)
	}
}

// take gives the run of a block, once.
func (a *ahead) take(at ondisk.Bytenr) *run {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.byAt[at]
	delete(a.byAt, at)
	return r
}

// with gives the bytes of a block to fn. It reports false if they are not there, or were given before.
func (a *ahead) with(ctx context.Context, at ondisk.Bytenr, fn func(ondisk.Block) error) bool {
	r := a.take(at)
	if r == nil {
		return false
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		return false
	}
	ok := r.err == nil
	if ok {
		off := int(at - r.at)
		ok = fn(ondisk.Block(r.data[off:off+int(a.v.Nodesize())])) == nil
	}
	if r.left.Add(-1) == 0 {
		a.bufs.Put(r.buf)
		r.buf, r.data = nil, nil
		<-a.slots
	}
	return ok
}

// stop ends the reading.
func (a *ahead) stop() {
	a.cancel()
	a.wg.Wait()
}
