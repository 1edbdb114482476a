package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func inspectCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "inspect", Aliases: []string{"inspect-internal"}, Short: "Print structures of a volume", Args: cobra.NoArgs, RunE: needVerb}
	cmd.AddCommand(dumpSuperCommand(), dumpTreeCommand())
	return cmd
}

func dumpSuperCommand() *cobra.Command {
	var state stateFlags
	cmd := &cobra.Command{
		Use: "dump-super TARGET", Short: "Print the superblock", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "inspect dump-super", args[0], state.onDisk(), func(v *btrfs.Volume) error {
				return v.DumpSuper(cmd.OutOrStdout())
			})
		},
	}
	state.flags(cmd, "s")
	state.forensicFlag(cmd)
	return cmd
}

// treeNames are the names that -t takes beside numbers.
var treeNames = map[string]uint64{
	"root": 1, "extent": 2, "chunk": 3, "dev": 4, "device": 4, "fs": 5, "csum": 7, "checksum": 7, "quota": 8,
	"uuid": 9, "free-space": 10, "free_space": 10, "block-group": 11, "data-reloc": ^uint64(8),
}

func dumpTreeCommand() *cobra.Command {
	var tree string
	var block uint64
	var state stateFlags
	cmd := &cobra.Command{
		Use: "dump-tree TARGET", Short: "Print trees", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, ok := treeNames[tree]
			if !ok && tree != "" {
				n, err := strconv.ParseInt(tree, 10, 64)
				if err != nil {
					return usagef("dump-tree: %q is no tree", tree)
				}
				id = uint64(n)
			}
			return withVolume(cmd.Context(), "inspect dump-tree", args[0], state.onDisk(), func(v *btrfs.Volume) error {
				return v.DumpTree(cmd.Context(), cmd.OutOrStdout(), id, block)
			})
		},
	}
	cmd.Flags().StringVarP(&tree, "tree", "t", "", "only this tree: a name or an id")
	cmd.Flags().Uint64VarP(&block, "block", "b", 0, "only the block at this logical address")
	state.flags(cmd, "")
	state.forensicFlag(cmd)
	return cmd
}
