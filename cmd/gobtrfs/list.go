package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// entry is one file in JSON output.
type entry struct {
	Name      string    `json:"name"`
	NameB64   string    `json:"name_b64,omitempty"`
	Path      string    `json:"path,omitempty"`
	Type      string    `json:"type"`
	Size      int64     `json:"size"`
	Mode      string    `json:"mode"`
	UID       uint32    `json:"uid"`
	GID       uint32    `json:"gid"`
	Nlink     uint32    `json:"nlink"`
	Inode     uint64    `json:"inode"`
	Mtime     time.Time `json:"mtime"`
	Target    *string   `json:"target,omitempty"`
	Rdev      string    `json:"rdev,omitempty"`
	Subvolume uint64    `json:"subvolume,omitempty"`

	// Further members of stat.
	Atime     *time.Time        `json:"atime,omitempty"`
	Ctime     *time.Time        `json:"ctime,omitempty"`
	Otime     *time.Time        `json:"otime,omitempty"`
	Allocated int64             `json:"allocated,omitempty"`
	Flags     uint64            `json:"flags,omitempty"`
	Xattrs    map[string][]byte `json:"xattrs,omitempty"`
}

func typeName(st btrfs.Stat) string {
	switch st.FileMode().Type() {
	case fs.ModeDir:
		return "dir"
	case fs.ModeSymlink:
		return "symlink"
	case fs.ModeSocket:
		return "socket"
	case fs.ModeNamedPipe:
		return "fifo"
	case fs.ModeDevice | fs.ModeCharDevice:
		return "char"
	case fs.ModeDevice:
		return "block"
	}
	return "file"
}

// makeEntry describes the file at name (a path of package io/fs).
func makeEntry(s *btrfs.Subvolume, name, shown string, fi fs.FileInfo) (entry, error) {
	st := fi.Sys().(btrfs.Stat)
	e := entry{
		Name: shown, NameB64: b64(shown), Type: typeName(st), Size: st.Size,
		Mode: fmt.Sprintf("%04o", st.Mode&0o7777), UID: st.UID, GID: st.GID,
		Nlink: st.Nlink, Inode: st.Inode, Mtime: st.Mtime.UTC(),
	}
	if st.IsDir() && st.Inode == 256 {
		e.Subvolume = st.Subvolume
	}
	switch e.Type {
	case "symlink":
		target, err := s.ReadLink(name)
		if err != nil {
			return e, err
		}
		e.Target = &target
	case "char", "block":
		e.Rdev = fmt.Sprintf("%d:%d", st.Rdev.Major, st.Rdev.Minor)
	}
	return e, nil
}

func lsCommand() *cobra.Command {
	var out output
	var state stateFlags
	var long, recursive bool
	cmd := &cobra.Command{
		Use: "ls TARGET [PATH…]", Short: "List files", Args: cobra.MinimumNArgs(1),
		Long: "Lists files, each directory sorted by name. Of a directory with more than 65536 names the next 65536 are found by\n" +
			"reading it again, so that memory stays bounded; -l aligns 4096 lines at a time.",
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			paths := args[1:]
			if len(paths) == 0 {
				paths = []string{"/"}
			}
			return withVolume(cmd.Context(), "ls", args[0], state.readOnly(), func(v *btrfs.Volume) error {
				l := lister{ctx: cmd.Context(), out: &out, s: v.Top(), long: long, recursive: recursive, many: len(paths) > 1, most: mostSorted}
				return l.run(paths)
			})
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "modes, owners, sizes and times")
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "directories too, however deep")
	state.flags(cmd, "")
	state.forensicFlag(cmd)
	out.flags(cmd)
	return cmd
}

// lister is one run of ls. It prints as it goes: what it keeps does not grow with what it lists.
type lister struct {
	ctx                   context.Context
	out                   *output
	s                     *btrfs.Subvolume
	long, recursive, many bool
	most                  int // names of directories that are kept

	w     *bufio.Writer
	tw    *tabwriter.Writer
	rows  int
	array jsonArray
	above []inodeID // directories on the way to what is listed
}

const (
	listBuffer = 64 << 10
	alignedAt  = 4096 // rows that are aligned with each other
)

func (l *lister) run(paths []string) error {
	l.w = bufio.NewWriterSize(l.out.w, listBuffer)
	l.tw = tabwriter.NewWriter(l.w, 0, 8, 1, ' ', 0)
	l.array.w = l.w
	var err error
	for _, p := range paths {
		if err = l.path(p); err != nil {
			break
		}
	}
	switch {
	case !l.out.json:
		return errors.Join(err, l.tw.Flush(), l.w.Flush())
	case err != nil:
		return err // no document, or one without an end, rather than what looks like all
	}
	return errors.Join(l.array.end(), l.w.Flush())
}

func (l *lister) path(p string) error {
	name := rel(p)
	fi, err := l.s.Lstat(name)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return l.add(name, p, fi)
	}
	if l.many && !l.out.json {
		if err := l.tw.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(l.w, "%s:\n", textName(p))
	}
	return l.dir(name, "", fi)
}

// dir lists directory name; prefix is what is put before the names.
func (l *lister) dir(name, prefix string, fi fs.FileInfo) error {
	st := fi.Sys().(btrfs.Stat)
	id := inodeID{st.Subvolume, st.Inode}
	if slices.Contains(l.above, id) {
		return &btrfs.CorruptError{What: fmt.Sprintf("directory %d of subvolume %d", id.ino, id.sub), Slot: -1, Reason: "is inside itself"}
	}
	f, err := l.s.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	l.above = append(l.above, id)
	defer func() { l.above = l.above[:len(l.above)-1] }()
	d := &sortedDir{f: f, most: max(l.most/len(l.above), 1)}
	for {
		list, lerr := d.next()
		for _, e := range list { // what can be listed is, before the error
			if err := l.entry(name, prefix, e); err != nil {
				return err
			}
		}
		if lerr == io.EOF {
			return nil
		}
		if lerr != nil {
			return lerr
		}
	}
}

