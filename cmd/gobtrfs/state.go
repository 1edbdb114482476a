package main

import (
	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// Copies of the superblock, and backup roots in each.
const (
	superCopies = 3
	backupRoots = 4
)

// stateFlags choose which state of a damaged volume a command reads.
type stateFlags struct {
	super, backup nthFlag
	forensic      bool
	ignoreSums    bool
	cmd           *cobra.Command
}

// flags adds --super and --backup to a command; short is a letter for --super, or "".
func (f *stateFlags) flags(cmd *cobra.Command, short string) {
	f.super.most, f.backup.most = superCopies, backupRoots
	cmd.Flags().VarP(&f.super, "super", short, "superblock copy to use, from 1 (default: the newest good one)")
	cmd.Flags().Var(&f.backup, "backup", "backup root to use, from 1, the newest (default: the current root)")
}

// forensicFlag adds --forensic to a command that reads files or trees.
func (f *stateFlags) forensicFlag(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().BoolVar(&f.forensic, "forensic", false, "search the whole target for what is left of lost trees (slow)")
}

// checksumsFlag adds --ignore-checksums to a command that reads the contents of files.
func (f *stateFlags) checksumsFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.ignoreSums, "ignore-checksums", false, "give data as they are where no copy has the right checksum, or checksums are lost")
}

// onDisk are the options to see what lies on the disk: a log is left alone.
func (f *stateFlags) onDisk() btrfs.Options {
	opt := f.readOnly()
	opt.NoReplay = true
	return opt
}

// readOnly are the options to open the volume for reading.
func (f *stateFlags) readOnly() btrfs.Options {
	opt := btrfs.Options{ReadOnly: true, Super: f.super.n, Backup: f.backup.n, IgnoreDataChecksums: f.ignoreSums}
	if f.forensic {
		opt.Forensic = &btrfs.ForensicOptions{Progress: f.watch()}
	}
	return opt
}

// watch shows how the search of --forensic goes.
func (f *stateFlags) watch() func(done, total uint64) {
	quiet := f.cmd.Flags().Lookup("quiet")
	p := newProgress(quiet != nil && quiet.Changed)
	return func(done, total uint64) {
		p.tell(bytesState("searching", done, total))
		if done >= total {
			p.done()
		}
	}
}
