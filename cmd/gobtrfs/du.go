package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func fsDuCommand() *cobra.Command {
	var out output
	var snapshots bool
	var free sizeFlag
	cmd := &cobra.Command{
		Use: "du --snapshots TARGET [PATH…]", Short: "What each snapshot alone takes, and all of them together",
		Long: "Tells for each snapshot what deleting it alone would give back, and what deleting all that are listed at once would:\n" +
			"that is more than the sum when they share what nobody else has. A PATH may name any subvolume, or be a pattern\n" +
			"(*, ?, […]); without one, all snapshots are listed.\n\n" +
			"--free SIZE names a set of few snapshots whose deletion gives back at least SIZE of data and metadata, and the\n" +
			"shortest run of snapshots taken one after the other that does. Up to 18 snapshots all sets are tried. Of more, the\n" +
			"set is found greedily, by adding the runs that give back the most for each snapshot: there may be a smaller one.\n" +
			"What is told of a set is exact in any case.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !snapshots {
				return usagef("filesystem du: say --snapshots; sizes of files are what 'gobtrfs stat' tells")
			}
			out.start(cmd)
			return withVolume(cmd.Context(), "filesystem du", args[0], readOnly(), func(v *btrfs.Volume) error {
				d, err := snapshotSizes(cmd, v, args[1:], uint64(free))
				if err != nil {
					return err
				}
				if cmd.Flags().Changed("free") {
					return printChoices(&out, d)
				}
				return printSizes(&out, d)
			})
		},
	}
	cmd.Flags().BoolVar(&snapshots, "snapshots", false, "sizes of snapshots")
	cmd.Flags().Var(&free, "free", "name the cheapest sets that give back at least SIZE")
	out.flags(cmd)
	return cmd
}

// snapshotSize is what deleting one subvolume would give back.
type snapshotSize struct {
	ID      uint64          `json:"id,omitempty"`
	Path    string          `json:"path"`
	PathB64 string          `json:"path_b64,omitempty"`
	Plan    *btrfs.DropPlan `json:"exclusive,omitempty"`
	Error   string          `json:"error,omitempty"` // why it cannot be deleted as it is
}

// sizesJSON is the document of filesystem du --snapshots.
type sizesJSON struct {
	Snapshots []snapshotSize `json:"snapshots"`
	Set       btrfs.DropPlan `json:"set"` // all of them at once
	Free      *freeJSON      `json:"free,omitempty"`
}

// freeJSON tells how to free some space.
type freeJSON struct {
	Wanted  uint64       `json:"wanted"`
	Choices []choiceJSON `json:"choices"`
}

// choiceJSON is a set to delete. Kinds: "fewest", and "run": taken one after the other.
type choiceJSON struct {
	Kind  string         `json:"kind"`
	Exact bool           `json:"exact"` // there is no smaller one of its kind
	IDs   []uint64       `json:"ids"`
	Paths []string       `json:"paths"`
	Set   btrfs.DropPlan `json:"set"`
}

// snapshotSizes works out the sizes. What cannot be deleted, such as a subvolume with
// others inside, says so and does not count in the set.
func snapshotSizes(cmd *cobra.Command, v *btrfs.Volume, patterns []string, free uint64) (sizesJSON, error) {
	ctx := cmd.Context()
	d := sizesJSON{Snapshots: []snapshotSize{}}
	paths, err := snapshotPaths(ctx, v, patterns)
	if err != nil {
		return d, err
	}
	byPath, err := subvolumesByPath(ctx, v)
	if err != nil {
		return d, err
	}
	var set []string
	var at []int // of those in set, in d.Snapshots
	for i, p := range paths {
		info, listed := byPath[p]
		if !listed { // a link led there, or there is nothing
			if info, err = v.SubvolumeInfo(ctx, p); err != nil {
				return d, err
			}
		}
		s := snapshotSize{ID: info.ID, Path: p, PathB64: b64(p)}
		if err := v.Deletable(ctx, []string{p}); err != nil {
			s.Error = err.Error()
		} else {
			set, at = append(set, p), append(at, i)
		}
		d.Snapshots = append(d.Snapshots, s)
	}
	shares, err := v.Shares(ctx, set)
	if err != nil {
		return d, err
	}
	for i := range set {
		plan := shares.Alone(i)
		d.Snapshots[at[i]].Plan = &plan
	}
	d.Set = shares.All()
	if cmd.Flags().Changed("free") {
		d.Free, err = choices(shares, d.Snapshots, at, free)
	}
	return d, err
}

