package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// withVolume opens target, runs fn and closes it; errors carry verb and target.
func withVolume(ctx context.Context, verb, target string, opt btrfs.Options, fn func(v *btrfs.Volume) error) error {
	v, err := btrfs.Open(ctx, target, opt)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, hint(target, err))
	}
	complete := tellFound(verb, v.ForensicReport())
	if err := v.LogError(); err != nil {
		fmt.Fprintln(os.Stderr, plainText(fmt.Sprintf("gobtrfs %s: warning: %s: the log of the last fsyncs cannot be replayed, what they wrote is not shown: %v", verb, target, err)))
	}
	err = finishDrops(ctx, v, verb)
	if err == nil {
		err = fn(v)
	}
	if cerr := v.Close(); cerr != nil {
		err = errors.Join(err, cerr)
	}
	if err == nil && !complete {
		return silentError(exitFailed)
	}
	var silent silentError
	var usage usageError
	if err == nil || errors.As(err, &silent) || errors.As(err, &usage) {
		return err
	}
	return fmt.Errorf("%s: %s: %w", verb, target, err)
}

// finishDrops finishes deletions that were left half done; the command that
// deletes does it by itself, and the one that takes a deletion back must not.
func finishDrops(ctx context.Context, v *btrfs.Volume, verb string) error {
	if v.Found() == 0 || !v.Writable() || verb == "subvolume delete" || verb == "subvolume undelete" {
		return nil
	}
	r, err := v.Drop(ctx, btrfs.DropOptions{})
	if err == nil {
		fmt.Fprintf(os.Stderr, "gobtrfs %s: finished dropping %d deleted subvolumes (%s freed)\n", verb, r.RootsDone, iec(r.DataFreed+r.MetadataFreed))
	}
	return err
}

// hint adds what to do about an error where that is known.
func hint(target string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), target) {
		return fmt.Errorf("%s: %w", target, err)
	}
	if errors.Is(err, btrfs.ErrRoots) {
		return fmt.Errorf("%w\nan older state may be readable: try --backup 2 (up to %d), or --forensic; gobtrfs restore gets the files out", err, backupRoots)
	}
	if errors.Is(err, btrfs.ErrChunks) || errors.Is(err, btrfs.ErrSuper) {
		return fmt.Errorf("%w\nto get out what can be found all the same: gobtrfs restore --forensic", err)
	}
	return err
}

// tellFound prints what the search of a volume for its trees found, if there was one, and tells whether nothing is missing.
func tellFound(verb string, r *btrfs.ForensicReport) bool {
	if r == nil {
		return true
	}
	say := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "gobtrfs "+verb+": "+format+"\n", args...) }
	say("%d tree blocks found in %s; reading the state of generation %d", r.Blocks, iec(r.Read), r.Generation)
	for _, n := range r.Notes {
		say("%s", n)
	}
	for _, l := range r.Losses {
		say("lost: %s", l)
	}
	return len(r.Losses) == 0
}

func readOnly() btrfs.Options { return btrfs.Options{ReadOnly: true} }

// rel turns an absolute path inside a volume into one of package io/fs.
func rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}
