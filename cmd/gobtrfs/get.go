package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func getCommand() *cobra.Command {
	var quiet, direct bool
	var state stateFlags
	cmd := &cobra.Command{
		Use:   "get TARGET PATH… LOCAL|-",
		Short: "Copy files out of a volume, recursively",
		Long: "Copies files out of a volume, recursively, with modes, owners (where allowed), times, xattrs, hard links and holes.\n" +
			"With - instead of LOCAL it writes a tar stream to standard output.\n" +
			"What cannot be read is named; the rest is copied (in a tar stream there are zeros in its place), and the exit status is 1.",
		Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcs, dest := args[1:len(args)-1], args[len(args)-1]
			opt := state.readOnly()
			opt.Direct = direct
			return withVolume(cmd.Context(), "get", args[0], opt, func(v *btrfs.Volume) error {
				g := newGetter(cmd, v, getRules{verb: "get", attributes: true, xattrs: true, symlinks: true, specials: true, overwrite: true}, quiet)
				defer g.progress.done()
				if dest == "-" {
					return g.tar(srcs, cmd.OutOrStdout())
				}
				return g.all(srcs, dest)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	cmd.Flags().BoolVar(&direct, "direct", false, "read past the page cache (Linux)")
	state.flags(cmd, "")
	state.forensicFlag(cmd)
	state.checksumsFlag(cmd)
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

// getter copies files out of a volume. What the volume says is not trusted: a
// name that leads elsewhere is refused, nothing is written through a link that
// the volume holds.
type getter struct {
	getRules
	s        *btrfs.Subvolume
	out      io.Writer
	links    linkSet
	root     bool
	progress *progress
	bytes    uint64
	failed   int
	unproven bool // something failed for want of a right checksum
	ctx      context.Context
}

func newGetter(cmd *cobra.Command, v *btrfs.Volume, rules getRules, quiet bool) *getter {
	return &getter{
		getRules: rules, s: v.Top(), out: cmd.OutOrStdout(), links: linkSet{},
		root: os.Geteuid() == 0, progress: newProgress(quiet), ctx: cmd.Context(),
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
	if data, blocks := g.s.Volume().Rescued(); data+blocks > 0 {
		g.progress.done()
		what := "damage"
		if slices.ContainsFunc(g.s.Volume().Info().Devices, func(d btrfs.DeviceReport) bool { return d.Missing }) {
			what = "what missing devices hold, and damage"
		}
		fmt.Fprintf(os.Stderr, "gobtrfs %s: %s that other copies made good: %d sectors of data, %d tree blocks\n", g.verb, what, data, blocks)
	}
	g.progress.done()
	tellUnproven(g.verb, g.s.Volume())
	if g.failed > 0 {
		err := fmt.Errorf("%d files could not be read or written", g.failed)
		if g.unproven {
			err = fmt.Errorf("%w\nwhat no checksum proves right is given as it is with --ignore-checksums", err)
		}
		return err
	}
	return nil
}

// errSkipped: the rules leave a file out.
var errSkipped = errors.New("skipped")

// made is something that was made and still waits for its attributes: a
// directory, until all in it is done.
type made struct {
	e  *btrfs.WalkEntry
	to string
}

// one copies a file or a tree; what fails is reported and counted, not returned,
// unless the job was interrupted.
func (g *getter) one(name, to string) error {
	var dirs []made
	finish := func(depth int) {
		for n := len(dirs); n > 0 && dirs[n-1].e.Depth >= depth; n-- {
			g.finish(dirs[n-1])
			dirs = dirs[:n-1]
		}
	}
	err := g.s.Walk(g.ctx, name, btrfs.WalkOptions{NoContents: g.dry, Want: g.wants}, func(e *btrfs.WalkEntry) error {
		finish(e.Depth)
		m := made{e, localPath(name, to, e.Path)}
		err := e.Err
		if err == nil {
			err = g.make(m)
		}
		switch {
		case errors.Is(err, context.Canceled):
			return err
		case err == errSkipped:
		case err != nil:
			g.report(err)
			return fs.SkipDir
		case e.Stat.IsDir():
			dirs = append(dirs, m)
		default:
			g.finish(m)
		}
		return nil
	})
	if err == nil {
		finish(0)
	}
	return err
}

// localPath is where path, which is name or below it, goes when name goes to to.
func localPath(name, to, p string) string {
	switch {
	case p == name:
		return to
	case name != ".":
		p = strings.TrimPrefix(p, name+"/")
	}
	return filepath.Join(to, filepath.FromSlash(p))
}

// finish sets the attributes of what was made.
func (g *getter) finish(m made) {
	if err := g.setAttributes(m); err != nil {
		g.report(err)
	}
}

// wants tells whether something is copied, or looked into.
func (g *getter) wants(e *btrfs.WalkEntry) bool {
	kind := typeName(e.Stat)
	switch {
	case kind == "dir":
		return !g.skip[e.Stat.Subvolume]
	case kind == "symlink" && !g.symlinks || kind != "file" && kind != "symlink" && !g.specials:
		return false
	}
	return g.matches(e)
}

func (g *getter) matches(e *btrfs.WalkEntry) bool {
	return g.match == nil || g.match.MatchString(path.Join("/", e.Path))
}

func (g *getter) report(err error) {
	g.failed++
	g.unproven = g.unproven || btrfs.IsChecksumError(err)
	g.progress.done()
	fmt.Fprintf(os.Stderr, "gobtrfs %s: %s\n", g.verb, plainText(err.Error()))
}

// safeName tells whether a name from a volume names a file in the directory that
// it is put in, and nothing else.
func safeName(name string) bool {
	return name != "." && !strings.ContainsAny(name, "/\x00") && filepath.IsLocal(name)
}

// checkName refuses what Walk met under a name that is not safe.
func checkName(e *btrfs.WalkEntry) error {
	if e.Depth == 0 || safeName(e.Name) {
		return nil
	}
	dir := strings.TrimSuffix(strings.TrimSuffix(e.Path, e.Name), "/")
	return fmt.Errorf("%s: the name %q cannot be used here", textName(path.Join("/", dir)), e.Name)
}

// make makes the file without its attributes.
func (g *getter) make(m made) error {
	st := m.e.Stat
	if err := checkName(m.e); err != nil {
		return err
	}
	if st.IsDir() {
		return g.dir(m)
	}
	if g.verbose || g.dry {
		fmt.Fprintln(g.out, textName(path.Join("/", m.e.Path)))
	}
	if g.dry {
		return errSkipped
	}
	if g.match != nil {
		if err := g.ensure(filepath.Dir(m.to)); err != nil {
			return err
		}
	}
	id := inodeID{st.Subvolume, st.Inode}
	first, linked := g.links.again(id)
	if linked && sameFile(first, m.to) {
		return errSkipped
	}
	if err := g.clear(m); err != nil {
		return err
	}
	if linked {
		return os.Link(first, m.to)
	}
	if err := g.makeKind(m); err != nil {
		return err
	}
	g.links.put(id, m.to, uint64(st.Nlink))
	return nil
}

func (g *getter) makeKind(m made) error {
	switch typeName(m.e.Stat) {
	case "file":
		return g.file(m)
	case "symlink":
		return symlink(m.e.Target, m.to)
	}
	return makeSpecial(m.to, m.e.Stat)
}

// clear takes away what is where m goes, so that nothing that it is linked with outside changes, and no link is followed.
// What is not to be overwritten stays, and so does a directory, and a device that the user named.
func (g *getter) clear(m made) error {
	fi, err := os.Lstat(m.to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !g.overwrite:
		fmt.Fprintf(os.Stderr, "gobtrfs %s: %s is there already and stays as it is (see --overwrite)\n", g.verb, plainText(m.to))
		return errSkipped
	case fi.IsDir():
		return &fs.PathError{Op: "overwrite", Path: m.to, Err: btrfs.ErrIsDir}
	case m.e.Depth == 0 && !fi.Mode().IsRegular() && fi.Mode()&fs.ModeSymlink == 0:
		return &fs.PathError{Op: "overwrite", Path: m.to, Err: fs.ErrExist}
	}
	return os.Remove(m.to)
}

// symlink is os.Symlink, with an error that leaves out the target, which may be long.
func symlink(target, to string) error {
	err := os.Symlink(target, to)
	var le *os.LinkError
	if errors.As(err, &le) {
		return &fs.PathError{Op: le.Op, Path: to, Err: le.Err}
	}
	return err
}

func sameFile(a, b string) bool {
	fa, aerr := os.Lstat(a)
	fb, berr := os.Lstat(b)
	return aerr == nil && berr == nil && os.SameFile(fa, fb)
}

// dir makes a directory, at once or, when only some files are wanted, with the
// first file in it.
func (g *getter) dir(m made) error {
	if g.dry || !g.matches(m.e) {
		return nil
	}
	return g.ensure(m.to)
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
func (g *getter) setAttributes(m made) error {
	to, st := m.to, m.e.Stat
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
		errs = append(errs, g.copyXattrs(m))
	}
	if !g.attributes {
		return errors.Join(errs...)
	}
	if !st.IsSymlink() {
		errs = append(errs, os.Chmod(to, st.FileMode()))
	}
	return errors.Join(append(errs, setLocalTimes(to, st.Atime, st.Mtime))...)
}

func (g *getter) copyXattrs(m made) error {
	xattrs, err := m.e.Xattrs()
	if err != nil {
		return err
	}
	for attr, value := range xattrs {
		if err := setLocalXattr(m.to, attr, value); err != nil && g.root {
			return fmt.Errorf("%s: xattr %s: %w", m.to, attr, err)
		}
	}
	return nil
}
