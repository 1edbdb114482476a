package main

import (
	"context"
	"fmt"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func subvolumeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "subvolume", Aliases: []string{"sub"}, Short: "Make, list, snapshot and delete subvolumes", Args: cobra.NoArgs, RunE: needVerb}
	cmd.AddCommand(subCreateCommand(), subListCommand(), subShowCommand(), subSnapshotCommand(), subDeleteCommand(), subUndeleteCommand(), subGetDefaultCommand(), subSetDefaultCommand())
	return cmd
}

// needVerb is what a command does that only has subcommands.
func needVerb(cmd *cobra.Command, args []string) error {
	return usagef("%s needs a verb; see 'gobtrfs %s --help'", cmd.Name(), cmd.Name())
}

func subCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "create TARGET PATH…", Short: "Make empty subvolumes", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "subvolume create", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				for _, p := range args[1:] {
					if _, err := v.CreateSubvolume(cmd.Context(), p); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func subSnapshotCommand() *cobra.Command {
	var readonly bool
	cmd := &cobra.Command{
		Use: "snapshot TARGET SOURCE DEST", Short: "Take a snapshot", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "subvolume snapshot", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				dest := args[2]
				into, err := isDir(v.Top(), rel(dest))
				if err != nil {
					return err
				}
				if into {
					dest = path.Join(dest, path.Base(rel(args[1])))
				}
				_, err = v.Snapshot(cmd.Context(), args[1], dest, readonly)
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&readonly, "readonly", "r", false, "make it read-only")
	return cmd
}

// subvolumeJSON is a subvolume in JSON output.
type subvolumeJSON struct {
	ID           uint64    `json:"id"`
	Parent       uint64    `json:"parent"`
	Path         string    `json:"path"`
	PathB64      string    `json:"path_b64,omitempty"`
	ReadOnly     bool      `json:"readonly"`
	Generation   uint64    `json:"generation"`
	Origin       uint64    `json:"origin_generation"`
	Created      time.Time `json:"created"`
	UUID         string    `json:"uuid,omitempty"`
	ParentUUID   string    `json:"parent_uuid,omitempty"`
	ReceivedUUID string    `json:"received_uuid,omitempty"`
	Deleted      bool      `json:"deleted,omitempty"`
	HalfDropped  bool      `json:"half_dropped,omitempty"`
}

func subvolumeDoc(s btrfs.SubvolumeInfo) subvolumeJSON {
	return subvolumeJSON{
		ID: s.ID, Parent: s.Parent, Path: s.Path, PathB64: b64(s.Path), ReadOnly: s.ReadOnly, Generation: s.Generation, Origin: s.OriginGeneration,
		Created: s.Created.UTC(), UUID: uuidText(s.UUID), ParentUUID: uuidText(s.ParentUUID), ReceivedUUID: uuidText(s.ReceivedUUID),
		Deleted: s.Deleted, HalfDropped: s.HalfDropped,
	}
}

func uuidText(u btrfs.UUID) string {
	if u.IsZero() {
		return ""
	}
	return u.String()
}

func subListCommand() *cobra.Command {
	var out output
	var state stateFlags
	var deleted, readonly, snapshots, uuids bool
	cmd := &cobra.Command{
		Use: "list TARGET", Short: "List subvolumes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "subvolume list", args[0], state.readOnly(), func(v *btrfs.Volume) error {
				list, err := v.Subvolumes(cmd.Context())
				if err != nil {
					return err
				}
				docs := []subvolumeJSON{}
				for _, s := range list {
					if s.ID == 5 || s.Deleted != deleted || readonly && !s.ReadOnly || snapshots && s.ParentUUID.IsZero() {
						continue
					}
					docs = append(docs, subvolumeDoc(s))
				}
				if out.json {
					return out.document(docs)
				}
				return printSubvolumes(&out, docs, uuids)
			})
		},
	}
	cmd.Flags().BoolVarP(&deleted, "deleted", "d", false, "subvolumes that are deleted but not dropped yet")
	cmd.Flags().BoolVarP(&readonly, "readonly", "r", false, "only read-only ones")
	cmd.Flags().BoolVarP(&snapshots, "snapshots", "s", false, "only snapshots")
	cmd.Flags().BoolVarP(&uuids, "uuid", "u", false, "print UUIDs")
	state.flags(cmd, "")
	state.forensicFlag(cmd)
	out.flags(cmd)
	return cmd
}

