package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func restoreCommand() *cobra.Command {
	var rules getRules
	var state stateFlags
	var pattern string
	var anyCase, snapshots, quiet, goOn bool
	cmd := &cobra.Command{
		Use:   "restore TARGET DIR",
		Short: "Get files out of a damaged volume",
		Long: "Copies everything that can be read of a volume into directory DIR, which need not be there.\n" +
			"What cannot be read is named and left out; the rest is copied, and the exit status is 1.\n" +
			"Nothing is written outside DIR, and never to the volume. When the newest state is lost, try\n" +
			"--backup 2 and so on, or another --super; when the roots are lost altogether, --forensic.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			rules.verb = "restore"
			if pattern != "" {
				if anyCase {
					pattern = "(?i)" + pattern
				}
				re, err := regexp.Compile(pattern)
				if err != nil {
					return usagef("restore: --path-regex: %v", err)
				}
				rules.match = re
			}
			return withVolume(cmd.Context(), "restore", args[0], state.readOnly(), func(v *btrfs.Volume) error {
				g := newGetter(cmd, v, rules, quiet)
				defer g.progress.done()
				if !snapshots {
					g.leaveOutSnapshots(cmd.Context(), v)
				}
				return g.restore(args[1])
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&pattern, "path-regex", "", "only files whose path (from the top, /dir/file) matches")
	fl.BoolVarP(&anyCase, "ignore-case", "c", false, "upper and lower case are the same to --path-regex")
	fl.BoolVarP(&rules.overwrite, "overwrite", "o", false, "overwrite files that are in DIR already")
	fl.BoolVarP(&rules.attributes, "metadata", "m", false, "owners, modes and times too")
	fl.BoolVarP(&rules.xattrs, "xattrs", "x", false, "extended attributes too")
	fl.BoolVarP(&rules.symlinks, "symlinks", "S", false, "symbolic links too")
	fl.BoolVarP(&snapshots, "snapshots", "s", false, "snapshots too")
	fl.BoolVarP(&rules.dry, "dry-run", "D", false, "only list what would be copied")
	fl.BoolVarP(&rules.verbose, "verbose", "v", false, "print each name")
	fl.BoolVarP(&goOn, "ignore-errors", "i", false, "go on after errors, as it always does")
	fl.BoolVarP(&quiet, "quiet", "q", false, "no progress")
	state.flags(cmd, "u")
	state.forensicFlag(cmd)
	state.checksumsFlag(cmd)
	return cmd
}

// restore copies the whole volume into directory dir.
func (g *getter) restore(dir string) error {
	if !g.dry {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return err
		}
		dir = real
	}
	if err := g.one(".", dir); err != nil {
		return err
	}
	return g.result()
}

// leaveOutSnapshots makes the copy pass snapshots by.
func (g *getter) leaveOutSnapshots(ctx context.Context, v *btrfs.Volume) {
	list, err := v.Subvolumes(ctx)
	if err != nil {
		g.report(fmt.Errorf("snapshots are not told apart and are copied: %w", err))
		return
	}
	g.skip = map[uint64]bool{}
	for _, s := range list {
		if s.ID != g.s.ID() && !s.ParentUUID.IsZero() {
			g.skip[s.ID] = true
		}
	}
}
