//go:build invariants

package invariant

import "sync/atomic"

// Enabled tells whether costly checks are compiled in.
const Enabled = true

// Sometimes is true in about percent of its calls in builds with the tag "invariants", and never elsewhere. It lets test
// builds take rare but legal paths daily. Its sequence is the same in every run, as far as the caller's own order is.
func Sometimes(percent int) bool {
	return int(mix(calls.Add(1))%100) < percent
}

// calls is the only state of this package and exists in test builds only.
var calls atomic.Uint64

// mix spreads a counter over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
