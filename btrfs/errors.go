package btrfs

import (
	"errors"
	"io/fs"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Errors that callers ask for with errors.Is. Others come from package io/fs:
// fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, fs.ErrClosed.
var (
	// ErrReadOnly: the volume was opened read-only, or the subvolume is read-only.
	ErrReadOnly = fstree.ErrReadOnly
	// ErrNoSpace: the volume is full. It is also a syscall.ENOSPC. Nothing was changed;
	// of a File, what was written before is kept.
	ErrNoSpace = transaction.ErrNoSpace
	// ErrNotDir, ErrIsDir, ErrNotEmpty, ErrTooManyLinks are what their errno
	// counterparts are.
	ErrNotDir       = fstree.ErrNotDir
	ErrIsDir        = fstree.ErrIsDir
	ErrNotEmpty     = fstree.ErrNotEmpty
	ErrTooManyLinks = fstree.ErrTooManyLinks
	// ErrNameTooLong: a name is longer than 255 bytes.
	ErrNameTooLong = fstree.ErrNameTooLong
	// ErrTooLarge: an extended attribute does not fit in a tree block, or a name beside
	// others of the same hash.
	ErrTooLarge = fstree.ErrTooLarge
	// ErrLoop: more than 40 symbolic links were met in one path.
	ErrLoop = errors.New("too many levels of symbolic links")
	// ErrCrossDevice: a rename or link would leave its subvolume.
	ErrCrossDevice = errors.New("crosses a subvolume border")

	// ErrNotSubvolume: a path names something that is not a subvolume.
	ErrNotSubvolume = errors.New("not a subvolume")
	// ErrNested, ErrDefault, ErrTop: a subvolume cannot be deleted, because others are
	// nested in it, because it is the default one, because it is the top-level one.
	ErrNested  = subvol.ErrNested
	ErrDefault = subvol.ErrDefault
	ErrTop     = subvol.ErrTop
	// ErrNotDeleted, ErrDropping: a subvolume cannot be undeleted, because it is
	// not deleted, or because its drop has begun.
	ErrNotDeleted = subvol.ErrNotDeleted
	ErrDropping   = subvol.ErrDropping

	// ErrInUse: a target is open elsewhere, in this program or another.
	ErrInUse = device.ErrInUse
	// ErrMounted: a block device is mounted.
	ErrMounted = device.ErrMounted
	// ErrRoots: the root tree cannot be read; an older one (Options.Backup) may.
	ErrRoots = volume.ErrRoots
	// ErrChunks: the chunk tree cannot be read; Options.Forensic may do without.
	ErrChunks = volume.ErrChunks
	// ErrSuper: what may well be a volume has no valid superblock; Options.Forensic may do without.
	ErrSuper = volume.ErrSuper

	// ErrOptions: Make was given options that make no sense, alone, together or on
	// these devices.
	ErrOptions = mkfs.ErrOptions
	// ErrNoRoom: what Make is to put into the volume does not fit on the devices.
	ErrNoRoom = mkfs.ErrNoRoom
)

// Errors that tell more, for errors.As.
type (
	// UnsupportedError names feature bits that this version does not know.
	UnsupportedError = volume.UnsupportedError
	// RefusedError tells why devices make no volume, or none that can be written,
	// though no bytes on them are known to be wrong: one is missing, cut off, of
	// another volume.
	RefusedError = volume.RefusedError
	// CorruptError tells where bytes of a volume are wrong: tree, address,
	// slot, what was found and what was expected.
	CorruptError = ondisk.CorruptError
	// AbortError is what every change meets after a transaction was aborted, with the
	// cause. The volume can be read on; opened again, it has its last commit.
	AbortError = transaction.AbortError
)

// IsDataError tells whether data of a file could not be read because no copy of it
// is good; other parts of the file may be.
func IsDataError(err error) bool {
	var bad *filedata.ReadError
	return errors.As(err, &bad)
}

// IsChecksumError tells whether data could not be read for want of a right checksum, which Options.IgnoreDataChecksums does
// without.
func IsChecksumError(err error) bool {
	var tree *CorruptError
	return errors.Is(err, filedata.ErrChecksum) || errors.Is(err, filedata.ErrNoChecksum) || errors.As(err, &tree) && tree.Tree == ondisk.CsumTree
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