// entry lists one name of directory dir.
func (l *lister) entry(dir, prefix string, d fs.DirEntry) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	fi, err := d.Info()
	if err != nil {
		return err
	}
	full := path.Join(dir, d.Name())
	if err := l.add(full, prefix+d.Name(), fi); err != nil {
		return err
	}
	if l.recursive && d.IsDir() {
		return l.dir(full, prefix+d.Name()+"/", fi)
	}
	return nil
}

func (l *lister) add(name, shown string, fi fs.FileInfo) error {
	if !l.long && !l.out.json {
		_, err := fmt.Fprintln(l.w, textName(shown))
		return err
	}
	e, err := makeEntry(l.s, name, shown, fi)
	if err != nil {
		return err
	}
	if l.out.json {
		if l.recursive {
			e.Path, e.Name = "/"+name, path.Base(name)
			e.NameB64 = b64(e.Name)
		}
		return l.array.add(e)
	}
	size := l.out.size(uint64(e.Size))
	if e.Rdev != "" {
		size = e.Rdev
	}
	text := textName(shown)
	if e.Target != nil {
		text += " -> " + textName(*e.Target)
	}
	if l.rows++; l.rows%alignedAt == 0 {
		if err := l.tw.Flush(); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(l.tw, "%s\t%d\t%d\t%d\t%s\t%s\t%s\n", fi.Mode(), e.Nlink, e.UID, e.GID, size, e.Mtime.Format("2006-01-02 15:04:05"), text)
	return err
}

func catCommand() *cobra.Command {
	var state stateFlags
	cmd := &cobra.Command{
		Use: "cat TARGET PATH…", Short: "Write files to standard output", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withVolume(cmd.Context(), "cat", args[0], state.readOnly(), func(v *btrfs.Volume) error {
				defer tellUnproven("cat", v) // of what was written before an error too
				for _, p := range args[1:] {
					if err := copyOut(cmd.Context(), cmd.OutOrStdout(), v.Top(), rel(p)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	state.flags(cmd, "")
	state.forensicFlag(cmd)
	state.checksumsFlag(cmd)
	return cmd
}

// copyOut writes the file name to w.
func copyOut(ctx context.Context, w io.Writer, s *btrfs.Subvolume, name string) error {
	f, err := s.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(stoppable{ctx, w}, f, make([]byte, 1<<20))
	return err
}

// stoppable is a writer that takes nothing more once its context has ended.
type stoppable struct {
	ctx context.Context
	w   io.Writer
}

func (s stoppable) Write(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.w.Write(p)
}

func statCommand() *cobra.Command {
	var out output
	var state stateFlags
	cmd := &cobra.Command{
		Use: "stat TARGET PATH…", Short: "Tell all about files", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.start(cmd)
			return withVolume(cmd.Context(), "stat", args[0], state.readOnly(), func(v *btrfs.Volume) error {
				return statAll(&out, v.Top(), args[1:])
			})
		},
	}
	out.flags(cmd)
	state.flags(cmd, "")
	state.forensicFlag(cmd)
	return cmd
}

func statAll(out *output, s *btrfs.Subvolume, paths []string) error {
	all := []entry{}
	for _, p := range paths {
		e, err := statEntry(s, p)
		if err != nil {
			return err
		}
		all = append(all, e)
		if !out.json {
			printStat(out, e)
		}
	}
	if out.json {
		return out.document(all)
	}
	return nil
}

func statEntry(s *btrfs.Subvolume, p string) (entry, error) {
	name := rel(p)
	fi, err := s.Lstat(name)
	if err != nil {
		return entry{}, err
	}
	e, err := makeEntry(s, name, path.Base("/"+name), fi)
	if err != nil {
		return e, err
	}
	st := fi.Sys().(btrfs.Stat)
	a, c, o := st.Atime.UTC(), st.Ctime.UTC(), st.Otime.UTC()
	e.Path, e.Atime, e.Ctime, e.Otime = path.Clean("/"+name), &a, &c, &o
	e.Allocated, e.Flags, e.Subvolume = st.Allocated, st.Flags, st.Subvolume
	e.Xattrs, err = s.Xattrs(name)
	return e, err
}

func printStat(out *output, e entry) {
	w := out.w
	fmt.Fprintf(w, "  File: %s\n", textName(e.Path))
	if e.Target != nil {
		fmt.Fprintf(w, "Target: %s\n", textName(*e.Target))
	}
	fmt.Fprintf(w, "  Type: %s  Size: %s  Allocated: %s\n", e.Type, out.size(uint64(e.Size)), out.size(uint64(e.Allocated)))
	fmt.Fprintf(w, " Inode: %d  Subvolume: %d  Links: %d", e.Inode, e.Subvolume, e.Nlink)
	if e.Rdev != "" {
		fmt.Fprintf(w, "  Device: %s", e.Rdev)
	}
	fmt.Fprintf(w, "\n  Mode: %s  Uid: %d  Gid: %d  Flags: 0x%x\n", e.Mode, e.UID, e.GID, e.Flags)
	for _, t := range []struct {
		what string
		at   time.Time
	}{{"Access", *e.Atime}, {"Modify", e.Mtime}, {"Change", *e.Ctime}, {" Birth", *e.Otime}} {
		fmt.Fprintf(w, "%s: %s\n", t.what, t.at.Format("2006-01-02 15:04:05.999999999 -0700"))
	}
	for name, value := range e.Xattrs {
		fmt.Fprintf(w, " Xattr: %s=%q\n", textName(name), value)
	}
}
