package btrfs

import (
	"context"
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/partition"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
)

// MakeOptions tell what kind of volume to make. The zero value makes what
// mkfs.btrfs makes today.
type MakeOptions struct {
	Label       string
	UUID        UUID   // zero: random
	Nodesize    uint32 // 0: 16 KiB
	Sectorsize  uint32 // 0: 4 KiB
	Checksum    string // crc32c (default), xxhash, sha256, blake2
	Data        string // profile of data: single (default), dup, …
	Metadata    string // profile of metadata: dup (default on one device), single, …
	Features    []string
	RootDir     string // directory whose contents the volume gets
	Subvols     []MakeSubvol
	Compression string // "zstd:3", "zlib", "lzo"
	Shrink      bool   // cut the device to what is needed
	// Reproducible: the same input gives the same bytes.
	Reproducible bool
	Progress     func(done, total uint64)
}

// MakeSubvol makes a directory below RootDir a subvolume.
type MakeSubvol = mkfs.Subvol

// MakeResult tells what was made.
type MakeResult = mkfs.Result

// Make makes a volume on devs, whatever is on them.
func Make(ctx context.Context, devs []Device, opt MakeOptions) (*MakeResult, error) {
	ct := checksum.CRC32C
	if opt.Checksum != "" {
		var err error
		if ct, err = checksum.Parse(opt.Checksum); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOptions, err)
		}
	}
	return mkfs.Make(ctx, devs, mkfs.Options{
		Label: opt.Label, UUID: opt.UUID, Nodesize: opt.Nodesize, Sectorsize: opt.Sectorsize, Checksum: ct,
		Data: opt.Data, Metadata: opt.Metadata, Features: opt.Features, RootDir: opt.RootDir, Subvols: opt.Subvols,
		Compression: opt.Compression, Shrink: opt.Shrink, Reproducible: opt.Reproducible, Progress: opt.Progress,
	})
}

// OpenDevice opens an image file, a block device, a partition of a disk image or
// an NBD export (see Open) as a Device.
func OpenDevice(name string, readonly bool) (Device, error) {
	return partition.Open(name, device.Options{ReadOnly: readonly})
}
