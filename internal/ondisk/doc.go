// Package ondisk turns the bytes of a Btrfs volume into Go values and back:
// superblock, tree blocks, keys and every kind of item.
//
// It does no I/O and trusts nothing: a decoder checks lengths before it reads
// and returns a *CorruptError, it never panics on bytes. What values make sense
// together is package treecheck's business. All integers on disk are
// little-endian. Slices that decoders return (names, values, inline data) are
// parts of what they were given and valid as long as that is.
package ondisk

import "encoding/binary"

var le = binary.LittleEndian

// Bytenr is a logical address in bytes (the kernel's bytenr).
type Bytenr uint64

// Generation is the id of a transaction (the kernel's transid).
type Generation uint64

// DevID is the number of a device within its volume.
type DevID uint64

// Sizes in bytes.
const (
	HeaderSize = 101   // header of a tree block
	ItemSize   = 25    // item head in a leaf
	KeyPtrSize = 33    // key pointer in a node
	KeySize    = 17    // key
	SuperSize  = 4096  // superblock
	StripeLen  = 65536 // the only stripe length there is
	MaxLevel   = 7     // highest level of a tree block
	MaxNameLen = 255   // file names, xattr names
)
