package mkfs

import (
	"fmt"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// supers writes all superblocks. With them the volume exists.
func (b *builder) supers() error {
	base := b.super()
	items := b.devItems(b.space)
	for i, d := range b.devs {
		sb := *base
		sb.Dev = items[i]
		var buf [ondisk.SuperSize]byte
		for n := range ondisk.SuperCopies {
			at := ondisk.SuperOffset(n)
			if at+ondisk.SuperSize >= sb.Dev.TotalBytes {
				break
			}
			sb.Bytenr = at
			if err := sb.Encode(buf[:]); err != nil {
				return err
			}
			checksum.Sum(b.p.csum, buf[:], buf[32:])
			if _, err := d.WriteAt(buf[:], int64(at)); err != nil {
				return fmt.Errorf("write superblock %d of device %d: %w", n, i+1, err)
			}
		}
	}
	return b.io.Flush()
}

// super gives the superblock but for what differs between devices.
func (b *builder) super() *ondisk.Superblock {
	roots := map[ondisk.TreeID]tree{}
	for _, t := range b.trees {
		roots[t.id] = t
	}
	root, chunks := roots[ondisk.RootTree], roots[ondisk.ChunkTree]
	sb := &ondisk.Superblock{
		FSID: b.p.fsid, Flags: ondisk.SuperFlagWritten, Generation: generation,
		Root: root.root, RootLevel: root.level, ChunkRoot: chunks.root, ChunkRootLevel: chunks.level, ChunkRootGeneration: generation,
		RootDirObjectid: ondisk.RootDirObjectid, NumDevices: uint64(len(b.devs)), TotalBytes: b.space.total(),
		Sectorsize: b.p.sectorsize, Nodesize: b.p.nodesize, Leafsize: b.p.nodesize, Stripesize: b.p.sectorsize,
		Incompat: b.p.incompat, CompatRO: b.p.compatRO, CsumType: uint16(b.p.csum), Label: b.p.opt.Label,
		UUIDTreeGeneration: generation,
	}
	if b.p.compatRO&ondisk.CompatROFreeSpaceTree == 0 {
		sb.CacheGeneration = ^ondisk.Generation(0)
	}
	for _, s := range b.subvols() {
		if s.isDefault {
			sb.Incompat |= ondisk.IncompatDefaultSubvol
		}
	}
	for i := range b.space.areas {
		a := &b.space.areas[i]
		sb.BytesUsed += a.usedBytes()
		if a.kind == system {
			sb.SysChunks = append(sb.SysChunks, ondisk.SysChunk{Logical: a.Logical, Chunk: a.ChunkItem})
		}
	}
	backup := func(id ondisk.TreeID) ondisk.BackupTree {
		return ondisk.BackupTree{Bytenr: roots[id].root, Generation: generation, Level: roots[id].level}
	}
	sb.Backups[0] = ondisk.BackupRoot{
		Root: backup(ondisk.RootTree), Chunk: backup(ondisk.ChunkTree), Extent: backup(ondisk.ExtentTree), FS: backup(ondisk.FSTree),
		Dev: backup(ondisk.DevTree), Csum: backup(ondisk.CsumTree),
		TotalBytes: sb.TotalBytes, BytesUsed: sb.BytesUsed, NumDevices: sb.NumDevices,
	}
	return sb
}
