// Package checksum computes the sums and hashes that Btrfs stores.
//
// A volume uses one checksum Type for superblocks, tree blocks and file data. The hashes of hash.go build keys and are always
// CRC-32C, whatever the volume's type. Nothing here allocates, so all of it may run once per sector.
package checksum

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"
)

// Type is a checksum algorithm, numbered as in the superblock's csum_type.
type Type uint16

// The four algorithms that exist.
const (
	CRC32C   Type = 0
	XXHash64 Type = 1
	SHA256   Type = 2
	Blake2b  Type = 3
)

// MaxSize is the size of the longest sum, and of the field that holds it in block headers and superblocks.
const MaxSize = 32

// Valid tells whether the algorithm is known.
func (t Type) Valid() bool { return t <= Blake2b }

// Size returns the length of a sum in bytes, or 0 for an unknown type.
func (t Type) Size() int {
	switch t {
	case CRC32C:
		return 4
	case XXHash64:
		return 8
	case SHA256, Blake2b:
		return 32
	}
	return 0
}

// String returns the name that mkfs and the kernel use.
func (t Type) String() string {
	switch t {
	case CRC32C:
		return "crc32c"
	case XXHash64:
		return "xxhash64"
	case SHA256:
		return "sha256"
	case Blake2b:
		return "blake2b"
	}
	return fmt.Sprintf("checksum(%d)", uint16(t))
}

// Parse returns the type called name; "xxhash" and "blake2" are accepted as mkfs.btrfs accepts them.
func Parse(name string) (Type, error) {
	switch name {
	case "crc32c", "crc32":
		return CRC32C, nil
	case "xxhash64", "xxhash":
		return XXHash64, nil
	case "sha256":
		return SHA256, nil
	case "blake2b", "blake2":
		return Blake2b, nil
	}
	return 0, fmt.Errorf("unknown checksum %q (want crc32c, xxhash64, sha256 or blake2b)", name)
}

// Sum writes the sum of p into the first t.Size() bytes of dst, which must have room for them. An unknown type writes nothing.
func Sum(t Type, dst, p []byte) {
	switch t {
	case CRC32C:
		binary.LittleEndian.PutUint32(dst, crc32.Checksum(p, castagnoli))
	case XXHash64:
		binary.LittleEndian.PutUint64(dst, xxhash.Sum64(p))
	case SHA256:
		s := sha256.Sum256(p)
		copy(dst[:32], s[:])
	case Blake2b:
		s := blake2b.Sum256(p)
		copy(dst[:32], s[:])
	}
}

// Verify tells whether sum begins with the sum of p. It is false for an unknown type or a sum that is too short.
func Verify(t Type, sum, p []byte) bool {
	n := t.Size()
	if n == 0 || len(sum) < n {
		return false
	}
	var got [MaxSize]byte
	Sum(t, got[:], p)
	return bytes.Equal(got[:n], sum[:n])
}
