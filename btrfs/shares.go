package btrfs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/share"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
)

// Shares tells what subvolumes hold, alone and together: for any set of them what
// deleting it would give back, exactly as DropPlan does. Subvolumes are named by
// their places in the list that Volume.Shares was given.
type Shares struct {
	account *share.Account
	order   []int // families together, each in the order in which it was taken: places in the list
	place   []int // and backwards
}

// Deletable tells why subvolumes cannot be deleted together, or nil.
func (v *Volume) Deletable(ctx context.Context, paths []string) error {
	return v.view(func(tree treeFunc) error {
		ids, err := v.locateAll(ctx, tree, paths)
		if err != nil {
			return err
		}
		return subvol.Deletable(ctx, subvol.Trees(tree), ids)
	})
}

// Shares finds out what the subvolumes at paths hold, in one walk. It changes nothing.
func (v *Volume) Shares(ctx context.Context, paths []string) (*Shares, error) {
	if err := v.Commit(ctx); err != nil {
		return nil, err
	}
	var ids []ondisk.TreeID
	err := v.view(func(tree treeFunc) error {
		var err error
		ids, err = v.locateAll(ctx, tree, paths)
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := v.Subvolumes(ctx)
	if err != nil {
		return nil, err
	}
	s := &Shares{place: make([]int, len(ids))}
	if s.order, err = historic(list, ids); err != nil {
		return nil, err
	}
	sorted := make([]ondisk.TreeID, len(ids))
	for i, p := range s.order {
		sorted[i], s.place[p] = ids[p], i
	}
	s.account, err = cleaner.Shares(ctx, v.vol, sorted)
	return s, err
}

// historic puts subvolumes into order: those that descend from one another together,
// and each family as it was taken.
func historic(list []SubvolumeInfo, ids []ondisk.TreeID) ([]int, error) {
	byUUID, byID := map[UUID]SubvolumeInfo{}, map[ondisk.TreeID]SubvolumeInfo{}
	for _, s := range list {
		byUUID[s.UUID], byID[ondisk.TreeID(s.ID)] = s, s
	}
	family := func(s SubvolumeInfo) UUID {
		for range list { // parents may be in a circle
			parent, known := byUUID[s.ParentUUID]
			if s.ParentUUID.IsZero() {
				return s.UUID
			}
			if !known {
				return s.ParentUUID
			}
			s = parent
		}
		return s.UUID
	}
	order, families := make([]int, len(ids)), make([]UUID, len(ids))
	seen := map[ondisk.TreeID]bool{}
	for i, id := range ids {
		if seen[id] {
			return nil, fmt.Errorf("subvolume %d is named twice", id)
		}
		seen[id] = true
		order[i], families[i] = i, family(byID[id])
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := byID[ids[a]], byID[ids[b]]
		return cmp.Or(bytes.Compare(families[a][:], families[b][:]), cmp.Compare(x.OriginGeneration, y.OriginGeneration), cmp.Compare(x.ID, y.ID))
	})
	return order, nil
}

func planOfSum(n int, s share.Sum) DropPlan {
	return DropPlan{
		Roots: n, TreeBlocks: s.Blocks, MetadataBytes: s.MetadataBytes, DataExtents: s.Extents, DataBytes: s.DataBytes,
		ChecksumBytes: s.ChecksumBytes, DiskBytes: s.DiskBytes,
	}
}

// Alone tells what deleting one subvolume would give back.
func (s *Shares) Alone(i int) DropPlan { return planOfSum(1, s.account.Alone(s.place[i])) }

// Of tells what deleting some subvolumes together would give back.
func (s *Shares) Of(set []int) DropPlan {
	at := make([]int, len(set))
	for i, p := range set {
		at[i] = s.place[p]
	}
	return planOfSum(len(set), s.account.Of(at))
}

// All tells what deleting all of the subvolumes together would give back.
func (s *Shares) All() DropPlan {
	p := planOfSum(len(s.order), s.account.All())
	p.Reads = s.account.Reads()
	return p
}

// Cheapest gives a set of few subvolumes whose deletion gives back at least n bytes
// of data and metadata, each byte counted once; nil if all together give back less.
// exact: no set is smaller. Beyond 18 subvolumes it is found greedily, and there may
// be a smaller one.
func (s *Shares) Cheapest(n uint64) (set []int, exact bool) {
	at, exact := s.account.Cheapest(n)
	return s.listed(at), exact
}

// ShortestRun is Cheapest among subvolumes that were taken one after the other.
func (s *Shares) ShortestRun(n uint64) []int { return s.listed(s.account.ShortestRun(n)) }

func (s *Shares) listed(at []int) []int {
	var out []int
	for _, p := range at {
		out = append(out, s.order[p])
	}
	return out
}
