package treecheck

import (
	"math/bits"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// groupType checks the type bits of a chunk or block group.
func (k *checker) groupType(t uint64) error {
	const mixed = ondisk.BlockGroupData | ondisk.BlockGroupMetadata
	profile := t & ondisk.BlockGroupProfileMask
	switch t & ondisk.BlockGroupTypeMask {
	case ondisk.BlockGroupData, ondisk.BlockGroupMetadata, ondisk.BlockGroupSystem:
	case mixed:
		if k.c.Incompat&ondisk.IncompatMixedGroups == 0 {
			return k.bad("mixed group in a volume without", t, nil)
		}
	default:
		return k.bad("bad type", t, nil)
	}
	if t&^(ondisk.BlockGroupTypeMask|ondisk.BlockGroupProfileMask) != 0 {
		return k.bad("unknown type", t, nil)
	}
	if bits.OnesCount64(profile) > 1 {
		return k.bad("more than one profile", t, nil)
	}
	return nil
}

func (k *checker) blockGroup(b []byte) error {
	g, err := ondisk.DecodeBlockGroupItem(b)
	switch {
	case err != nil:
		return k.bad("wrong size", len(b), nil)
	case k.key.Offset == 0:
		return k.bad("no length", nil, nil)
	case g.ChunkObjectid != ondisk.FirstChunkTreeObjectid:
		return k.bad("wrong chunk object id", g.ChunkObjectid, ondisk.FirstChunkTreeObjectid)
	case g.Used > k.key.Offset:
		return k.bad("more used than there is", g.Used, k.key.Offset)
	}
	return k.groupType(g.Flags)
}

// stripesFit tells whether a profile can have n stripes.
func stripesFit(typ uint64, n int) bool {
	switch typ & ondisk.BlockGroupProfileMask {
	case 0:
		return n == 1
	case ondisk.BlockGroupRAID0:
		return n >= 1
	case ondisk.BlockGroupRAID1, ondisk.BlockGroupDUP:
		return n == 2
	case ondisk.BlockGroupRAID10:
		return n >= 2 && n%2 == 0
	case ondisk.BlockGroupRAID5:
		return n >= 2
	case ondisk.BlockGroupRAID6, ondisk.BlockGroupRAID1C3:
		return n >= 3 && (n == 3 || typ&ondisk.BlockGroupRAID6 != 0)
	case ondisk.BlockGroupRAID1C4:
		return n == 4
	}
	return false
}

// CheckChunk checks a chunk item, also one of the superblock's array.
func CheckChunk(logical ondisk.Bytenr, body []byte, c Context) error {
	k := checker{b: make(ondisk.Block, ondisk.HeaderSize), c: &c, slot: -1}
	k.key = ondisk.Key{Objectid: ondisk.FirstChunkTreeObjectid, Type: ondisk.TypeChunkItem, Offset: uint64(logical)}
	return k.chunkItem(body)
}

func (k *checker) chunkItem(b []byte) error {
	ch, err := ondisk.DecodeChunkItem(b)
	if err != nil {
		return k.bad("wrong size", len(b), nil)
	}
	if err := k.groupType(ch.Type); err != nil {
		return err
	}
	switch {
	case !stripesFit(ch.Type, len(ch.Stripes)):
		return k.bad("wrong number of stripes", len(ch.Stripes), nil)
	case ch.Type&ondisk.BlockGroupRAID10 != 0 && ch.SubStripes != 2:
		return k.bad("wrong number of sub stripes", ch.SubStripes, 2)
	case !k.aligned(k.key.Offset):
		return k.bad("address not aligned", nil, nil)
	case ch.SectorSize != k.c.Sectorsize:
		return k.bad("wrong sector size", ch.SectorSize, k.c.Sectorsize)
	case ch.Length == 0 || !k.aligned(ch.Length) || ch.Length >= ondisk.StripeLen<<32:
		return k.bad("bad length", ch.Length, nil)
	case k.key.Offset+ch.Length < k.key.Offset:
		return k.bad("length overflows", ch.Length, nil)
	case ch.StripeLen != ondisk.StripeLen:
		return k.bad("wrong stripe length", ch.StripeLen, ondisk.StripeLen)
	}
	return nil
}

func (k *checker) devItem(b []byte) error {
	d, err := ondisk.DecodeDevItem(b)
	switch {
	case err != nil:
		return k.bad("wrong size", len(b), ondisk.DevItemSize)
	case k.key.Objectid != ondisk.DevItemsObjectid:
		return k.bad("wrong object id", nil, nil)
	case uint64(d.DevID) != k.key.Offset:
		return k.bad("wrong device id", d.DevID, k.key.Offset)
	case d.BytesUsed > d.TotalBytes:
		return k.bad("more used than there is", d.BytesUsed, d.TotalBytes)
	}
	return nil
}

func (k *checker) devExtent(b []byte) error {
	d, err := ondisk.DecodeDevExtent(b)
	if k.devID != k.key.Objectid {
		k.devID, k.devEnd = k.key.Objectid, 0
	}
	switch {
	case err != nil:
		return k.bad("wrong size", len(b), ondisk.DevExtentSize)
	case d.ChunkTree != ondisk.ChunkTree || d.ChunkObjectid != ondisk.FirstChunkTreeObjectid:
		return k.bad("not of a chunk", d.ChunkObjectid, ondisk.FirstChunkTreeObjectid)
	case !k.aligned(k.key.Offset) || !k.aligned(uint64(d.ChunkOffset)) || d.Length == 0 || !k.aligned(d.Length):
		return k.bad("value not aligned", d.Length, nil)
	case k.key.Offset+d.Length < k.key.Offset:
		return k.bad("length overflows", d.Length, nil)
	case k.key.Offset < k.devEnd:
		return k.bad("overlaps the extent before", k.devEnd, nil)
	}
	k.devEnd = k.key.Offset + d.Length
	return nil
}

func (k *checker) freeSpace(b []byte) error {
	start, length := k.key.Objectid, k.key.Offset
	if !k.aligned(start) || !k.aligned(length) || length == 0 || start+length < start {
		return k.bad("bad range", length, nil)
	}
	sectors := length / uint64(k.c.Sectorsize)
	switch k.key.Type {
	case ondisk.TypeFreeSpaceInfo:
		info, err := ondisk.DecodeFreeSpaceInfo(b)
		switch {
		case err != nil:
			return k.bad("wrong size", len(b), nil)
		case info.Flags&^ondisk.FreeSpaceUsesBitmaps != 0:
			return k.bad("unknown flags", info.Flags, nil)
		case uint64(info.ExtentCount) > sectors:
			return k.bad("more extents than sectors", info.ExtentCount, sectors)
		}
	case ondisk.TypeFreeSpaceExtent:
		if len(b) != 0 {
			return k.bad("wrong size", len(b), 0)
		}
	case ondisk.TypeFreeSpaceBitmap:
		if uint64(len(b)) != (sectors+7)/8 {
			return k.bad("wrong size", len(b), (sectors+7)/8)
		}
	}
	return nil
}
