// Package tidy holds tests of the source itself: which package may import which
// (imports.txt), that packages say what they are for, that nothing panics on
// input. It has no code of its own.
package tidy
