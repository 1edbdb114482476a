package treecheck

import (
	"encoding/binary"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// Bits of a mode, and the types of files there are.
const (
	modeMask = 0o177777
	typeMask = 0o170000
)

// Flags of inodes that we know, and the half of the word whose unknown bits only
// forbid writing.
const (
	inodeFlags   = 1<<12 - 1 | ondisk.InodeRootItemInit
	inodeFlagsRO = ondisk.InodeVerity
	roHalf       = uint64(0xffffffff) << 32
)

func knownType(mode uint32) bool {
	switch mode & typeMask {
	case 0o010000, 0o020000, 0o040000, 0o060000, 0o100000, 0o120000, 0o140000:
		return true
	}
	return false
}

// inodeNumber tells whether o can be the number of an inode.
func inodeNumber(o uint64) bool {
	return o >= ondisk.FirstFreeObjectid && o <= ondisk.LastFreeObjectid || o == ondisk.RootDirObjectid || o == ondisk.FreeInoObjectid
}

// follows checks that an item of an inode comes after another one of the same
// inode: so its INODE_ITEM can not be missing. Only the first slot may continue
// what the leaf before began.
func (k *checker) follows() error {
	if k.slot > 0 && k.b.Owner().IsSubvolume() && k.prev.Objectid != k.key.Objectid {
		return k.bad("item of an inode without inode item", nil, nil)
	}
	return nil
}

func (k *checker) inodeItem(b []byte) error {
	it, err := ondisk.DecodeInodeItem(b)
	if err != nil {
		return k.bad("wrong size", len(b), ondisk.InodeItemSize)
	}
	switch {
	case !inodeNumber(k.key.Objectid):
		return k.bad("not an inode number", nil, nil)
	case k.key.Offset != 0:
		return k.bad("key offset not 0", nil, nil)
	case !k.young(it.Generation):
		return k.bad("generation in the future", it.Generation, k.c.SuperGeneration+1)
	case !k.young(it.Transid):
		return k.bad("transid in the future", it.Transid, k.c.SuperGeneration+1)
	case it.Mode&^modeMask != 0 || !knownType(it.Mode):
		return k.bad("unknown mode", it.Mode, nil)
	case it.Mode&typeMask == 0o040000 && it.Nlink > 1:
		return k.bad("directory with more than one link", it.Nlink, 1)
	case it.Flags&^uint64(inodeFlags)&^roHalf != 0:
		return k.bad("unknown flags", it.Flags, nil)
	case k.c.Write && it.Flags&roHalf&^inodeFlagsRO != 0:
		return k.bad("unknown read-only flags", it.Flags, nil)
	}
	return nil
}

// inodeRef checks INODE_REF and INODE_EXTREF, whose entries have a head of the
// given size that ends with the length of the name.
func (k *checker) inodeRef(b []byte, head int) error {
	if err := k.follows(); err != nil {
		return err
	}
	if len(b) == 0 {
		return k.bad("empty item", nil, nil)
	}
	for len(b) > 0 {
		if len(b) < head {
			return k.bad("entry cut off", len(b), head)
		}
		n := int(binary.LittleEndian.Uint16(b[head-2:]))
		if n == 0 || n > ondisk.MaxNameLen {
			return k.bad("bad length of name", n, ondisk.MaxNameLen)
		}
		if len(b) < head+n {
			return k.bad("name cut off", len(b), head+n)
		}
		b = b[head+n:]
	}
	return nil
}

func (k *checker) extentData(b []byte) error {
	if err := k.follows(); err != nil {
		return err
	}
	if k.fileIno != k.key.Objectid {
		k.fileIno, k.fileEnd = k.key.Objectid, 0
	}
	if !k.aligned(k.key.Offset) {
		return k.bad("file offset not aligned", nil, nil)
	}
	if len(b) < ondisk.FileExtentInlineStart {
		return k.bad("too short", len(b), ondisk.FileExtentInlineStart)
	}
	if k.key.Offset < k.fileEnd {
		return k.bad("overlaps the extent before", k.fileEnd, nil)
	}
	switch typ, comp, enc := b[20], b[16], b[17]; {
	case typ > ondisk.ExtentPrealloc:
		return k.bad("unknown type of extent", typ, nil)
	case comp > ondisk.CompressZstd:
		return k.bad("unknown compression", comp, nil)
	case enc != 0:
		return k.bad("unknown encryption", enc, nil)
	case typ == ondisk.ExtentInline:
		return k.inlineData(b)
	}
	return k.regularData(b)
}

func (k *checker) inlineData(b []byte) error {
	ram := binary.LittleEndian.Uint64(b[8:])
	switch {
	case k.key.Offset != 0:
		return k.bad("inline extent not at the start of the file", nil, nil)
	case b[16] == ondisk.CompressNone && ram != uint64(len(b)-ondisk.FileExtentInlineStart):
		return k.bad("wrong size of inline data", len(b)-ondisk.FileExtentInlineStart, ram)
	case ram > 1<<20:
		return k.bad("inline data too long", ram, nil)
	}
	s := uint64(k.c.Sectorsize)
	k.fileEnd = (ram + s - 1) / s * s
	return nil
}

func (k *checker) regularData(b []byte) error {
	e, err := ondisk.DecodeFileExtent(b)
	if err != nil {
		return k.bad("wrong size", len(b), ondisk.FileExtentSize)
	}
	for _, v := range [...]uint64{e.RAMBytes, uint64(e.DiskBytenr), e.DiskNumBytes, e.Offset, e.NumBytes} {
		if !k.aligned(v) {
			return k.bad("value not aligned", v, k.c.Sectorsize)
		}
	}
	end := k.key.Offset + e.NumBytes
	if end < k.key.Offset || uint64(e.DiskBytenr)+e.DiskNumBytes < uint64(e.DiskBytenr) || e.Offset+e.NumBytes < e.Offset {
		return k.bad("length overflows", e.NumBytes, nil)
	}
	k.fileEnd = end
	return nil
}

func (k *checker) extentCsum(b []byte) error {
	switch {
	case k.key.Objectid != ondisk.CsumObjectid:
		return k.bad("wrong object id", nil, nil)
	case !k.aligned(k.key.Offset):
		return k.bad("address not aligned", nil, nil)
	case k.c.CsumSize <= 0:
		return nil
	case len(b)%k.c.CsumSize != 0:
		return k.bad("size not a multiple of a checksum's", len(b), k.c.CsumSize)
	case k.key.Offset < k.csumEnd:
		return k.bad("overlaps the item before", k.csumEnd, nil)
	}
	k.csumEnd = k.key.Offset + uint64(len(b)/k.c.CsumSize)*uint64(k.c.Sectorsize)
	return nil
}
