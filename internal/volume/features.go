package volume

import (
	"fmt"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Features that can be read, and those that can be written too.
const (
	incompatRead = ondisk.IncompatMixedBackref | ondisk.IncompatDefaultSubvol | ondisk.IncompatMixedGroups | ondisk.IncompatCompressLZO |
		ondisk.IncompatCompressZstd | ondisk.IncompatBigMetadata | ondisk.IncompatExtendedIref | ondisk.IncompatRAID56 |
		ondisk.IncompatSkinnyMetadata | ondisk.IncompatNoHoles | ondisk.IncompatMetadataUUID | ondisk.IncompatRAID1C34 | ondisk.IncompatSimpleQuota
	incompatWrite  = incompatRead &^ ondisk.IncompatSimpleQuota
	compatROWrite  = ondisk.CompatROFreeSpaceTree | ondisk.CompatROFreeSpaceTreeValid | ondisk.CompatROVerity | ondisk.CompatROBlockGroupTree
	superFlagsRead = ondisk.SuperFlagWritten | ondisk.SuperFlagReloc | ondisk.SuperFlagError | ondisk.SuperFlagSeeding |
		ondisk.SuperFlagMetadump | ondisk.SuperFlagMetadumpV2
)

// UnsupportedError names features of a volume that this program does not know.
type UnsupportedError struct {
	Bits    uint64
	Names   []string
	Writing bool // the volume can be read, but not written
}

func (e *UnsupportedError) Error() string {
	if e.Writing {
		return fmt.Sprintf("volumes with %s can only be read yet: open it read-only", strings.Join(e.Names, ", "))
	}
	return fmt.Sprintf("the volume has features that are not supported: %s", strings.Join(e.Names, ", "))
}

// RefusedError tells why devices make no volume, or none that can be written, though no bytes on them are known to be wrong.
type RefusedError struct {
	Reason  string
	Writing bool // the volume can be read, but not written
}

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

func refuseWriting(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...), Writing: true}
}

// checkFeatures refuses what cannot be read.
func checkFeatures(sb *ondisk.Superblock) error {
	if bad := sb.Incompat &^ incompatRead; bad != 0 {
		return &UnsupportedError{Bits: bad, Names: ondisk.IncompatNames(bad)}
	}
	if bad := sb.Flags &^ superFlagsRead; bad != 0 {
		return &UnsupportedError{Bits: bad, Names: []string{fmt.Sprintf("superblock flags %#x (a conversion may be unfinished)", bad)}}
	}
	return nil
}

// WriteProblem tells why the volume must not be written, or nil.
func (v *Volume) WriteProblem() error {
	if bad := v.sb.Incompat &^ incompatWrite; bad != 0 {
		return &UnsupportedError{Bits: bad, Names: ondisk.IncompatNames(bad), Writing: true}
	}
	if bad := v.sb.CompatRO &^ compatROWrite; bad != 0 {
		return &UnsupportedError{Bits: bad, Names: ondisk.CompatRONames(bad), Writing: true}
	}
	for id := range v.devs {
		if _, ok := v.devItem(id); !ok {
			if id == 0 { // Linux: BTRFS_DEV_REPLACE_DEVID
				return refuseWriting("one of the devices is the target of a device replacement: let Linux finish or cancel it before the volume is written")
			}
			return &ondisk.CorruptError{What: "device items", Tree: ondisk.ChunkTree, Slot: -1, Reason: "a device has none", Got: id}
		}
	}
	sizes := map[ondisk.DevID]uint64{}
	for _, d := range v.DevItems() {
		sizes[d.DevID] = d.TotalBytes
		if dev, ok := v.devs[d.DevID]; ok && uint64(dev.Size()) < d.TotalBytes {
			return refuseWriting("device %d has %d bytes, the volume uses %d: it was cut off, and can only be read", d.DevID, dev.Size(), d.TotalBytes)
		}
	}
	switch {
	case v.stale > 0: // before missing: what is behind is left out, and counts as missing too
		return refuseWriting("%d devices missed commits and are behind the others: the volume can only be read until they are brought up to date", v.stale)
	case len(v.missing) > 0:
		return refuseWriting("device %d is missing: a degraded volume can only be read yet", v.missing[0])
	case v.seeds > 0 || v.sb.Flags&ondisk.SuperFlagSeeding != 0:
		return refuseWriting("a seeding device is part of the volume: it can only be read yet")
	case v.sb.Flags&(ondisk.SuperFlagMetadump|ondisk.SuperFlagMetadumpV2) != 0:
		return refuseWriting("this is a dump of metadata: it can only be read")
	case v.opt.BackupRoot >= 0 || v.opt.SuperCopy > 0:
		return refuseWriting("a volume opened by a backup root or a copy of the superblock can only be read")
	case v.opt.IgnoreDataChecksums:
		return refuseWriting("a volume whose checksums are ignored can only be read")
	}
	return chunk.Laid(v.chunks.All(), sizes)
}
