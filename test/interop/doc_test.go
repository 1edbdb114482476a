// Package interop judges the public API and the command as a user meets them: against the worked example of the format's
// rules, on full volumes, killed at any instant, and with the kernel and btrfs check as judges.
package interop
