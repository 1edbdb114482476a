// Package partition finds a volume inside a disk image: by the number of its partition, or by its place.
//
//	disk.img            the whole file
//	disk.img#2          the second partition (GPT or MBR; logical partitions count from 5)
//	disk.img@1M         from 1 MiB to the end
//	disk.img@1M+200M    200 MiB from there
//
// In place of a file there may be the URL of an NBD export, nbd://host/disk#2; see package nbd.
//
// A file whose name happens to look like one of these is taken as itself. Tables come from the device and are not trusted:
// lengths are bounded, chains end, and a partition must lie on its device.
package partition

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/nbd"
)

// Target says which bytes of which file are meant.
type Target struct {
	Path      string
	Partition int   // 0 = none
	Offset    int64 // when Partition is 0
	Size      int64 // 0 = up to the end
}

// Open opens a target as described at the package.
func Open(target string, opt device.Options) (device.Device, error) {
	t, err := Parse(target)
	if err != nil {
		return nil, err
	}
	d, err := openWhole(t.Path, opt)
	if err != nil {
		return nil, err
	}
	part, err := t.section(d)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", target, err), d.Close())
	}
	return part, nil
}

func openWhole(path string, opt device.Options) (device.Device, error) {
	if !nbd.IsURL(path) {
		return device.OpenFile(path, opt)
	}
	d, err := nbd.Dial(path, opt)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return d, nil
}

// Parse takes a target apart. Only names of existing files are taken as a whole without looking further.
func Parse(target string) (Target, error) {
	if exists(target) {
		return Target{Path: target}, nil
	}
	i := strings.LastIndexAny(target, "#@")
	if i <= 0 || !exists(target[:i]) && !nbd.IsURL(target[:i]) {
		return Target{Path: target}, nil // so that the error names what the user typed
	}
	t, err := parsePlace(target[:i], target[i], target[i+1:])
	switch {
	case err != nil && nbd.IsURL(target) && target[i] == '@': // user@host, or a name with @ in it
		return Target{Path: target}, nil
	case err != nil:
		return Target{}, fmt.Errorf("target %s: %w", target, err)
	}
	return t, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// parsePlace reads what stands behind # or @.
func parsePlace(path string, mark byte, where string) (t Target, err error) {
	t.Path = path
	if mark == '#' {
		t.Partition, err = strconv.Atoi(where)
		if err == nil && t.Partition < 1 {
			err = errors.New("partitions count from 1")
		}
	} else {
		off, size, sized := strings.Cut(where, "+")
		t.Offset, err = parseBytes(off)
		if err == nil && sized {
			t.Size, err = parseBytes(size)
			if err == nil && t.Size == 0 {
				err = errors.New("a size of 0")
			}
		}
	}
	return t, err
}

// parseBytes reads a number of bytes: decimal or 0x…, with an optional K, M, G or T for powers of 1024.
func parseBytes(s string) (int64, error) {
	digits, shift := s, 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("KMGT", s[n-1]&^0x20); i >= 0 {
			digits, shift = s[:n-1], 10*(i+1)
		}
	}
	v, err := strconv.ParseInt(digits, 0, 64)
	if err != nil || v < 0 || v > 1<<62>>shift {
		return 0, fmt.Errorf("%q is not a number of bytes", s)
	}
	return v << shift, nil
}

// section returns the part of d that the target names.
func (t Target) section(d device.Device) (device.Device, error) {
	switch {
	case t.Partition > 0:
		table, err := Read(d, d.Size())
		if err != nil {
			return nil, err
		}
		for _, e := range table.Entries {
			if e.Number == t.Partition {
				return device.Section(d, e.Start, e.Size)
			}
		}
		return nil, fmt.Errorf("the %s table has no partition %d (it has %s)", table.Scheme, t.Partition, table.numbers())
	case t.Offset == 0 && t.Size == 0:
		return d, nil
	case t.Size == 0:
		return device.Section(d, t.Offset, max(d.Size()-t.Offset, 0))
	}
	return device.Section(d, t.Offset, t.Size)
}
