package checksum

import "hash/crc32"

// castagnoli is the polynomial of CRC-32C; Go picks the CPU's instruction for it. It is never written to.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// RawCRC runs CRC-32C over p from the register value seed, without inverting before or after. All of Btrfs' hashes and the
// checksums of send streams are of this form.
func RawCRC(seed uint32, p []byte) uint32 {
	return ^crc32.Update(^seed, castagnoli, p)
}

// NameHash is the offset of DIR_ITEM and XATTR_ITEM keys. Different names may share it.
func NameHash(name []byte) uint32 { return RawCRC(0xfffffffe, name) }

// ExtrefHash is the offset of INODE_EXTREF keys: the name's hash seeded by the directory it is in.
func ExtrefHash(parent uint64, name []byte) uint32 { return RawCRC(uint32(parent), name) }

// DataRefHash is the offset of EXTENT_DATA_REF keys, and orders inline references of that kind.
func DataRefHash(root, ino, off uint64) uint64 {
	hi := crcUint64(^uint32(0), root)
	lo := crcUint64(crcUint64(^uint32(0), ino), off)
	return uint64(hi)<<31 ^ uint64(lo)
}

// crcUint64 is RawCRC over the little-endian bytes of v. It walks the table itself because a buffer handed to crc32.Update
// escapes to the heap, and this runs once per data reference.
func crcUint64(crc uint32, v uint64) uint32 {
	for range 8 {
		crc = castagnoli[byte(crc)^byte(v)] ^ crc>>8
		v >>= 8
	}
	return crc
}
