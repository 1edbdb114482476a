package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func getCommand() *cobra.Command {
	var quiet bool
	var state stateFlags
	cmd := &cobra.Command{
		Use:   "get TARGET PATH… LOCAL",
		Short: "Copy files out of a volume, recursively",
		Long:  "Copies files out of a volume, recursively, with modes, owners (where allowed), times, xattrs, hard links and holes.\nWhat cannot be read is named; the rest is copied, and the exit status is 1.",
		Args:  cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcs, dest := args[1:len(args)-1], args[len(args)-1]
			return withVolume(cmd.Context(), "get", args[0], state.readOnly(), func(v *btrfs.Volume) error {
				g := newGetter(cmd, v, getRules{verb: "get", attributes: true, xattrs: true, symlinks: true, specials: true, overwrite: true}, quiet)
				defer g.progress.done()
				return g.all(srcs, dest)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	state.flags(cmd, "")
	return cmd
}

// getRules tell what a getter copies, and how.
type getRules struct {
	verb       string
	attributes bool            // owners, modes and times
	xattrs     bool            // extended attributes
	symlinks   bool            // symbolic links
	specials   bool            // devices, pipes and sockets
	overwrite  bool            // files that are there already
	verbose    bool            // print each name
	dry        bool            // print each name and write nothing
	match      *regexp.Regexp  // only files whose path matches; nil: all
	skip       map[uint64]bool // subvolumes to leave out
}

// inodeID tells inodes apart that belong to different subvolumes.
type inodeID struct{ sub, ino uint64 }

// getter copies files out of a volume. What the volume says is not trusted: a
// name that leads elsewhere is refused, nothing is written through a link that
// the volume holds, and directories that hold each other end.
type getter struct {
	getRules
	s        *btrfs.Subvolume
	out      io.Writer
	links    map[inodeID]string // where an inode with more than one name was put
	dirs     map[inodeID]bool   // directories that were seen
	root     bool
	progress *progress
	bytes    uint64
	failed   int
	ctxErr   func() error
}

func newGetter(cmd *cobra.Command, v *btrfs.Volume, rules getRules, quiet bool) *getter {
	return &getter{
		getRules: rules, s: v.Top(), out: cmd.OutOrStdout(), links: map[inodeID]string{}, dirs: map[inodeID]bool{},
		root: os.Geteuid() == 0, progress: newProgress(quiet), ctxErr: cmd.Context().Err,
	}
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
		} else if into {
			if to, err = filepath.EvalSymlinks(dest); err != nil { // the user's own link is followed
				return err
			}
		}
		if err := g.one(name, to); err != nil {
			return err
		}
	}
	return g.result()
}

func (g *getter) result() error {
	if g.failed > 0 {
		return fmt.Errorf("%d files could not be read or written", g.failed)
	}
	return nil
}

// errSkipped: the rules leave a file out.
var errSkipped = errors.New("skipped")

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
	if err == errSkipped {
		return nil
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
	if err := g.setAttributes(name, to, st); err != nil {
		g.report(err)
	}
	return nil
}

func (g *getter) report(err error) {
	g.failed++
	g.progress.done()
	fmt.Fprintf(os.Stderr, "gobtrfs %s: %s\n", g.verb, err)
}

func (g *getter) children(name, to string) error {
	list, err := g.s.ReadDir(name)
	if err != nil {
		g.report(err)
	}
	for _, e := range list {
		if !safeName(e.Name()) {
			g.report(fmt.Errorf("%s: the name %q cannot be used here", textName(name), e.Name()))
			continue
		}
		if err := g.one(path.Join(name, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// safeName tells whether a name from a volume names a file in the directory that
// it is put in, and nothing else.
func safeName(name string) bool {
	return name != "." && !strings.ContainsAny(name, "/\x00") && filepath.IsLocal(name)
}

// make makes the file without its attributes.
func (g *getter) make(name, to string, fi fs.FileInfo) error {
	st := fi.Sys().(btrfs.Stat)
	wanted := g.match == nil || g.match.MatchString(path.Join("/", name))
	if st.IsDir() {
		return g.dir(name, to, st, wanted)
	}
	kind := typeName(st)
	if !wanted || kind == "symlink" && !g.symlinks || kind != "file" && kind != "symlink" && !g.specials {
		return errSkipped
	}
	if g.verbose || g.dry {
		fmt.Fprintln(g.out, textName(path.Join("/", name)))
	}
	if g.dry {
		return errSkipped
	}
	if g.match != nil {
		if err := g.ensure(filepath.Dir(to)); err != nil {
			return err
		}
	}
	id := inodeID{st.Subvolume, st.Inode}
	if first, ok := g.links[id]; ok {
		return g.link(first, to)
	}
	if err := g.makeKind(name, to, kind, st); err != nil {
		return err
	}
	if st.Nlink > 1 {
		g.links[id] = to
	}
	return nil
}

func (g *getter) makeKind(name, to, kind string, st btrfs.Stat) error {
	switch kind {
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

// link gives a file that was copied already another name.
func (g *getter) link(first, to string) error {
	err := os.Link(first, to)
	if errors.Is(err, fs.ErrExist) {
		a, aerr := os.Lstat(first)
		b, berr := os.Lstat(to)
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			return errSkipped
		}
	}
	return err
}

// dir makes a directory, at once or, when only some files are wanted, with the
// first file in it.
func (g *getter) dir(name, to string, st btrfs.Stat, wanted bool) error {
	id := inodeID{st.Subvolume, st.Inode}
	switch {
	case g.skip[st.Subvolume]:
		return errSkipped
	case st.Stub:
	case g.dirs[id]:
		return fmt.Errorf("%s: the directory was met before under another name", textName(name))
	}
	g.dirs[id] = true
	if g.dry || !wanted {
		return nil
	}
	return g.ensure(to)
}

// ensure makes directory to and those above it that are not there. What is there
// must be a directory, not a link to one.
func (g *getter) ensure(to string) error {
	fi, err := os.Lstat(to)
	switch {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: to, Err: btrfs.ErrNotDir}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if g.match != nil && filepath.Dir(to) != to {
		if err := g.ensure(filepath.Dir(to)); err != nil {
			return err
		}
	}
	return os.Mkdir(to, g.perm(0o777))
}

// perm is the mode to make something with: closed to others until its own mode
// is set, or what the umask leaves.
func (g *getter) perm(m fs.FileMode) fs.FileMode {
	if g.attributes {
		return m & 0o700
	}
	return m
}

// setAttributes sets owner, xattrs, mode and times of what was made.
func (g *getter) setAttributes(name, to string, st btrfs.Stat) error {
	if g.dry {
		return nil
	}
	if st.IsDir() {
		if fi, err := os.Lstat(to); err != nil || !fi.IsDir() {
			return nil // nothing in it was wanted
		}
	}
	var errs []error
	if g.attributes && g.root {
		errs = append(errs, os.Lchown(to, int(st.UID), int(st.GID)))
	}
	if g.xattrs {
		errs = append(errs, g.copyXattrs(name, to))
	}
	if !g.attributes {
		return errors.Join(errs...)
	}
	if !st.IsSymlink() {
		errs = append(errs, os.Chmod(to, st.FileMode()))
	}
	return errors.Join(append(errs, setLocalTimes(to, st.Atime, st.Mtime))...)
}

func (g *getter) copyXattrs(name, to string) error {
	xattrs, err := g.s.Xattrs(name)
	if err != nil {
		return err
	}
	for attr, value := range xattrs {
		if err := setLocalXattr(to, attr, value); err != nil && g.root {
			return fmt.Errorf("%s: xattr %s: %w", to, attr, err)
		}
	}
	return nil
}
