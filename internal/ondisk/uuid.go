package ondisk

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// UUID is a 16-byte identifier.
type UUID [16]byte

// String writes the usual form with dashes.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// IsZero tells whether all bytes are zero.
func (u UUID) IsZero() bool { return u == UUID{} }

// ParseUUID reads the form that String writes; dashes may be left out.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("%q is not a UUID", s)
	}
	copy(u[:], b)
	return u, nil
}

func uuidAt(b []byte, off int) (u UUID) {
	copy(u[:], b[off:])
	return u
}
