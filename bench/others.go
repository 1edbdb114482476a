//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gobtrfs/gobtrfs/btrfs"
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

// read measures reading all files of a volume, as a tar to nowhere does, beside a
// mount of the kernel.
func (b *bench) read() error {
	root, err := goTree()
	if err != nil {
		return err
	}
	image := filepath.Join(b.tmp, "gobtrfs-bench-read.img")
	defer os.Remove(image)
	if _, _, err := timed(b.exe, "mkfs", "-q", "-f", "--size", "4G", "--rootdir", root, image); err != nil {
		return err
	}
	var ours, kernel []time.Duration
	for range b.n {
		if err := b.dropCaches(); err != nil {
			return err
		}
		t, err := b.ourRead(image)
		if err != nil {
			return err
		}
		ours = append(ours, t)
		if b.ours {
			continue
		}
		if t, err = b.kernelRead(image); err != nil {
			return err
		}
		kernel = append(kernel, t)
	}
	fmt.Printf("read all files, %s, medians of %d: ours %.2f s", b.state(), b.n, median(ours).Seconds())
	if !b.ours {
		fmt.Printf("; kernel %.2f s; ratio %.1f", median(kernel).Seconds(), median(kernel).Seconds()/median(ours).Seconds())
	}
	fmt.Println()
	return nil
}

// ourRead reads all files through the library, as kernelRead does through a
// mount.
func (b *bench) ourRead(image string) (time.Duration, error) {
	ctx := context.Background()
	start := time.Now()
	v, err := btrfs.Open(ctx, image, btrfs.Options{ReadOnly: true, Direct: b.cold})
	if err != nil {
		return 0, err
	}
	err = fs.WalkDir(v.Top(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := v.Top().Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	})
	err = errors.Join(err, v.Close())
	return time.Since(start), err
}

func (b *bench) kernelRead(image string) (took time.Duration, err error) {
	dir, umount, err := b.mount(image, ",ro")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, umount()) }()
	if err := b.dropCaches(); err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<20)
	start := time.Now()
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, f, buf)
		return errors.Join(err, f.Close())
	})
	return time.Since(start), err
}
