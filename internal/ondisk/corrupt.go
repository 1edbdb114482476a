package ondisk

import (
	"fmt"
	"strings"
)

// CorruptError tells where bytes of a volume are wrong, and how.
type CorruptError struct {
	What   string // the structure: "superblock", "leaf", "inode item" …
	Tree   TreeID // 0: unknown
	Bytenr Bytenr // address of the tree block, 0: none
	Slot   int    // slot in the block, -1: none
	Reason string
	Got    any // nil when there is nothing to compare
	Want   any
}

// Error writes everything that is known on one line.
func (e *CorruptError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "corrupt %s", e.What)
	if e.Tree != 0 {
		fmt.Fprintf(&b, " of %v", e.Tree)
	}
	if e.Bytenr != 0 {
		fmt.Fprintf(&b, " at %d", e.Bytenr)
	}
	if e.Slot >= 0 {
		fmt.Fprintf(&b, " slot %d", e.Slot)
	}
	fmt.Fprintf(&b, ": %s", e.Reason)
	if e.Got != nil {
		fmt.Fprintf(&b, ", got %v", e.Got)
	}
	if e.Want != nil {
		fmt.Fprintf(&b, ", want %v", e.Want)
	}
	return b.String()
}

func corrupt(what, reason string, got, want any) error {
	return &CorruptError{What: what, Slot: -1, Reason: reason, Got: got, Want: want}
}

// need checks that b has exactly n bytes.
func need(what string, b []byte, n int) error {
	if len(b) != n {
		return corrupt(what, "wrong size", len(b), n)
	}
	return nil
}

// needMin checks that b has at least n bytes.
func needMin(what string, b []byte, n int) error {
	if len(b) < n {
		return corrupt(what, "too short", len(b), n)
	}
	return nil
}
