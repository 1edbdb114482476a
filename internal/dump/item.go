package dump

import (
	"encoding/binary"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/compress"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// item shows item i of a leaf.
func (d *dumper) item(b ondisk.Block, i int) {
	k, body := b.Key(i), b.Item(i)
	d.line("\titem %d key %s itemoff %d itemsize %d", i, keyText(k), b.ItemOffset(i), len(body))
	if d.opt.Quiet {
		return
	}
	if err := d.body(k, body); err != nil {
		d.line("\t\tcannot be decoded: %v", err)
	}
}

// body shows what an item says.
func (d *dumper) body(k ondisk.Key, b []byte) error {
	switch k.Type {
	case ondisk.TypeInodeItem, ondisk.TypeInodeRef, ondisk.TypeInodeExtref, ondisk.TypeXattrItem, ondisk.TypeDirItem, ondisk.TypeDirIndex,
		ondisk.TypeExtentData, ondisk.TypeDirLogIndex, ondisk.TypeDirLogItem, ondisk.TypeOrphanItem:
		return d.fileBody(k, b)
	case ondisk.TypeExtentItem, ondisk.TypeMetadataItem, ondisk.TypeTreeBlockRef, ondisk.TypeExtentDataRef, ondisk.TypeSharedBlockRef,
		ondisk.TypeSharedDataRef, ondisk.TypeBlockGroupItem, ondisk.TypeFreeSpaceInfo, ondisk.TypeFreeSpaceExtent, ondisk.TypeFreeSpaceBitmap,
		ondisk.TypeExtentCsum:
		return d.spaceBody(k, b)
	case ondisk.TypeChunkItem, ondisk.TypeDevItem, ondisk.TypeDevExtent, ondisk.TypePersistentItem, ondisk.TypeDevReplace:
		return d.deviceBody(k, b)
	}
	return d.rootBody(k, b)
}

// fileBody shows items of subvolumes.
func (d *dumper) fileBody(k ondisk.Key, b []byte) error {
	switch k.Type {
	case ondisk.TypeInodeItem:
		i, err := ondisk.DecodeInodeItem(b)
		if err != nil {
			return err
		}
		d.inode(&i)
	case ondisk.TypeInodeRef:
		refs, err := ondisk.DecodeInodeRefs(b)
		for _, r := range refs {
			d.line("\t\tindex %d namelen %d name: %s", r.Index, len(r.Name), text(r.Name))
		}
		return err
	case ondisk.TypeInodeExtref:
		refs, err := ondisk.DecodeInodeExtrefs(b)
		for _, r := range refs {
			d.line("\t\tindex %d parent %d namelen %d name: %s", r.Index, r.Parent, len(r.Name), text(r.Name))
		}
		return err
	case ondisk.TypeXattrItem, ondisk.TypeDirItem, ondisk.TypeDirIndex:
		entries, err := ondisk.DecodeDirEntries(b)
		for _, e := range entries {
			d.line("\t\tlocation key %s type %s", keyText(e.Location), entryType(e.Type))
			d.line("\t\ttransid %d data_len %d name_len %d", e.Transid, len(e.Data), len(e.Name))
			d.line("\t\tname: %s", text(e.Name))
			if len(e.Data) > 0 {
				d.line("\t\tdata %s", text(e.Data))
			}
		}
		return err
	case ondisk.TypeExtentData:
		e, err := ondisk.DecodeFileExtent(b)
		if err != nil {
			return err
		}
		d.fileExtent(&e)
	case ondisk.TypeDirLogIndex, ondisk.TypeDirLogItem:
		if len(b) == 8 {
			d.line("\t\tdir log end %d", binary.LittleEndian.Uint64(b))
		}
	case ondisk.TypeOrphanItem:
		d.line("\t\torphan item")
	}
	return nil
}

func (d *dumper) inode(i *ondisk.InodeItem) {
	d.line("\t\tgeneration %d transid %d size %d nbytes %d", i.Generation, i.Transid, i.Size, i.Nbytes)
	d.line("\t\tblock group %d mode %o links %d uid %d gid %d rdev %d", i.BlockGroup, i.Mode, i.Nlink, i.UID, i.GID, i.Rdev)
	d.line("\t\tsequence %d flags %#x(%s)", i.Sequence, i.Flags, flagNames(i.Flags, "none", "NODATASUM", "NODATACOW", "READONLY", "NOCOMPRESS", "PREALLOC",
		"SYNC", "IMMUTABLE", "APPEND", "NODUMP", "NOATIME", "DIRSYNC", "COMPRESS"))
	d.line("\t\tatime %s", when(i.Atime))
	d.line("\t\tctime %s", when(i.Ctime))
	d.line("\t\tmtime %s", when(i.Mtime))
	d.line("\t\totime %s", when(i.Otime))
}

func entryType(t uint8) string {
	names := [...]string{"UNKNOWN", "FILE", "DIR", "CHRDEV", "BLKDEV", "FIFO", "SOCK", "SYMLINK", "XATTR"}
	if int(t&0x7f) < len(names) {
		return names[t&0x7f]
	}
	return "UNKNOWN"
}

func (d *dumper) fileExtent(e *ondisk.FileExtent) {
	kinds := [...]string{"inline", "regular", "prealloc"}
	kind := "unknown"
	if int(e.Type) < len(kinds) {
		kind = kinds[e.Type]
	}
	d.line("\t\tgeneration %d type %d (%s)", e.Generation, e.Type, kind)
	switch e.Type {
	case ondisk.ExtentInline:
		d.line("\t\tinline extent data size %d ram_bytes %d compression %d (%s)", len(e.Inline), e.RAMBytes, e.Compression, compress.Name(e.Compression))
	case ondisk.ExtentPrealloc:
		d.line("\t\tprealloc data disk byte %d nr %d", e.DiskBytenr, e.DiskNumBytes)
		d.line("\t\tprealloc data offset %d nr %d", e.Offset, e.NumBytes)
	default:
		d.line("\t\textent data disk byte %d nr %d", e.DiskBytenr, e.DiskNumBytes)
		d.line("\t\textent data offset %d nr %d ram %d", e.Offset, e.NumBytes, e.RAMBytes)
		d.line("\t\textent compression %d (%s)", e.Compression, compress.Name(e.Compression))
	}
}

// spaceBody shows items of the extent, block group, free space and checksum trees.
func (d *dumper) spaceBody(k ondisk.Key, b []byte) error {
	switch k.Type {
	case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
		e, err := ondisk.DecodeExtent(k, b)
		if err != nil {
			return err
		}
		d.extent(&e)
	case ondisk.TypeTreeBlockRef:
		d.line("\t\ttree block backref")
	case ondisk.TypeSharedBlockRef:
		d.line("\t\tshared block backref")
	case ondisk.TypeExtentDataRef:
		r, err := ondisk.DecodeExtentDataRef(b)
		if err != nil {
			return err
		}
		d.line("\t\textent data backref root %s objectid %d offset %d count %d", objectName(uint64(r.Root), ondisk.TypeRootItem), r.Objectid, r.Offset, r.Count)
	case ondisk.TypeSharedDataRef:
		n, err := ondisk.DecodeSharedDataRef(b)
		if err != nil {
			return err
		}
		d.line("\t\tshared data backref count %d", n)
	case ondisk.TypeBlockGroupItem:
		g, err := ondisk.DecodeBlockGroupItem(b)
		if err != nil {
			return err
		}
		d.line("\t\tblock group used %d chunk_objectid %d flags %s", g.Used, g.ChunkObjectid, groupType(g.Flags))
	case ondisk.TypeFreeSpaceInfo:
		i, err := ondisk.DecodeFreeSpaceInfo(b)
		if err != nil {
			return err
		}
		d.line("\t\tfree space info extent count %d flags %d", i.ExtentCount, i.Flags)
	case ondisk.TypeFreeSpaceExtent:
		d.line("\t\tfree space extent")
	case ondisk.TypeFreeSpaceBitmap:
		d.line("\t\tfree space bitmap")
	case ondisk.TypeExtentCsum:
		size := max(1, uint64(d.v.CsumType().Size()))
		n := uint64(len(b)) / size * uint64(d.v.Sectorsize())
		d.line("\t\trange start %d end %d length %d", k.Offset, k.Offset+n, n)
	}
	return nil
}

func (d *dumper) extent(e *ondisk.Extent) {
	d.line("\t\trefs %d gen %d flags %s", e.ExtentItem.Refs, e.Generation, flagNames(e.Flags, "none", "DATA", "TREE_BLOCK", "", "", "", "", "", "", "FULL_BACKREF"))
	switch {
	case e.Key.Type == ondisk.TypeMetadataItem:
		d.line("\t\ttree block skinny level %d", e.Key.Offset)
	case e.Flags&ondisk.ExtentFlagTreeBlock != 0:
		d.line("\t\ttree block key %s level %d", keyText(e.FirstKey), e.Level)
	}
	for _, r := range e.Refs {
		root := objectName(uint64(r.Root), ondisk.TypeRootItem)
		switch r.Type {
		case ondisk.TypeTreeBlockRef:
			d.line("\t\t(%d %#x) tree block backref root %s", r.Type, uint64(r.Root), root)
		case ondisk.TypeSharedBlockRef:
			d.line("\t\t(%d %#x) shared block backref parent %d", r.Type, uint64(r.Parent), r.Parent)
		case ondisk.TypeExtentDataRef:
			d.line("\t\t(%d %#x) extent data backref root %s objectid %d offset %d count %d", r.Type,
				checksum.DataRefHash(uint64(r.Root), r.Objectid, r.Offset), root, r.Objectid, r.Offset, r.Count)
		case ondisk.TypeSharedDataRef:
			d.line("\t\t(%d %#x) shared data backref parent %d count %d", r.Type, uint64(r.Parent), r.Parent, r.Count)
		case ondisk.TypeExtentOwnerRef:
			d.line("\t\t(%d %#x) extent owner root %s", r.Type, uint64(r.Root), root)
		}
	}
}

// deviceBody shows items of the chunk and device trees.
func (d *dumper) deviceBody(k ondisk.Key, b []byte) error {
	switch k.Type {
	case ondisk.TypeChunkItem:
		c, err := ondisk.DecodeChunkItem(b)
		if err != nil {
			return err
		}
		d.chunk(c)
	case ondisk.TypeDevItem:
		i, err := ondisk.DecodeDevItem(b)
		if err != nil {
			return err
		}
		d.line("\t\tdevid %d total_bytes %d bytes_used %d", i.DevID, i.TotalBytes, i.BytesUsed)
		d.line("\t\tio_align %d io_width %d sector_size %d type %d", i.IOAlign, i.IOWidth, i.SectorSize, i.Type)
		d.line("\t\tgeneration %d start_offset %d dev_group %d", i.Generation, i.StartOffset, i.DevGroup)
		d.line("\t\tseek_speed %d bandwidth %d", i.SeekSpeed, i.Bandwidth)
		d.line("\t\tuuid %v", i.UUID)
		d.line("\t\tfsid %v", i.FSID)
	case ondisk.TypeDevExtent:
		e, err := ondisk.DecodeDevExtent(b)
		if err != nil {
			return err
		}
		d.line("\t\tdev extent chunk_tree %d", uint64(e.ChunkTree))
		d.line("\t\tchunk_objectid %d chunk_offset %d length %d", e.ChunkObjectid, e.ChunkOffset, e.Length)
		d.line("\t\tchunk_tree_uuid %v", e.ChunkTreeUUID)
	case ondisk.TypePersistentItem:
		d.line("\t\tpersistent item objectid %s offset %d", objectName(k.Objectid, k.Type), k.Offset)
		s, err := ondisk.DecodeDevStats(b)
		if err != nil {
			return err
		}
		d.line("\t\tdevice stats")
		d.line("\t\twrite_errs %d read_errs %d flush_errs %d corruption_errs %d generation %d", s.Write, s.Read, s.Flush, s.Corruption, s.Generation)
	case ondisk.TypeDevReplace:
		r, err := ondisk.DecodeDevReplace(b)
		if err != nil {
			return err
		}
		d.replace(&r)
	}
	return nil
}

func (d *dumper) replace(r *ondisk.DevReplace) {
	name := func(n uint64, names ...string) string {
		if n < uint64(len(names)) {
			return names[n]
		}
		return "UNKNOWN"
	}
	d.line("\t\tsrc devid %d cursor left %d cursor right %d mode %s", int64(r.SrcDevID), r.CursorLeft, r.CursorRight, name(r.Mode, "ALWAYS", "AVOID"))
	d.line("\t\tstate %s write errors %d uncorrectable read errors %d",
		name(r.State, "NEVER STARTED", "STARTED", "FINISHED", "CANCELED", "SUSPENDED"), r.WriteErrors, r.ReadErrors)
	d.line("\t\tstart time %d stop time %d", r.Started, r.Stopped)
}

func (d *dumper) chunk(c ondisk.ChunkItem) {
	d.line("\t\tlength %d owner %d stripe_len %d type %s", c.Length, c.Owner, c.StripeLen, groupType(c.Type))
	d.line("\t\tio_align %d io_width %d sector_size %d", c.IOAlign, c.IOWidth, c.SectorSize)
	d.line("\t\tnum_stripes %d sub_stripes %d", len(c.Stripes), c.SubStripes)
	for i, s := range c.Stripes {
		d.line("\t\t\tstripe %d devid %d offset %d", i, s.DevID, s.Offset)
		d.line("\t\t\tdev_uuid %v", s.DevUUID)
	}
}
