package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func rescueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rescue", Short: "Repair damaged volumes", Args: cobra.NoArgs, RunE: needVerb}
	cmd.AddCommand(superRecoverCommand())
	return cmd
}

func superRecoverCommand() *cobra.Command {
	var yes, verbose bool
	cmd := &cobra.Command{
		Use: "super-recover TARGET", Short: "Write bad copies of the superblock anew from the newest good one", Args: cobra.ExactArgs(1),
		Long: "Finds copies of the superblock that are bad or behind, and after a yes writes them anew from the newest good one.\n" +
			"A device that missed commits is first brought up to date from the other copies; what only it holds is lost.",
		RunE: func(cmd *cobra.Command, args []string) error {
			bad, err := btrfs.RecoverSupers(cmd.Context(), args[0], false)
			if err != nil {
				return fmt.Errorf("rescue super-recover: %w", err)
			}
			w := cmd.OutOrStdout()
			if len(bad) == 0 {
				fmt.Fprintln(w, "All copies of the superblock are good, nothing to do")
				return nil
			}
			for _, b := range bad {
				fmt.Fprintf(w, "device %d: %v\n", b.DevID, b.Err)
			}
			if !yes && !confirm(fmt.Sprintf("Write %d copies anew? [y/N] ", len(bad))) {
				return fmt.Errorf("rescue super-recover: %s: nothing was changed; -y does it without asking", args[0])
			}
			if _, err := btrfs.RecoverSupers(cmd.Context(), args[0], true); err != nil {
				return fmt.Errorf("rescue super-recover: %w", err)
			}
			fmt.Fprintf(w, "%d copies of the superblock were written\n", len(bad))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell what is done, as it always does")
	return cmd
}

// confirm asks a question on the terminal; anything but yes means no.
func confirm(question string) bool {
	fmt.Fprint(os.Stderr, question)
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
