//go:build !invariants

package invariant

// Enabled tells whether costly checks are compiled in.
const Enabled = false

// Sometimes is true in about percent of its calls in builds with the tag "invariants", and never elsewhere.
func Sometimes(int) bool { return false }
