//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The large files: so many, together so many bytes.
const (
	largeFiles = 20
	largeBytes = 1 << 30
)

// read measures reading all files of a volume, as a tar to nowhere, beside tar on
// a mount of the kernel.
func (b *bench) read(trees []string) error {
	for _, tree := range trees {
		if err := b.readTree(tree); err != nil {
			return fmt.Errorf("read %s: %w", tree, err)
		}
	}
	return nil
}

func (b *bench) readTree(tree string) error {
	image, err := b.readImage(tree)
	if err != nil {
		return err
	}
	if !b.cold {
		if image, err = b.copyOf(image); err != nil {
			return err
		}
		defer os.Remove(image)
	}
	var ours, kernel []time.Duration
	var peak int64
	for range b.n {
		if err := b.dropCaches(); err != nil {
			return err
		}
		t, mem, err := b.ourRead(image)
		if err != nil {
			return err
		}
		ours, peak = append(ours, t), max(peak, mem)
		if b.ours {
			continue
		}
		if t, err = b.kernelRead(image); err != nil {
			return err
		}
		kernel = append(kernel, t)
	}
	fmt.Printf("read %s, %s, medians of %d: ours %.2f s, peak %d MiB", tree, b.state(), b.n, median(ours).Seconds(), peak>>20)
	if !b.ours {
		fmt.Printf("; kernel %.2f s; ratio %.2f", median(kernel).Seconds(), median(kernel).Seconds()/median(ours).Seconds())
	}
	fmt.Println()
	return nil
}

// ourRead writes a tar stream to nowhere.
func (b *bench) ourRead(image string) (time.Duration, int64, error) {
	args := []string{"get", "-q", image, "/", "-"}
	if b.cold {
		args = append(args, "--direct")
	}
	c := command(b.exe, args...)
	t, err := toNowhere(c)
	if err != nil {
		return t, 0, err
	}
	return t, c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, nil
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
	return toNowhere(command("tar", "-C", dir, "-cf", "-", "."))
}

// toNowhere runs a program whose output goes through a pipe and is dropped: tar
// reads nothing when it sees that it writes to /dev/null.
func toNowhere(c *exec.Cmd) (time.Duration, error) {
	start := time.Now()
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{out}, make([]byte, 128<<10))
	if err = errors.Join(err, c.Wait()); err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(c.Args, " "), err)
	}
	return time.Since(start), err
}

// readImage makes the volume to read, if it is not there: the kernel copies the
// files into it.
func (b *bench) readImage(tree string) (string, error) {
	opts, fill := "", largeTree
	switch tree {
	case "go":
		fill = func(dir string) error {
			root, err := goTree()
			if err != nil {
				return err
			}
			return command("cp", "-a", root, dir).Run()
		}
	case "plain":
	case "zstd":
		opts = ",compress=zstd"
	default:
		return "", fmt.Errorf("no such tree (go, plain, zstd)")
	}
	return b.makeImage(filepath.Join(b.dir, "read-"+tree+".img"), 4<<30, opts, fill)
}

// largeTree writes large files of Go sources, one after the other as often as
// needed.
func largeTree(dir string) error {
	root, err := goTree()
	if err != nil {
		return err
	}
	var all []byte
	err = filepath.WalkDir(filepath.Join(root, "src"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(p) != ".go" {
			return err
		}
		text, err := os.ReadFile(p)
		all = append(all, text...)
		return err
	})
	if err != nil {
		return err
	}
	at := 0
	for i := range largeFiles {
		text := make([]byte, largeBytes/largeFiles)
		for n := 0; n < len(text); at %= len(all) {
			m := copy(text[n:], all[at:])
			n, at = n+m, at+m
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("large-%02d", i)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
