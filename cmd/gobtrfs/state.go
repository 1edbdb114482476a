package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// Copies of the superblock, and backup roots in each.
const (
	superCopies = 3
	backupRoots = 4
)

// stateFlags choose which state of a damaged volume a command reads.
type stateFlags struct{ super, backup nthFlag }

// flags adds --super and --backup to a command; short is a letter for --super, or "".
func (f *stateFlags) flags(cmd *cobra.Command, short string) {
	f.super.most, f.backup.most = superCopies, backupRoots
	cmd.Flags().VarP(&f.super, "super", short, "superblock copy to use, from 1 (default: the newest good one)")
	cmd.Flags().Var(&f.backup, "backup", "backup root to use, from 1, the newest (default: the current root)")
}

// readOnly are the options to open the volume for reading.
func (f *stateFlags) readOnly() btrfs.Options {
	return btrfs.Options{ReadOnly: true, NoReplay: true, Super: f.super.n, Backup: f.backup.n}
}

// nthFlag is a flag that holds a number from 1 to most; 0 when it is not given.
type nthFlag struct{ n, most int }

func (f *nthFlag) String() string {
	if f.n == 0 {
		return ""
	}
	return strconv.Itoa(f.n)
}

func (f *nthFlag) Type() string { return "N" }

func (f *nthFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > f.most {
		return usagef("%q is not a number from 1 to %d", s, f.most)
	}
	f.n = n
	return nil
}
