package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// hugePages asks the kernel to back the first part of the heap with huge pages. Tree blocks fill it, and touching memory for the first time, 4 KiB at a
// time, is a good part of what dropping snapshots costs. It is a hint: where it cannot be had nothing changes. The memory is not touched here, only its
// addresses: the heap grows into them as before.
func hugePages() {
	const size = 128 << 20
	b := make([]byte, size)
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	runtime.KeepAlive(b)
	runtime.GC() // gives it back to the heap
}
