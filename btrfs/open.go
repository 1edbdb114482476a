package btrfs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/partition"
	"github.com/gobtrfs/gobtrfs/internal/forensic"
	"github.com/gobtrfs/gobtrfs/internal/logtree"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// Device is what a volume lies on: random-access bytes. Written bytes survive a
// loss of power only after a later Flush.
type Device = device.Device

// Options tell how to open a volume. The zero value opens for writing with
// defaults.
type Options struct {
	// ReadOnly: nothing is written, other readers are let in, a log tree is
	// replayed in memory only. Volume.LogError tells when that failed.
	ReadOnly bool
	// CacheBytes bounds the cache of tree blocks; 0 means 64 MiB.
	CacheBytes int64
	// Direct reads and writes past the page cache (Linux).
	Direct bool
	// Super is the superblock copy to use, counted from 1 (the copy at
	// 64 KiB); 0 takes the newest valid one.
	Super int
	// Backup is the backup root to use, counted from 1 (the newest); 0 uses
	// the current one. Implies ReadOnly.
	Backup int
	// NoReplay ignores a log tree when reading (the state of the last commit).
	NoReplay bool
	// NoCleanup leaves half-dropped subvolumes as they are when opening for
	// writing.
	NoCleanup bool
	// IgnoreDataChecksums: where no copy of data has the right checksum, or no checksum is to be had, the data are given as they are,
	// and counted (Volume.Unproven). Linux: rescue=ignoredatacsums, which does not even look. Implies ReadOnly.
	IgnoreDataChecksums bool
	// Forensic, if not nil, reads a volume whose chunk tree or root tree is lost: all of it is read once in search of blocks, and the
	// trees are put together from what is found. Implies ReadOnly. ForensicReport tells what was found and what is missing.
	Forensic *ForensicOptions
}

// onlyReads tells whether the options ask for, or imply, that nothing is written.
func (o Options) onlyReads() bool {
	return o.ReadOnly || o.Backup > 0 || o.Forensic != nil || o.IgnoreDataChecksums
}

// ForensicOptions bound and watch the search of a forensic Open.
type ForensicOptions = forensic.Options

// ForensicReport tells what the search of a forensic Open found.
type ForensicReport = forensic.Report

const defaultCacheBytes = 64 << 20

// Open opens the volume on target: an image file, a block device, or several of
// them separated by commas. "disk.img#2" is the second partition of a disk
// image, "disk.img@OFFSET+SIZE" a range of it. "nbd://HOST/EXPORT" and
// "nbd+unix:///EXPORT?socket=PATH" are exports of an NBD server, which must see to it
// that nobody else writes to them.
//
// Opened for writing, the volume is locked until Close; opening it a second time
// is refused, and so are mounted block devices and volumes with features that
// cannot be written yet (*UnsupportedError names them).
func Open(ctx context.Context, target string, opt Options) (*Volume, error) {
	opt.ReadOnly = opt.onlyReads()
	devs, err := openTarget(target, opt)
	if err != nil {
		return nil, err
	}
	v, err := OpenDevices(ctx, devs, opt)
	if err != nil {
		closeAll(devs)
		return nil, fmt.Errorf("%s: %w", target, err)
	}
	v.target = target
	return v, nil
}

// openTarget opens every device that target names.
func openTarget(target string, opt Options) ([]Device, error) {
	var devs []Device
	for _, name := range strings.Split(target, ",") {
		d, err := partition.Open(name, device.Options{ReadOnly: opt.ReadOnly, Direct: opt.Direct})
		if err != nil {
			closeAll(devs)
			return nil, err
		}
		devs = append(devs, d)
	}
	return devs, nil
}

func closeAll(devs []Device) {
	for _, d := range devs {
		d.Close()
	}
}

// OpenDevices opens the volume on devices that are open already, in any order.
// The volume closes them.
func OpenDevices(ctx context.Context, devs []Device, opt Options) (*Volume, error) {
	if opt.CacheBytes == 0 {
		opt.CacheBytes = defaultCacheBytes
	}
	opt.ReadOnly = opt.onlyReads()
	vol, err := volume.Open(ctx, devs, volume.Options{
		ReadOnly:   opt.ReadOnly,
		CacheBytes: opt.CacheBytes,
		SuperCopy:  opt.Super - 1,
		BackupRoot: opt.Backup - 1,
		Forensic:   opt.Forensic,

		IgnoreDataChecksums: opt.IgnoreDataChecksums,
	})
	if err != nil {
		return nil, err
	}
	v := &Volume{vol: vol, opt: opt}
	if opt.ReadOnly {
		if v.shadow, v.logErr = replayed(ctx, vol, opt); v.logErr != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return v, nil
	}
	v.mgr, err = transaction.Open(ctx, vol, transaction.Options{DropLog: true})
	if err != nil {
		return nil, err
	}
	if err := logtree.Replay(ctx, v.mgr); err != nil { // what fsync promised before an unclean stop
		return nil, err
	}
	if !opt.NoCleanup {
		if err := v.finishOld(ctx); err != nil {
			return nil, errors.Join(err, v.mgr.Close(ctx))
		}
	}
	return v, nil
}

// ForensicReport tells what a forensic Open found; nil when the volume was opened otherwise.
func (v *Volume) ForensicReport() *ForensicReport { return v.vol.ForensicReport() }

// LogError tells why the log of a volume that was opened read-only could not be replayed: what it held is not shown, the
// last commit is. It is nil when the log was replayed, when there is none, and when the state without it was asked for.
func (v *Volume) LogError() error { return v.logErr }

// replayed replays the log of a volume that is opened read-only, in memory. A log that cannot be replayed is as good
// as none: the last commit can be read.
func replayed(ctx context.Context, vol *volume.Volume, opt Options) (*transaction.Manager, error) {
	if vol.Super().LogRoot == 0 || opt.NoReplay || opt.Backup > 0 || opt.Forensic != nil {
		return nil, nil
	}
	m, err := transaction.Open(ctx, vol, transaction.Options{DropLog: true, InMemory: true})
	if err == nil {
		err = logtree.Replay(ctx, m)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// finishOld looks after what a crash or another writer left half done: it counts
// dead subvolumes (Drop drops them) and removes files without names.
func (v *Volume) finishOld(ctx context.Context) error {
	n, err := cleaner.Pending(ctx, v.mgr)
	if err != nil {
		return err
	}
	v.found = n
	return v.cleanOrphans(ctx)
}
