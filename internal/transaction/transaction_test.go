package transaction_test

import (
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestRandom does random work on volumes of many kinds, and lets btrfs check judge.
func TestRandom(t *testing.T) {
	seed := testenv.Seed(t, 1)
	for _, name := range []string{"default", "node-4k", "no-skinny", "fst-bitmaps", "mixed", "space-cache-v1"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, name, seed)
			for range testenv.Rounds(200) {
				w.step()
			}
			t.Logf("%d commits, %d subvolumes, %+v", w.m.Commits(), len(w.subs), w.m.Stats())
			w.close()
			testenv.Check(t, w.paths...)
		})
	}
}
