//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// check measures gobtrfs check beside btrfs check.
func (b *bench) check(v volume) error {
	var ours, theirs []time.Duration
	var peak, theirPeak int64
	for range b.n {
		t, mem, err := timed(b.exe, "check", b.image(v))
		if err != nil {
			return err
		}
		ours, peak = append(ours, t), max(peak, mem)
		if b.ours {
			continue
		}
		if t, mem, err = timed("btrfs", "check", "--readonly", b.image(v)); err != nil {
			return err
		}
		theirs, theirPeak = append(theirs, t), max(theirPeak, mem)
	}
	fmt.Printf("check %s, medians of %d: ours %.2f s, peak %d MiB", v.name, b.n, median(ours).Seconds(), peak>>20)
	if !b.ours {
		fmt.Printf("; btrfs check %.2f s, %d MiB; ratio %.1f", median(theirs).Seconds(), theirPeak>>20, median(theirs).Seconds()/median(ours).Seconds())
	}
	fmt.Println()
	return nil
}

// goTree is the input of mkfs and read: the Go toolchain.
func goTree() (string, error) { return output("go", "env", "GOROOT") }

// mkfs measures gobtrfs mkfs --rootdir beside mkfs.btrfs --rootdir.
func (b *bench) mkfs() error {
	root, err := goTree()
	if err != nil {
		return err
	}
	image := filepath.Join(b.tmp, "gobtrfs-bench-mkfs.img")
	defer os.Remove(image)
	var ours, theirs []time.Duration
	for range b.n {
		os.Remove(image)
		t, _, err := timed(b.exe, "mkfs", "-q", "--size", "4G", "--rootdir", root, image)
		if err != nil {
			return err
		}
		ours = append(ours, t)
		if b.ours {
			continue
		}
		os.Remove(image)
		f, err := os.Create(image)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(4<<30), f.Close()); err != nil {
			return err
		}
		if t, _, err = timed("mkfs.btrfs", "-q", "--rootdir", root, image); err != nil {
			return err
		}
		theirs = append(theirs, t)
	}
	fmt.Printf("mkfs --rootdir %s, medians of %d: ours %.2f s", root, b.n, median(ours).Seconds())
	if !b.ours {
		fmt.Printf("; mkfs.btrfs %.2f s; ratio %.1f", median(theirs).Seconds(), median(theirs).Seconds()/median(ours).Seconds())
	}
	fmt.Println()
	return nil
}