func printSubvolumes(out *output, docs []subvolumeJSON, uuids bool) error {
	tw := tabwriter.NewWriter(out.w, 0, 8, 1, ' ', 0)
	for _, s := range docs {
		fmt.Fprintf(tw, "ID %d\tgen %d\ttop level %d\t", s.ID, s.Generation, s.Parent)
		if uuids {
			fmt.Fprintf(tw, "uuid %s\t", s.UUID)
		}
		name := strings.TrimPrefix(s.Path, "/")
		if s.Deleted {
			name = "DELETED"
			if s.HalfDropped {
				name = "DELETED (half dropped)"
			}
		}
		fmt.Fprintf(tw, "path %s\n", textName(name))
	}
	return tw.Flush()
}

func subShowCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "show TARGET PATH", Short: "Tell all about a subvolume", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "subvolume show", args[0], readOnly(), func(v *btrfs.Volume) error {
				s, err := v.SubvolumeInfo(cmd.Context(), args[1])
				if err != nil {
					return err
				}
				d := subvolumeDoc(s)
				if out.json {
					return out.document(d)
				}
				for _, l := range [][2]string{
					{"Path", textName(d.Path)}, {"Subvolume ID", fmt.Sprint(d.ID)}, {"Parent ID", fmt.Sprint(d.Parent)}, {"UUID", dash(d.UUID)},
					{"Parent UUID", dash(d.ParentUUID)}, {"Received UUID", dash(d.ReceivedUUID)}, {"Creation time", d.Created.Format(time.RFC3339)},
					{"Generation", fmt.Sprint(d.Generation)}, {"Gen at creation", fmt.Sprint(d.Origin)}, {"Read-only", fmt.Sprint(d.ReadOnly)},
				} {
					fmt.Fprintf(out.w, "%-16s %s\n", l[0]+":", l[1])
				}
				return nil
			})
		},
	}
	out.flags(cmd)
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func subGetDefaultCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "get-default TARGET", Short: "Print the default subvolume", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "subvolume get-default", args[0], readOnly(), func(v *btrfs.Volume) error {
				s, err := v.DefaultSubvolume(cmd.Context())
				if err != nil {
					return err
				}
				if out.json {
					return out.document(subvolumeDoc(s))
				}
				fmt.Fprintf(out.w, "ID %d path %s\n", s.ID, textName(s.Path))
				return nil
			})
		},
	}
	out.flags(cmd)
	return cmd
}

func subSetDefaultCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set-default TARGET PATH", Short: "Set the default subvolume", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "subvolume set-default", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				return v.SetDefaultSubvolume(cmd.Context(), args[1])
			})
		},
	}
}

const (
	mostBudget = 1 << 20 // memory grows with it
	leastRate  = 4 << 10 // with less even one tree block takes its time
)

// deleteFlags are the options of subvolume delete.
type deleteFlags struct {
	dryRun, noDrop, ghosts, direct, quiet, verbose bool
	budget                                         int
	rate                                           sizeFlag
}

