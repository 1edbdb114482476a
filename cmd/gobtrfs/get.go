package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func getCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "get TARGET PATH… LOCAL",
		Short: "Copy files out of a volume, recursively",
		Long:  "Copies files out of a volume, recursively, with modes, owners (where allowed), times, xattrs, hard links and holes.\nWhat cannot be read is named; the rest is copied, and the exit status is 1.",
		Args:  cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcs, dest := args[1:len(args)-1], args[len(args)-1]
			return withVolume(cmd.Context(), "get", args[0], readOnly(), func(v *btrfs.Volume) error {
				g := &getter{s: v.Top(), links: map[inodeID]string{}, root: os.Geteuid() == 0, progress: newProgress(quiet), ctxErr: cmd.Context().Err}
				defer g.progress.done()
				return g.all(srcs, dest)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return cmd
}

// inodeID tells inodes apart that belong to different subvolumes.
type inodeID struct{ sub, ino uint64 }

// getter copies files out of a volume.
type getter struct {
	s        *btrfs.Subvolume
	links    map[inodeID]string // where an inode with more than one name was put
	root     bool
	progress *progress
	bytes    uint64
	failed   int
	ctxErr   func() error
}

func (g *getter) all(srcs []string, dest string) error {
	fi, err := os.Stat(dest)
	into := err == nil && fi.IsDir()
	if len(srcs) > 1 && !into {
		return fmt.Errorf("%s: %w", dest, btrfs.ErrNotDir)
	}
	for _, p := range srcs {
		name, to := rel(p), dest
		if into && name != "." {
			to = filepath.Join(dest, path.Base(name))
		}
		if err := g.one(name, to); err != nil {
			return err
		}
	}
	if g.failed > 0 {
		return fmt.Errorf("%d files could not be read or written", g.failed)
	}
	return nil
}

// one copies a file or a tree; what fails is reported and counted, not returned,
// unless the job was interrupted.
func (g *getter) one(name, to string) error {
	if err := g.ctxErr(); err != nil {
		return err
	}
	fi, err := g.s.Lstat(name)
	if err == nil {
		err = g.make(name, to, fi)
	}
	if err != nil {
		g.report(err)
		return nil
	}
	st := fi.Sys().(btrfs.Stat)
	if fi.IsDir() {
		if err := g.children(name, to); err != nil {
			return err
		}
	}
	if err := g.attributes(name, to, st); err != nil {
		g.report(err)
	}
	return nil
}

func (g *getter) report(err error) {
	g.failed++
	g.progress.done()
	fmt.Fprintln(os.Stderr, "gobtrfs get:", err)
}

func (g *getter) children(name, to string) error {
	list, err := g.s.ReadDir(name)
	if err != nil {
		g.report(err)
	}
	for _, e := range list {
		if err := g.one(path.Join(name, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// make makes the file without its attributes.
func (g *getter) make(name, to string, fi fs.FileInfo) error {
	st := fi.Sys().(btrfs.Stat)
	if st.IsDir() {
		err := os.Mkdir(to, 0o700)
		if errors.Is(err, fs.ErrExist) {
			if old, serr := os.Stat(to); serr == nil && old.IsDir() {
				return nil
			}
		}
		return err
	}
	id := inodeID{st.Subvolume, st.Inode}
	if first, ok := g.links[id]; ok {
		return os.Link(first, to)
	}
	if st.Nlink > 1 {
		g.links[id] = to
	}
	switch typeName(st) {
	case "file":
		return g.file(name, to, st)
	case "symlink":
		target, err := g.s.ReadLink(name)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	return makeSpecial(to, st)
}

// file copies the contents of a regular file; runs of zeros become holes.
func (g *getter) file(name, to string, st btrfs.Stat) (err error) {
	in, err := g.s.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf := make([]byte, 1<<20)
	var off int64
	for {
		if err := g.ctxErr(); err != nil {
			return err
		}
		n, rerr := io.ReadFull(in, buf)
		if err := writeSparse(out, buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
		g.bytes += uint64(n)
		g.progress.show("get: %s, %s", iec(g.bytes), g.progress.elapsed())
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	return out.Truncate(st.Size)
}

// sparseUnit is the size of the pieces that are left out when they are zero.
const sparseUnit = 4096

var zeroUnit [sparseUnit]byte

func writeSparse(out *os.File, p []byte, off int64) error {
	for start := 0; start < len(p); {
		if isZero(p[start:min(start+sparseUnit, len(p))]) {
			start += sparseUnit
			continue
		}
		end := start
		for end < len(p) && !isZero(p[end:min(end+sparseUnit, len(p))]) {
			end = min(end+sparseUnit, len(p))
		}
		if _, err := out.WriteAt(p[start:end], off+int64(start)); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func isZero(p []byte) bool { return string(p) == string(zeroUnit[:len(p)]) }

// attributes sets owner, xattrs, mode and times.
func (g *getter) attributes(name, to string, st btrfs.Stat) error {
	if g.root {
		if err := os.Lchown(to, int(st.UID), int(st.GID)); err != nil {
			return err
		}
	}
	xattrs, err := g.s.Xattrs(name)
	if err != nil {
		return err
	}
	for attr, value := range xattrs {
		if err := setLocalXattr(to, attr, value); err != nil && g.root {
			return fmt.Errorf("%s: xattr %s: %w", to, attr, err)
		}
	}
	if !st.IsSymlink() {
		if err := os.Chmod(to, st.FileMode()); err != nil {
			return err
		}
	}
	return setLocalTimes(to, st.Atime, st.Mtime)
}
