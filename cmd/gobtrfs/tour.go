package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

const (
	tourSnapshots = 100
	tourEdits     = 40 // files changed between two snapshots
	tourSize      = 4 << 30
)

func tourCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tour [DIR]",
		Short: "Show the main job on real input, in a temporary image",
		Long:  "Makes a volume from DIR (default: the source of the Go toolchain), edits it and takes 100 snapshots, tells what\ndeleting them would give back, deletes them all at once and checks the volume. Needs no root; leaves nothing behind.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := tourDir(args)
			if err != nil {
				return fmt.Errorf("tour: %w", err)
			}
			tmp, err := os.MkdirTemp("", "gobtrfs-tour-")
			if err != nil {
				return fmt.Errorf("tour: %w", err)
			}
			defer os.RemoveAll(tmp)
			t := tour{ctx: cmd.Context(), w: cmd.OutOrStdout(), image: filepath.Join(tmp, "tour.img"), dir: dir}
			if err := t.run(); err != nil {
				return fmt.Errorf("tour: %w", err)
			}
			return nil
		},
	}
}

// tourDir is the directory that the tour's volume is made from.
func tourDir(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	root := os.Getenv("GOROOT")
	if root == "" {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return "", errors.New("no Go toolchain found to take as input; name a directory")
		}
		root = strings.TrimSpace(string(out))
	}
	return filepath.Join(root, "src"), nil
}

// tour is one run of the tour.
type tour struct {
	ctx   context.Context
	w     io.Writer
	image string
	dir   string
	files []string // regular files of the volume
}

func (t *tour) run() error {
	fmt.Fprintf(t.w, "A tour of gobtrfs: a Btrfs volume made, changed, snapshotted and cleaned in user space.\n\n")
	for _, step := range []func() error{t.makeVolume, t.edit, t.tell, t.delete, t.check} {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	fmt.Fprintf(t.w, "\nThat was a real Btrfs volume: Linux mounts it and btrfs check passes it. See 'gobtrfs help' for the rest.\n")
	return nil
}

// say prints a step and how long it took.
func (t *tour) say(start time.Time, format string, args ...any) {
	fmt.Fprintf(t.w, "  %-9s %s\n", short(time.Since(start)), fmt.Sprintf(format, args...))
}

func (t *tour) command(text string) { fmt.Fprintf(t.w, "$ gobtrfs %s\n", text) }

func (t *tour) makeVolume() error {
	t.command("mkfs --size 4G --rootdir " + t.dir + " tour.img")
	start := time.Now()
	f, err := os.Create(t.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(tourSize), f.Close()); err != nil {
		return err
	}
	d, err := btrfs.OpenDevice(t.image, false)
	if err != nil {
		return err
	}
	res, err := btrfs.Make(t.ctx, []btrfs.Device{d}, btrfs.MakeOptions{Label: "tour", RootDir: t.dir})
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	t.say(start, "%d files and directories are in the volume", res.Files)
	return nil
}

func (t *tour) open(opt btrfs.Options, fn func(v *btrfs.Volume) error) error {
	v, err := btrfs.Open(t.ctx, t.image, opt)
	if err != nil {
		return err
	}
	return errors.Join(fn(v), v.Close())
}

// edit changes files and takes snapshots.
func (t *tour) edit() error {
	t.command("subvolume snapshot -r tour.img / /snap/001   (… and so on, files changed in between)")
	start := time.Now()
	edits := 0
	err := t.open(btrfs.Options{}, func(v *btrfs.Volume) error {
		if err := t.list(v); err != nil {
			return err
		}
		if err := v.Top().Mkdir("snap", 0o755); err != nil {
			return err
		}
		rnd := rand.New(rand.NewPCG(1, 1))
		for i := 1; i <= tourSnapshots; i++ {
			if err := t.ctx.Err(); err != nil {
				return err
			}
			if _, err := v.Snapshot(t.ctx, "/", fmt.Sprintf("/snap/%03d", i), true); err != nil {
				return err
			}
			for range tourEdits {
				if err := t.change(v, rnd); err != nil {
					return err
				}
				edits++
			}
		}
		return nil
	})
	if err == nil {
		t.say(start, "%d snapshots taken, %d files changed between them, all committed", tourSnapshots, edits)
	}
	return err
}

func (t *tour) list(v *btrfs.Volume) error {
	err := fs.WalkDir(v.Top(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			t.files = append(t.files, name)
		}
		return err
	})
	if err == nil && len(t.files) == 0 {
		return fmt.Errorf("%s holds no files", t.dir)
	}
	return err
}

// change writes into one file.
func (t *tour) change(v *btrfs.Volume, rnd *rand.Rand) error {
	name := t.files[rnd.IntN(len(t.files))]
	f, err := v.Top().OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	text := []byte(fmt.Sprintf("// changed by the tour: %x\n", rnd.Uint64()))
	if rnd.IntN(2) == 0 {
		_, err = f.WriteAt(text, 0)
	} else {
		_, err = f.WriteAt([]byte(strings.Repeat(string(text), 200)), 0)
	}
	return errors.Join(err, f.Close())
}

// tell prints what deleting all snapshots would give back.
func (t *tour) tell() error {
	t.command("subvolume delete --dry-run tour.img '/snap/*'")
	start := time.Now()
	return t.open(btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) error {
		paths, err := v.MatchSubvolumes(t.ctx, []string{"/snap/*"})
		if err != nil {
			return err
		}
		p, err := v.DropPlan(t.ctx, paths)
		if err != nil {
			return err
		}
		t.say(start, "deleting %d snapshots would give back %s of data and %s of metadata", p.Roots, iec(p.DataBytes), iec(p.MetadataBytes))
		return nil
	})
}

func (t *tour) delete() error {
	t.command("subvolume delete tour.img '/snap/*'")
	start := time.Now()
	return t.open(btrfs.Options{}, func(v *btrfs.Volume) error {
		paths, err := v.MatchSubvolumes(t.ctx, []string{"/snap/*"})
		if err != nil {
			return err
		}
		if err := v.DeleteSubvolumes(t.ctx, paths); err != nil {
			return err
		}
		r, err := v.Drop(t.ctx, btrfs.DropOptions{})
		if err != nil {
			return err
		}
		t.say(start, "%d snapshots are gone: %s of data and %s of metadata (%d tree blocks) are free again", r.RootsDone, iec(r.DataFreed), iec(r.MetadataFreed), r.BlocksFreed)
		return nil
	})
}

func (t *tour) check() error {
	t.command("check --data tour.img")
	start := time.Now()
	return t.open(btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) error {
		r, err := v.Check(t.ctx, btrfs.CheckOptions{Data: true})
		if err != nil {
			return err
		}
		if !r.OK() {
			return fmt.Errorf("the check found %d errors; the first: %v", r.Errors, r.Findings[0])
		}
		t.say(start, "no errors: every reference counted again, every byte of data compared with its checksum")
		return nil
	})
}
