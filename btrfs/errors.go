package btrfs

import (
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Errors that callers ask for with errors.Is. Others come from package io/fs:
// fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid.
var (
	// ErrReadOnly: the volume was opened read-only, or turned read-only
	// because a transaction was aborted, or the subvolume is read-only.
	ErrReadOnly = fstree.ErrReadOnly
	// ErrNotDir, ErrIsDir, ErrNotEmpty are what their errno counterparts are.
	ErrNotDir   = fstree.ErrNotDir
	ErrIsDir    = fstree.ErrIsDir
	ErrNotEmpty = fstree.ErrNotEmpty
	// ErrNameTooLong: a name is longer than 255 bytes.
	ErrNameTooLong = fstree.ErrNameTooLong
	// ErrLoop: more than 40 symbolic links were met in one path.
	ErrLoop = errors.New("too many levels of symbolic links")
	// ErrNotSubvolume: a path names something that is not a subvolume.
	ErrNotSubvolume = errors.New("not a subvolume")
	// ErrNotDeleted, ErrDropping: a subvolume cannot be undeleted, because it is
	// not deleted, or because its drop has begun.
	ErrNotDeleted = subvol.ErrNotDeleted
	ErrDropping   = subvol.ErrDropping
	// ErrCrossDevice: a rename or link would leave its subvolume.
	ErrCrossDevice = errors.New("crosses a subvolume border")
	// ErrRoots: the root tree cannot be read; an older one (Options.Backup) may.
	ErrRoots = volume.ErrRoots
	// ErrChunks: the chunk tree cannot be read; Options.Forensic may do without.
	ErrChunks = volume.ErrChunks
)

// IsDataError tells whether data of a file could not be read because no copy of it
// is good; other parts of the file may be.
func IsDataError(err error) bool {
	var bad *filedata.ReadError
	return errors.As(err, &bad)
}

// pathErr wraps err as package io/fs wants it.
func pathErr(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