func subDeleteCommand() *cobra.Command {
	var out output
	var f deleteFlags
	cmd := &cobra.Command{
		Use:   "delete TARGET PATH…",
		Short: "Delete subvolumes and snapshots, any number at once",
		Long: "Deletes subvolumes and snapshots: all are unlinked in one transaction, then dropped as one set.\n" +
			"Returns when they are durably gone. ^C is safe; a rerun carries on. A path may be a pattern (*, ?, […]).",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			if f.budget < 0 || f.budget > mostBudget {
				return usagef("subvolume delete: --budget %d: from 1 to %d, or 0 to have it chosen", f.budget, mostBudget)
			}
			if f.rate > 0 && f.rate < leastRate {
				return usagef("subvolume delete: --rate %d: at least %s a second", f.rate, iec(leastRate))
			}
			if len(args) < 2 && !f.ghosts {
				return usagef("subvolume delete: name at least one subvolume (or use --ghosts)")
			}
			opt := btrfs.Options{ReadOnly: f.dryRun, Direct: f.direct}
			return withVolume(cmd.Context(), "subvolume delete", args[0], opt, func(v *btrfs.Volume) error {
				return deleteSubvolumes(cmd, v, &out, f, args[1:])
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.dryRun, "dry-run", false, "change nothing; tell exactly what would be given back")
	fl.BoolVar(&f.noDrop, "no-drop", false, "only unlink; the space comes back later")
	fl.BoolVar(&f.ghosts, "ghosts", false, "finish subvolumes that were deleted earlier but not dropped")
	fl.IntVar(&f.budget, "budget", 0, "tree blocks freed per commit (0: chosen)")
	fl.Var(&f.rate, "rate", "free at most SIZE a second (0: as fast as it goes)")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	fl.BoolVar(&f.direct, "direct", false, "read and write past the page cache (Linux)")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "print work counters")
	out.eventFlags(cmd)
	return cmd
}

func deleteSubvolumes(cmd *cobra.Command, v *btrfs.Volume, out *output, f deleteFlags, args []string) error {
	ctx := cmd.Context()
	paths, err := v.MatchSubvolumes(ctx, args)
	if err != nil {
		return err
	}
	if f.dryRun {
		plan, err := planFor(ctx, v, paths, f.ghosts)
		if err != nil {
			return err
		}
		return printPlan(out, plan)
	}
	if len(paths) > 0 {
		if err := v.DeleteSubvolumes(ctx, paths); err != nil {
			return err
		}
	}
	if f.noDrop {
		return nil
	}
	p := newProgressOf(out, f.quiet)
	tell := func(r btrfs.DropReport) { p.tell(dropState(r, len(paths))) }
	rep, err := v.Drop(ctx, btrfs.DropOptions{Budget: f.budget, Rate: uint64(f.rate), Progress: tell, Watch: tell})
	p.done()
	if err != nil {
		return err
	}
	return printDropped(out, f, len(paths), rep, p.elapsed())
}

// dropState tells how far a drop got.
func dropState(r btrfs.DropReport, unlinked int) state {
	doc := dropDoc(r, unlinked)
	return state{
		verb: "dropping", part: r.Part, bytes: r.MetadataFreed + r.DataFreed, done: doc,
		text: fmt.Sprintf("%d of %d subvolumes, %s in %d tree blocks and %s of data freed", r.RootsDone, r.Roots, iec(r.MetadataFreed), r.BlocksFreed, iec(r.DataFreed)),
	}
}

// planFor works out what a deletion would give back; without paths, what finishing
// earlier ones would.
func planFor(ctx context.Context, v *btrfs.Volume, paths []string, ghosts bool) (btrfs.DropPlan, error) {
	if len(paths) == 0 && ghosts {
		return v.DropPlanDeleted(ctx)
	}
	return v.DropPlan(ctx, paths)
}

// dropJSON is the result of subvolume delete in JSON output.
type dropJSON struct {
	Unlinked    int             `json:"unlinked"`
	Subvolumes  int             `json:"subvolumes"`
	BlocksFreed uint64          `json:"tree_blocks_freed"`
	MetaFreed   uint64          `json:"metadata_bytes_freed"`
	DataExtents uint64          `json:"data_extents_freed"`
	DataFreed   uint64          `json:"data_bytes_freed"`
	Thinned     uint64          `json:"data_extents_thinned"`
	Commits     int             `json:"commits"`
	LockWaits   int             `json:"lock_waits"`
	MergedReads uint64          `json:"merged_reads"`
	Stats       btrfs.DropStats `json:"stats"`
}

func dropDoc(r btrfs.DropReport, unlinked int) dropJSON {
	return dropJSON{
		Unlinked: unlinked, Subvolumes: r.RootsDone, BlocksFreed: r.BlocksFreed, MetaFreed: r.MetadataFreed,
		DataExtents: r.ExtentsFreed, DataFreed: r.DataFreed, Thinned: r.Thinned, Commits: r.Commits,
		LockWaits: r.LockWaits, MergedReads: r.MergedReads, Stats: r.Stats,
	}
}

func printDropped(out *output, f deleteFlags, unlinked int, r btrfs.DropReport, took string) error {
	if out.json {
		return out.document(dropDoc(r, unlinked))
	}
	if f.quiet {
		return nil
	}
	fmt.Fprintf(out.w, "Dropped %d subvolumes in %s: %s of data in %d extents and %s of metadata in %d tree blocks are free again\n",
		r.RootsDone, took, out.size(r.DataFreed), r.ExtentsFreed, out.size(r.MetadataFreed), r.BlocksFreed)
	if f.verbose {
		fmt.Fprintf(out.w, "Work: %+v, %d merged reads, %d commits, %d waits for other writers, %d extents thinned out\n", r.Stats, r.MergedReads, r.Commits, r.LockWaits, r.Thinned)
	}
	return nil
}

func printPlan(out *output, p btrfs.DropPlan) error {
	if out.json {
		return out.document(p)
	}
	fmt.Fprintf(out.w, "Deleting %d subvolumes would give back:\n", p.Roots)
	tw := tabwriter.NewWriter(out.w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "  data\t%s\tin %d extents\n", out.size(p.DataBytes), p.DataExtents)
	fmt.Fprintf(tw, "  metadata\t%s\tin %d tree blocks\n", out.size(p.MetadataBytes), p.TreeBlocks)
	fmt.Fprintf(tw, "  checksums\t%s\twithin the checksum tree\n", out.size(p.ChecksumBytes))
	fmt.Fprintf(tw, "  on disk\t%s\tall copies counted\n", out.size(p.DiskBytes))
	return tw.Flush()
}
