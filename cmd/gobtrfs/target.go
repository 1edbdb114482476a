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
	err = finishDrops(ctx, v, verb)
	if err == nil {
		err = fn(v)
	}
	if cerr := v.Close(); cerr != nil {
		err = errors.Join(err, cerr)
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
		return fmt.Errorf("%w\nan older state may be readable: try --backup 2 (up to %d); gobtrfs restore gets the files out", err, backupRoots)
	}
	return err
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
