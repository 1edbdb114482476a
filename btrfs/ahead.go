package btrfs

import (
	"context"
	"runtime"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const (
	batchBytes = 4 << 20   // contents in one batch
	batchItems = 2048      // entries and pieces of contents in one batch
	batchAttrs = 4 << 20   // extended attributes in one batch; others are read when they are asked for
	leastRoom  = 128 << 10 // with less a batch is full
	listed     = 512       // names of a directory that are kept
)

// ahead reads a tree of files before it is asked for: batches of entries with
// their contents. One goroutine at a time finds out what comes next and what has
// to be read for it; then it reads that while another one plans the next batch.
// A batch is planned and read under one view of the volume.
type ahead struct {
	s     *Subvolume
	opt   WalkOptions
	queue chan *aheadBatch     // in order; has room for all there are
	free  chan *filedata.Batch // memory not in use

	mu     sync.Mutex // held to plan a batch; guards what follows
	root   string     // where to begin; "" when that was done
	stack  []aheadDir
	file   *aheadFile      // not all of its contents are planned
	done   bool            // all is planned
	dirs   map[node]bool   // directories that could be met again
	linked map[node]uint32 // inodes with several names that were met, and how many of them were not
}

// aheadBatch is what one goroutine reads at once.
type aheadBatch struct {
	items  []aheadItem
	data   *filedata.Batch
	loaded chan struct{} // closed when the contents are there
}

// aheadItem is an entry, or a range of the contents of the last one.
type aheadItem struct {
	entry *WalkEntry
	piece *filedata.Piece
	lost  Chunk // with no piece: could not be planned
	err   error
	path  string
}

func (it *aheadItem) chunk() (Chunk, error) {
	if it.piece == nil {
		return it.lost, pathErr("read", it.path, it.err)
	}
	c := Chunk{Off: int64(it.piece.Off), Len: int64(it.piece.N), Data: it.piece.Data, Unproven: it.piece.Unproven}
	return c, pathErr("read", it.path, it.piece.Err)
}

// aheadDir is a directory on the way to what comes next.
type aheadDir struct {
	n     node
	path  string
	depth int // of what is in it
	list  []fstree.Entry
	next  uint64 // index to list from
	done  bool   // list is the last part
}

// aheadFile is a file of which the contents before pos are planned.
type aheadFile struct {
	n    node
	path string
	it   ondisk.InodeItem
	b    *aheadBatch // where it was read
	pos  uint64
}

func newAhead(s *Subvolume, root string, opt WalkOptions) *ahead {
	memory := opt.Memory
	if memory <= 0 {
		memory = defaultWalkMemory
	}
	n := int(max(memory/batchBytes, 1))
	a := &ahead{
		s: s, opt: opt, root: root, dirs: map[node]bool{}, linked: map[node]uint32{},
		queue: make(chan *aheadBatch, n), free: make(chan *filedata.Batch, n),
	}
	for range n {
		a.free <- nil // made when it is needed
	}
	return a
}

// start starts the goroutines, which close the queue when they end; the function
// it returns waits for that.
func (a *ahead) start(ctx context.Context) (wait func()) {
	var wg sync.WaitGroup
	for range min(cap(a.free), 2*runtime.GOMAXPROCS(0)+1) {
		wg.Go(func() {
			for a.step(ctx) {
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(a.queue)
		close(ended)
	}()
	return func() { <-ended }
}

// step plans a batch and reads it. It tells whether there may be more.
func (a *ahead) step(ctx context.Context) bool {
	a.mu.Lock()
	if a.done || ctx.Err() != nil {
		a.mu.Unlock()
		return false
	}
	b := &aheadBatch{loaded: make(chan struct{})}
	select {
	case b.data = <-a.free:
	case <-ctx.Done():
		a.mu.Unlock()
		return false
	}
	if b.data == nil {
		b.data = filedata.NewBatch(a.s.v.vol, batchBytes)
	}
	b.data.Reset()
	_ = a.s.v.view(func(tree treeFunc) error {
		p := newPlanner(a, b, tree)
		p.fill(ctx)
		a.queue <- b
		a.mu.Unlock()
		p.load(ctx)
		close(b.loaded)
		return nil
	})
	return true
}

// giveBack ends the use of a batch.
func (a *ahead) giveBack(b *aheadBatch) { a.free <- b.data }
