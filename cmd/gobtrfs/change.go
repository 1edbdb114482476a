package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func rmCommand() *cobra.Command {
	var recursive, force bool
	cmd := &cobra.Command{
		Use: "rm TARGET PATH…", Short: "Remove files", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "rm", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				for _, p := range args[1:] {
					if rel(p) == "." {
						return fmt.Errorf("%s: all of the volume is not removed", p)
					}
				}
				for _, p := range args[1:] {
					if err := remove(cmd.Context(), v.Top(), rel(p), recursive); err != nil && !(force && errors.Is(err, fs.ErrNotExist)) {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "directories too, with what is in them")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not complain about what is not there")
	return cmd
}

func remove(ctx context.Context, s *btrfs.Subvolume, name string, recursive bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fi, err := s.Lstat(name)
	switch {
	case err != nil:
		return err
	case !fi.IsDir():
		return s.Remove(name)
	case !recursive:
		return fmt.Errorf("/%s: %w (use -r)", name, btrfs.ErrIsDir)
	}
	return s.RemoveAllContext(ctx, name)
}

func mkdirCommand() *cobra.Command {
	var parents bool
	var mode string
	cmd := &cobra.Command{
		Use: "mkdir TARGET PATH…", Short: "Make directories", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			bits, err := strconv.ParseUint(mode, 8, 12)
			if err != nil {
				return usagef("mkdir: %q is not a mode", mode)
			}
			perm := btrfs.Stat{Mode: uint32(bits)}.FileMode()
			return withVolume(cmd.Context(), "mkdir", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				for _, p := range args[1:] {
					make := v.Top().Mkdir
					if parents {
						make = v.Top().MkdirAll
					}
					if err := make(rel(p), perm); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&parents, "parents", "p", false, "make missing parents, accept what is there")
	cmd.Flags().StringVarP(&mode, "mode", "m", "755", "permissions, octal")
	return cmd
}

func mvCommand() *cobra.Command {
	var exchange bool
	cmd := &cobra.Command{
		Use: "mv TARGET PATH… DEST", Short: "Move or rename files", Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcs, dest := args[1:len(args)-1], rel(args[len(args)-1])
			return withVolume(cmd.Context(), "mv", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				s := v.Top()
				if exchange {
					if len(srcs) != 1 {
						return usagef("mv: --exchange takes two paths")
					}
					return s.Exchange(rel(srcs[0]), dest)
				}
				return moveAll(s, srcs, dest, args[len(args)-1])
			})
		},
	}
	cmd.Flags().BoolVar(&exchange, "exchange", false, "exchange two files")
	return cmd
}

func moveAll(s *btrfs.Subvolume, srcs []string, dest, given string) error {
	into, err := isDir(s, dest)
	if err != nil {
		return err
	}
	if !into && (len(srcs) > 1 || strings.HasSuffix(given, "/")) {
		return fmt.Errorf("%s: %w", given, btrfs.ErrNotDir)
	}
	for _, p := range srcs {
		to := dest
		if into {
			to = path.Join(dest, path.Base(rel(p)))
		}
		if err := s.Rename(rel(p), to); err != nil {
			return err
		}
	}
	return nil
}

// isDir tells whether name is there and a directory.
func isDir(s *btrfs.Subvolume, name string) (bool, error) {
	fi, err := s.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && fi.IsDir(), err
}

func lnCommand() *cobra.Command {
	var symbolic bool
	cmd := &cobra.Command{
		Use: "ln TARGET SOURCE PATH", Short: "Make a hard link, or with -s a symbolic one", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "ln", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				s, dest := v.Top(), rel(args[2])
				into, err := isDir(s, dest)
				if err != nil {
					return err
				}
				if into {
					dest = path.Join(dest, path.Base(args[1]))
				}
				if symbolic {
					return s.Symlink(args[1], dest)
				}
				return s.Link(rel(args[1]), dest)
			})
		},
	}
	cmd.Flags().BoolVarP(&symbolic, "symbolic", "s", false, "a symbolic link")
	return cmd
}
