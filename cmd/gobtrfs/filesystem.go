package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func filesystemCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "filesystem", Aliases: []string{"fi"}, Short: "Show, measure and label volumes", Args: cobra.NoArgs, RunE: needVerb}
	cmd.AddCommand(fsShowCommand(), fsDfCommand(), fsUsageCommand(), fsDuCommand(), fsLabelCommand())
	return cmd
}

func fsShowCommand() *cobra.Command {
	var out output
	var state stateFlags
	cmd := &cobra.Command{
		Use: "show TARGET", Short: "Tell what a volume is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "filesystem show", args[0], state.onDisk(), func(v *btrfs.Volume) error {
				i := v.Info()
				if out.json {
					return out.document(i)
				}
				label := "none"
				if i.Label != "" {
					label = fmt.Sprintf("%q", i.Label)
				}
				fmt.Fprintf(out.w, "Label: %s  uuid: %s\n", label, i.UUID)
				fmt.Fprintf(out.w, "\tTotal devices %d FS bytes used %s\n", len(i.Devices), out.size(i.BytesUsed))
				for _, d := range i.Devices {
					missing := ""
					if d.Missing {
						missing = " MISSING"
					}
					fmt.Fprintf(out.w, "\tdevid %4d size %s used %s%s\n", d.ID, out.size(d.Size), out.size(d.Used), missing)
				}
				fmt.Fprintf(out.w, "\tnodesize %d sectorsize %d checksum %s generation %d\n\tfeatures %v\n", i.Nodesize, i.Sectorsize, i.Checksum, i.Generation, i.Features)
				return nil
			})
		},
	}
	out.flags(cmd)
	state.flags(cmd, "")
	return cmd
}

func fsDfCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "df TARGET", Short: "Space by type and profile", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "filesystem df", args[0], readOnly(), func(v *btrfs.Volume) error {
				groups, err := v.Usage(cmd.Context())
				if err != nil {
					return err
				}
				if out.json {
					return out.document(groups)
				}
				for _, g := range groups {
					fmt.Fprintf(out.w, "%s, %s: total=%s, used=%s\n", g.Type, g.Profile, out.size(g.Total), out.size(g.Used))
				}
				return nil
			})
		},
	}
	out.flags(cmd)
	return cmd
}

func fsUsageCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "usage TARGET", Short: "Space of the whole volume and its devices", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "filesystem usage", args[0], readOnly(), func(v *btrfs.Volume) error {
				groups, err := v.Usage(cmd.Context())
				if err != nil {
					return err
				}
				return printUsage(&out, v.Info(), groups)
			})
		},
	}
	out.flags(cmd)
	return cmd
}

// usageJSON is the document of filesystem usage.
type usageJSON struct {
	DeviceSize        uint64               `json:"device_size"`
	DeviceAllocated   uint64               `json:"device_allocated"`
	DeviceUnallocated uint64               `json:"device_unallocated"`
	Used              uint64               `json:"used_on_disk"`
	Groups            []btrfs.GroupUsage   `json:"groups"`
	Devices           []btrfs.DeviceReport `json:"devices"`
}

func printUsage(out *output, i btrfs.Info, groups []btrfs.GroupUsage) error {
	d := usageJSON{Groups: groups, Devices: i.Devices}
	for _, dev := range i.Devices {
		d.DeviceSize += dev.Size
		d.DeviceAllocated += dev.Used
	}
	d.DeviceUnallocated = d.DeviceSize - min(d.DeviceSize, d.DeviceAllocated)
	for _, g := range groups {
		d.Used += g.UsedOnDisk
	}
	if out.json {
		return out.document(d)
	}
	tw := tabwriter.NewWriter(out.w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "Device size:\t%s\nDevice allocated:\t%s\nDevice unallocated:\t%s\nUsed on disk:\t%s\n",
		out.size(d.DeviceSize), out.size(d.DeviceAllocated), out.size(d.DeviceUnallocated), out.size(d.Used))
	for _, g := range groups {
		fmt.Fprintf(tw, "%s,%s:\tsize %s, used %s\n", g.Type, g.Profile, out.size(g.Total), out.size(g.Used))
	}
	return tw.Flush()
}

func fsLabelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "label TARGET [LABEL]", Short: "Print or set the label", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return withVolume(cmd.Context(), "filesystem label", args[0], readOnly(), func(v *btrfs.Volume) error {
					fmt.Fprintln(cmd.OutOrStdout(), v.Info().Label)
					return nil
				})
			}
			return withVolume(cmd.Context(), "filesystem label", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				return v.SetLabel(cmd.Context(), args[1])
			})
		},
	}
}
