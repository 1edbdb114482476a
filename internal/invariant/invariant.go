// Package invariant states what the program itself must never break.
//
// A failed Check is a bug in gobtrfs, never a bad byte on a device: those are errors. Stopping the process is safe, because a
// committed volume is never changed in place; the last commit stays whole.
//
// Cheap checks run always. Costly ones belong behind Enabled, which is a constant: without the build tag "invariants" the
// compiler removes them.
package invariant

import "fmt"

// Check panics with the formatted message unless ok holds. The arguments are evaluated in any case, so keep them cheap.
func Check(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
