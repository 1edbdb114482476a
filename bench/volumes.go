//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// volume is a volume that the kernel makes: one subvolume /home, snapshots
// /snap/s1…, and files rewritten between them.
type volume struct {
	name                      string
	files, snapshots, changes int
}

// V1 and V3 are the volumes that figures are told of; the others show growth.
func volumeNamed(name string) (volume, bool) {
	for _, v := range []volume{
		{"V1", 100_000, 100, 500}, {"V3", 50_000, 1000, 20},
		{"V3-125", 50_000, 125, 20}, {"V3-250", 50_000, 250, 20}, {"V3-500", 50_000, 500, 20},
		{"V1-2x", 200_000, 100, 1000}, {"V1-4x", 400_000, 100, 2000},
		{"small", 5_000, 20, 100},
	} {
		if v.name == name {
			return v, true
		}
	}
	return volume{}, false
}

func (b *bench) image(v volume) string { return filepath.Join(b.dir, strings.ToLower(v.name)+".img") }

// mount mounts an image with the kernel; the function it returns unmounts it.
func (b *bench) mount(image string, opts string) (string, func() error, error) {
	direct := "--direct-io=off"
	if b.cold {
		direct = "--direct-io=on"
	}
	loop, err := output("losetup", direct, "--show", "-f", image)
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "gobtrfs-bench-")
	if err != nil {
		return "", nil, err
	}
	if err := command("mount", "-t", "btrfs", "-o", "nodiscard"+opts, loop, dir).Run(); err != nil {
		return "", nil, errors.Join(err, command("losetup", "-d", loop).Run(), os.Remove(dir))
	}
	return dir, func() error {
		return errors.Join(command("umount", dir).Run(), command("losetup", "-d", loop).Run(), os.Remove(dir))
	}, nil
}

// make makes the volume if it is not there.
func (b *bench) make(v volume) error {
	image, err := b.makeImage(b.image(v), max(8<<30, int64(v.files)*100<<10), "", v.fill)
	if err == nil {
		fmt.Println(image, "is there")
	}
	return err
}

// makeImage makes a volume that the kernel fills through a mount, if it is not
// there.
func (b *bench) makeImage(image string, size int64, opts string, fill func(dir string) error) (string, error) {
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	tmp := image + ".new"
	f, err := os.Create(tmp)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return "", err
	}
	if err := command("mkfs.btrfs", "-q", "-f", tmp).Run(); err != nil {
		return "", err
	}
	dir, umount, err := b.mount(tmp, opts)
	if err != nil {
		return "", err
	}
	err = fill(dir)
	if err := errors.Join(err, umount()); err != nil {
		return "", err
	}
	return image, os.Rename(tmp, image)
}

// fill writes the files and takes the snapshots.
func (v volume) fill(dir string) error {
	home := filepath.Join(dir, "home")
	if err := command("btrfs", "-q", "subvolume", "create", home).Run(); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "snap"), 0o755); err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(1, 0))
	data := make([]byte, 9000)
	write := func(name string, n, flag int) error {
		for i := range data[:n] {
			data[i] = byte(rnd.Uint32())
		}
		f, err := os.OpenFile(name, os.O_WRONLY|flag, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(data[:n])
		return errors.Join(err, f.Close())
	}
	path := func(k int) string {
		return filepath.Join(home, fmt.Sprintf("d%05d", k/500), fmt.Sprintf("file-%07d", k))
	}
	for k := range v.files {
		if k%500 == 0 {
			if err := os.Mkdir(filepath.Dir(path(k)), 0o755); err != nil {
				return err
			}
		}
		if err := write(path(k), []int{100, 500, 5000, 9000}[rnd.IntN(4)], os.O_CREATE); err != nil {
			return err
		}
	}
	for s := 1; s <= v.snapshots; s++ {
		if err := command("btrfs", "-q", "subvolume", "snapshot", "-r", home, filepath.Join(dir, "snap", fmt.Sprintf("s%d", s))).Run(); err != nil {
			return err
		}
		for range v.changes {
			if err := write(path(rnd.IntN(v.files)), []int{100, 5000}[rnd.IntN(2)], 0); err != nil {
				return err
			}
		}
	}
	return command("sync", "-f", dir).Run()
}
