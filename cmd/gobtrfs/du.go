package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func fsDuCommand() *cobra.Command {
	var out output
	var snapshots bool
	cmd := &cobra.Command{
		Use: "du --snapshots TARGET [PATH…]", Short: "What each snapshot alone takes, and all of them together",
		Long: "Tells for each snapshot what deleting it alone would give back, and what deleting all that are listed at once would:\n" +
			"that is more than the sum when they share what nobody else has. A PATH may name any subvolume, or be a pattern\n" +
			"(*, ?, […]); without one, all snapshots are listed.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !snapshots {
				return usagef("filesystem du: say --snapshots; sizes of files are what 'gobtrfs stat' tells")
			}
			out.start(cmd)
			return withVolume(cmd.Context(), "filesystem du", args[0], readOnly(), func(v *btrfs.Volume) error {
				d, err := snapshotSizes(cmd.Context(), v, args[1:])
				if err != nil {
					return err
				}
				return printSizes(&out, d)
			})
		},
	}
	cmd.Flags().BoolVar(&snapshots, "snapshots", false, "sizes of snapshots")
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
}

// snapshotSizes works out the sizes. What cannot be deleted, such as a subvolume with
// others inside, says so and does not count in the set.
func snapshotSizes(ctx context.Context, v *btrfs.Volume, patterns []string) (sizesJSON, error) {
	d := sizesJSON{Snapshots: []snapshotSize{}}
	paths, err := snapshotPaths(ctx, v, patterns)
	if err != nil {
		return d, err
	}
	var set []string
	for _, p := range paths {
		info, err := v.SubvolumeInfo(ctx, p)
		if err != nil {
			return d, err
		}
		s := snapshotSize{ID: info.ID, Path: p, PathB64: b64(p)}
		plan, err := v.DropPlan(ctx, []string{p})
		if cerr := ctx.Err(); cerr != nil {
			return d, cerr
		}
		if err != nil {
			s.Error = err.Error()
		} else {
			s.Plan = &plan
			set = append(set, p)
		}
		d.Snapshots = append(d.Snapshots, s)
	}
	if len(set) > 0 {
		d.Set, err = v.DropPlan(ctx, set)
	}
	return d, err
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
