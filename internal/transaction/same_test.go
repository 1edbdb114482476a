package transaction_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
)

// TestSameBytes: the same work gives the same bytes, however many processors do it (I8).
func TestSameBytes(t *testing.T) {
	seed := testenv.Seed(t, 6)
	start := loadMem(t, "node-4k")
	work := func(procs int) *device.Mem {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		mem := start.Clone()
		clock := time.Unix(1_700_000_000, 0)
		w := newWorldOn(t, mem, seed, transaction.Options{DirtyBytes: 1 << 20, Now: func() time.Time {
			clock = clock.Add(time.Millisecond)
			return clock
		}})
		for range testenv.Rounds(15) {
			w.change(10)
			w.must(w.m.Commit(w.ctx))
		}
		w.close()
		return mem
	}
	a, b := work(1), work(4)
	const piece = 64 << 10
	p, q := make([]byte, piece), make([]byte, piece)
	for off := int64(0); off < a.Size(); off += piece {
		a.ReadAt(p, off)
		b.ReadAt(q, off)
		if !bytes.Equal(p, q) {
			t.Fatalf("bytes differ at %d", off)
		}
	}
}
