// Package btrfs opens, reads, changes, snapshots and drops snapshots on Btrfs
// volumes in user space: image files, block devices and partitions of disk
// images, without root and without the kernel's btrfs.
//
// A Volume is one file system on one or more devices. It holds Subvolumes,
// trees of files that can be snapshotted. A Subvolume is an fs.FS, so the
// standard library's tools (fs.WalkDir, http.FS, template.ParseFS …) work on
// it; on a volume that was opened for writing it also has the methods of a
// file system that can change: OpenFile, Mkdir, Rename, Remove, SetXattr …
//
// # Paths
//
// Methods of Volume take absolute slash-separated paths from the top-level
// subvolume ("/" is its root directory). Methods of Subvolume take paths as
// package io/fs has them, relative to the root of the subvolume ("." is it).
// Both go through nested subvolumes as if those were directories, and follow
// symbolic links, absolute ones starting at the root that the method's path
// starts at.
//
// # Writing
//
// Every change belongs to the running transaction. Nothing of it is on disk
// before Volume.Commit (or Close) returns; a crash before that leaves the last
// committed state, whole. A failed write in the middle of a change aborts the
// transaction: the volume takes no more changes (AbortError), its last commit stays.
//
// # Concurrency
//
// All methods of Volume and Subvolume may be called from many goroutines.
// Readers run side by side; changes are made one at a time. A File may be used
// by one goroutine at a time, except ReadAt.
package btrfs
