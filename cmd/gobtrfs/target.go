package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	err = fn(v)
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

// hint adds what to do about an error where that is known.
func hint(target string, err error) error {
	if errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), target) {
		return fmt.Errorf("%s: %w", target, err)
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
