package treecheck

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// encryptedName is a bit beside the type of an entry.
const encryptedName = 0x80

// dirItem checks DIR_ITEM, DIR_INDEX and XATTR_ITEM.
func (k *checker) dirItem(b []byte) error {
	if err := k.follows(); err != nil {
		return err
	}
	if len(b) == 0 {
		return k.bad("empty item", nil, nil)
	}
	for len(b) > 0 {
		if len(b) < ondisk.DirEntrySize {
			return k.bad("entry cut off", len(b), ondisk.DirEntrySize)
		}
		data, name := int(binary.LittleEndian.Uint16(b[25:])), int(binary.LittleEndian.Uint16(b[27:]))
		if len(b) < ondisk.DirEntrySize+name+data {
			return k.bad("name or value cut off", len(b), ondisk.DirEntrySize+name+data)
		}
		if err := k.dirEntry(b[:ondisk.DirEntrySize+name+data], name, data); err != nil {
			return err
		}
		b = b[ondisk.DirEntrySize+name+data:]
	}
	return nil
}

func (k *checker) dirEntry(b []byte, name, data int) error {
	typ := b[29] &^ encryptedName
	xattr := k.key.Type == ondisk.TypeXattrItem
	switch {
	case typ > ondisk.FTXattr:
		return k.bad("unknown type of entry", typ, nil)
	case (typ == ondisk.FTXattr) != xattr:
		return k.bad("type of entry does not fit the item", typ, nil)
	case name > ondisk.MaxNameLen || name == 0:
		return k.bad("bad length of name", name, ondisk.MaxNameLen)
	case data > 0 && !xattr:
		return k.bad("entry with a value", data, 0)
	case name+data > ondisk.MaxItem(len(k.b))-ondisk.DirEntrySize:
		return k.bad("name and value too long", name+data, nil)
	}
	if err := k.location(ondisk.DecodeKey(b), xattr); err != nil {
		return err
	}
	if k.key.Type != ondisk.TypeDirIndex {
		// The register of CRC-32C started at -2, without the final inversion.
		h := ^crc32.Update(1, crc32.MakeTable(crc32.Castagnoli), b[30:30+name])
		if uint64(h) != k.key.Offset {
			return k.bad("key is not the hash of the name", k.key.Offset, h)
		}
	}
	return nil
}

// location checks what an entry points to.
func (k *checker) location(l ondisk.Key, xattr bool) error {
	switch {
	case xattr:
		if !l.IsZero() {
			return k.bad("attribute with a location", l, nil)
		}
	case l.Type == ondisk.TypeInodeItem:
		if !inodeNumber(l.Objectid) || l.Offset != 0 {
			return k.bad("location is no inode", l, nil)
		}
	case l.Type == ondisk.TypeRootItem:
		if !ondisk.TreeID(l.Objectid).IsSubvolume() {
			return k.bad("location is no subvolume", l, nil)
		}
	default:
		return k.bad("location of unknown type", l, nil)
	}
	return nil
}
