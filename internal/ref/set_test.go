package ref

import (
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

func TestSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s Set
	want := map[ondisk.Bytenr]bool{}
	if s.Has(0) || s.Has(4096) || s.Len() != 0 {
		t.Fatal("the empty set holds something")
	}
	for range 20000 {
		at := ondisk.Bytenr(rng.Uint64N(1<<14)) << 12
		if s.Has(at) != want[at] {
			t.Fatalf("Has(%d) = %v", at, !want[at])
		}
		s.Add(at)
		want[at] = true
		if !s.Has(at) || s.Len() != len(want) {
			t.Fatalf("after Add(%d): %v, %d of %d", at, s.Has(at), s.Len(), len(want))
		}
	}
}