func subvolumesByPath(ctx context.Context, v *btrfs.Volume) (map[string]btrfs.SubvolumeInfo, error) {
	list, err := v.Subvolumes(ctx)
	out := make(map[string]btrfs.SubvolumeInfo, len(list))
	for _, s := range list {
		if !s.Deleted {
			out["/"+strings.TrimPrefix(s.Path, "/")] = s
		}
	}
	return out, err
}

// choices finds what to delete; at tells where in list the snapshots are that shares counts.
func choices(shares *btrfs.Shares, list []snapshotSize, at []int, wanted uint64) (*freeJSON, error) {
	all := shares.All()
	if have := all.DataBytes + all.MetadataBytes; have < wanted {
		return nil, fmt.Errorf("all %d snapshots together would give back %s only", len(at), iec(have))
	}
	choice := func(kind string, set []int, exact bool) choiceJSON {
		c := choiceJSON{Kind: kind, Exact: exact, IDs: []uint64{}, Paths: []string{}, Set: shares.Of(set)}
		for _, i := range set {
			c.IDs, c.Paths = append(c.IDs, list[at[i]].ID), append(c.Paths, list[at[i]].Path)
		}
		return c
	}
	few, exact := shares.Cheapest(wanted)
	return &freeJSON{Wanted: wanted, Choices: []choiceJSON{
		choice("fewest", few, exact), choice("run", shares.ShortestRun(wanted), true),
	}}, nil
}

// printChoices prints the sets that free enough, as operands of subvolume delete.
func printChoices(out *output, d sizesJSON) error {
	if out.json {
		return out.document(d)
	}
	few, run := d.Free.Choices[0], d.Free.Choices[1]
	note := "no fewer do"
	if !few.Exact {
		note = "found greedily, there may be fewer"
	}
	printChoice(out, fmt.Sprintf("These %d give back at least %s (%s):", len(few.Paths), out.size(d.Free.Wanted), note), few)
	if !slices.Equal(few.Paths, run.Paths) {
		printChoice(out, fmt.Sprintf("The shortest run of snapshots that does, %d:", len(run.Paths)), run)
	}
	return nil
}

func printChoice(out *output, title string, c choiceJSON) {
	fmt.Fprintln(out.w, title)
	for _, p := range c.Paths {
		fmt.Fprintf(out.w, "  %s\n", textName(p))
	}
	fmt.Fprintf(out.w, "Together: %s of data, %s of metadata, %s on disk\n", out.size(c.Set.DataBytes), out.size(c.Set.MetadataBytes), out.size(c.Set.DiskBytes))
}

func snapshotPaths(ctx context.Context, v *btrfs.Volume, patterns []string) ([]string, error) {
	if len(patterns) > 0 {
		return v.MatchSubvolumes(ctx, patterns)
	}
	list, err := v.Subvolumes(ctx)
	var paths []string
	for _, s := range list {
		if !s.Deleted && !s.ParentUUID.IsZero() {
			paths = append(paths, "/"+rel(s.Path))
		}
	}
	return paths, err
}

func printSizes(out *output, d sizesJSON) error {
	if out.json {
		return out.document(d)
	}
	tw := tabwriter.NewWriter(out.w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "DATA\tMETADATA\tON DISK\tSNAPSHOT\n")
	for _, s := range d.Snapshots {
		if s.Plan == nil {
			fmt.Fprintf(tw, "-\t-\t-\t%s (%s)\n", textName(s.Path), s.Error)
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", out.size(s.Plan.DataBytes), out.size(s.Plan.MetadataBytes), out.size(s.Plan.DiskBytes), textName(s.Path))
	}
	fmt.Fprintf(tw, "%s\t%s\t%s\tall %d at once\n", out.size(d.Set.DataBytes), out.size(d.Set.MetadataBytes), out.size(d.Set.DiskBytes), d.Set.Roots)
	return tw.Flush()
}
