package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func subUndeleteCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "undelete TARGET ID [PATH]", Short: "Bring back a deleted subvolume that is still whole",
		Long: "Takes back the deletion of the subvolume ID, as 'gobtrfs subvolume list --deleted' tells it, and puts it at PATH\n" +
			"(default: /recovered-ID; where it was before is not recorded). Nothing of it may have been dropped yet, so do this\n" +
			"first: any other command that writes, and Linux when it mounts the volume for writing, begin to drop what is deleted.\n" +
			"This command drops nothing. Other deleted subvolumes stay as they are and can be brought back too.",
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			id, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return usagef("subvolume undelete: %q is not the id of a subvolume; see 'gobtrfs subvolume list --deleted'", args[1])
			}
			dest := "/recovered-" + args[1]
			if len(args) > 2 {
				dest = args[2]
			}
			return withVolume(cmd.Context(), "subvolume undelete", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				if _, err := v.UndeleteSubvolume(cmd.Context(), id, dest); err != nil {
					return err
				}
				if err := v.Commit(cmd.Context()); err != nil {
					return err
				}
				s, err := v.SubvolumeInfo(cmd.Context(), dest)
				if err != nil {
					return err
				}
				if out.json {
					return out.document(subvolumeDoc(s))
				}
				fmt.Fprintf(out.w, "Subvolume %d is back at %s\n", s.ID, textName("/"+rel(s.Path)))
				return nil
			})
		},
	}
	out.flags(cmd)
	return cmd
}
