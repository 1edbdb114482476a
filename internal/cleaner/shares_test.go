package cleaner_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/share"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// One walk tells the same as a dry run of each set, and reads each block once.
func TestSharesAreWhatDryRunsTell(t *testing.T) {
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(uint64(testenv.Seed(t, 7)), 0))
	bare := uint64(0)
	for _, name := range []string{"snap30", "dead-roots-many", "half-drop-shared", "subvolumes", "full-backrefs", "many-subvolumes"} {
		t.Run(name, func(t *testing.T) {
			v, m := open(t, testenv.Images(t, name))
			defer closeAll(t, v, m)
			var ids []ondisk.TreeID
			list, err := subvol.List(ctx, v.Tree)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list { // also dead ones, but nothing that is half dropped
				if s.ID != ondisk.FSTree && s.Item.DropProgress.IsZero() {
					ids = append(ids, s.ID)
				}
			}
			a, err := cleaner.Shares(ctx, v, ids)
			if err != nil {
				t.Fatal(err)
			}
			compare := func(set []int, got share.Sum) {
				t.Helper()
				var of []ondisk.TreeID
				for _, i := range set {
					of = append(of, ids[i])
				}
				p, err := cleaner.Plan(ctx, v, of)
				if err != nil {
					t.Fatal(err)
				}
				want := share.Sum{Blocks: p.Blocks, MetadataBytes: p.MetadataBytes, Extents: p.Extents, DataBytes: p.DataBytes, ChecksumBytes: p.ChecksumBytes, DiskBytes: p.DiskBytes}
				if got != want {
					t.Errorf("%v: %+v, a dry run tells %+v", of, got, want)
				}
			}
			order := rng.Perm(len(ids))
			for _, i := range order[:min(5, len(order))] {
				compare([]int{i}, a.Alone(i))
				compare([]int{i}, a.Of([]int{i}))
			}
			for range 10 {
				order = rng.Perm(len(ids))
				set := order[:rng.IntN(len(order)+1)]
				compare(set, a.Of(set))
				run := set[:0:0]
				for i := rng.IntN(len(ids)); i < len(ids) && len(run) < 8; i++ { // neighbours have much in common
					run = append(run, i)
				}
				compare(run, a.Of(run))
			}
			if compare(order, a.All()); a.Reads() > a.All().Blocks {
				t.Errorf("%d blocks read, %d die", a.Reads(), a.All().Blocks)
			}
			bare += a.All().Blocks - a.Reads()
			t.Logf("%d trees, %d blocks, %d bytes", len(ids), a.All().Blocks, a.All().Bytes())
		})
	}
	if bare == 0 {
		t.Error("no leaf was left unread because its place is none for extents")
	}
}
