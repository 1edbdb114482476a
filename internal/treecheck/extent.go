package treecheck

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

func (k *checker) extentItem(b []byte) error {
	it, err := ondisk.DecodeExtentItem(b)
	if err != nil {
		return k.bad("too short", len(b), ondisk.ExtentItemSize)
	}
	size, head, err := k.extentHead(it, b)
	if err != nil {
		return err
	}
	switch {
	case !k.aligned(k.key.Objectid):
		return k.bad("address not aligned", nil, nil)
	case !k.young(it.Generation):
		return k.bad("generation in the future", it.Generation, k.c.SuperGeneration+1)
	case it.Refs == 0:
		return k.bad("no references", nil, nil)
	case k.key.Objectid < k.extentEnd:
		return k.bad("overlaps the extent before", k.extentEnd, nil)
	case k.key.Objectid+size < k.key.Objectid:
		return k.bad("length overflows", size, nil)
	}
	k.extentEnd = k.key.Objectid + size
	sum, err := k.inlineRefs(b[head:])
	if err != nil {
		return err
	}
	if sum > it.Refs {
		return k.bad("more inline references than counted", sum, it.Refs)
	}
	return nil
}

// extentHead checks what depends on the kind of extent, and gives its size and
// where inline references begin.
func (k *checker) extentHead(it ondisk.ExtentItem, b []byte) (size uint64, head int, err error) {
	size, head = k.key.Offset, ondisk.ExtentItemSize
	block := it.Flags&ondisk.ExtentFlagTreeBlock != 0
	if block == (it.Flags&ondisk.ExtentFlagData != 0) {
		return 0, 0, k.bad("must be either data or tree block", it.Flags, nil)
	}
	switch {
	case k.key.Type == ondisk.TypeMetadataItem:
		if k.c.Incompat&ondisk.IncompatSkinnyMetadata == 0 {
			return 0, 0, k.bad("volume has no skinny metadata", nil, nil)
		}
		if !block || k.key.Offset > ondisk.MaxLevel {
			return 0, 0, k.bad("not a tree block of a possible level", it.Flags, nil)
		}
		size = uint64(k.c.Nodesize)
	case block:
		head += ondisk.TreeBlockInfoSize
		switch {
		case size != uint64(k.c.Nodesize):
			return 0, 0, k.bad("wrong length of tree block", size, k.c.Nodesize)
		case len(b) < head:
			return 0, 0, k.bad("too short", len(b), head)
		case b[head-1] > ondisk.MaxLevel:
			return 0, 0, k.bad("level too high", b[head-1], ondisk.MaxLevel)
		}
	case size == 0 || !k.aligned(size):
		return 0, 0, k.bad("length not aligned", size, nil)
	case it.Flags&ondisk.ExtentFlagFullBackref != 0:
		return 0, 0, k.bad("full backrefs of data", nil, nil)
	}
	return size, head, nil
}

// inlineRefs checks inline references and their order, and sums up their counts.
func (k *checker) inlineRefs(b []byte) (sum uint64, err error) {
	var lastType ondisk.KeyType
	var lastSeq uint64
	for len(b) > 0 {
		r, n, err := ondisk.DecodeInlineRef(b)
		if err != nil {
			return 0, k.bad("bad inline reference", b[0], nil)
		}
		b = b[n:]
		seq, err := k.inlineRef(r)
		if err != nil {
			return 0, err
		}
		if r.Type < lastType || r.Type == lastType && seq > lastSeq {
			return 0, k.bad("inline references out of order", r.Type, lastType)
		}
		lastType, lastSeq = r.Type, seq
		if r.Type != ondisk.TypeExtentOwnerRef {
			sum += uint64(r.Count)
		}
	}
	return sum, nil
}

// inlineRef checks one inline reference and gives the number that orders it
// among those of its type.
func (k *checker) inlineRef(r ondisk.InlineRef) (seq uint64, err error) {
	switch r.Type {
	case ondisk.TypeExtentOwnerRef, ondisk.TypeTreeBlockRef:
		return uint64(r.Root), nil
	case ondisk.TypeExtentDataRef:
		d := ondisk.ExtentDataRef{Root: r.Root, Objectid: r.Objectid, Offset: r.Offset, Count: r.Count}
		return dataRefHash(d), k.dataRef(d)
	}
	if !k.aligned(uint64(r.Parent)) || r.Parent == 0 {
		return 0, k.bad("parent not aligned", uint64(r.Parent), nil)
	}
	if r.Count == 0 {
		return 0, k.bad("reference counted 0", nil, nil)
	}
	return uint64(r.Parent), nil
}

func (k *checker) dataRef(d ondisk.ExtentDataRef) error {
	switch {
	case !d.Root.IsSubvolume() && d.Root != ondisk.RootTree && d.Root != ondisk.DataRelocTree:
		return k.bad("data reference of a tree without data", d.Root, nil)
	case !inodeNumber(d.Objectid):
		return k.bad("data reference of no inode", d.Objectid, nil)
	case !k.aligned(d.Offset):
		return k.bad("offset of data reference not aligned", d.Offset, nil)
	case d.Count == 0:
		return k.bad("reference counted 0", nil, nil)
	}
	return nil
}

// dataRefHash orders data references.
func dataRefHash(d ondisk.ExtentDataRef) uint64 {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], uint64(d.Root))
	binary.LittleEndian.PutUint64(b[8:], d.Objectid)
	binary.LittleEndian.PutUint64(b[16:], d.Offset)
	t := crc32.MakeTable(crc32.Castagnoli)
	hi, lo := ^crc32.Update(0, t, b[:8]), ^crc32.Update(0, t, b[8:])
	return uint64(hi)<<31 ^ uint64(lo)
}

func (k *checker) keyedRef(b []byte) error {
	if !k.aligned(k.key.Objectid) {
		return k.bad("address not aligned", nil, nil)
	}
	switch k.key.Type {
	case ondisk.TypeTreeBlockRef, ondisk.TypeSharedBlockRef:
		if len(b) != 0 {
			return k.bad("wrong size", len(b), 0)
		}
	case ondisk.TypeSharedDataRef:
		if n, err := ondisk.DecodeSharedDataRef(b); err != nil || n == 0 {
			return k.bad("bad count", len(b), nil)
		}
	case ondisk.TypeExtentDataRef:
		if len(b) == 0 || len(b)%ondisk.ExtentDataRefSize != 0 {
			return k.bad("wrong size", len(b), ondisk.ExtentDataRefSize)
		}
		for ; len(b) > 0; b = b[ondisk.ExtentDataRefSize:] {
			d, err := ondisk.DecodeExtentDataRef(b[:ondisk.ExtentDataRefSize])
			if err != nil {
				return k.bad("wrong size", len(b), nil)
			}
			if err := k.dataRef(d); err != nil {
				return err
			}
		}
		return nil
	}
	if k.key.Type != ondisk.TypeTreeBlockRef && !k.aligned(k.key.Offset) {
		return k.bad("parent not aligned", nil, nil)
	}
	return nil
}
