package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

func putCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "put TARGET LOCAL… PATH",
		Short: "Copy files into a volume, recursively",
		Long: "Copies files into a volume, recursively, with modes, owners, times, xattrs, hard links and holes.\n" +
			"Hard links that would cross the border of a subvolume become copies. Everything is committed at the end.",
		Args: cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			srcs, dest := args[1:len(args)-1], args[len(args)-1]
			return withVolume(cmd.Context(), "put", args[0], btrfs.Options{}, func(v *btrfs.Volume) error {
				p := &putter{s: v.Top(), links: linkSet{}, progress: newProgress(quiet), ctxErr: cmd.Context().Err}
				defer p.progress.done()
				return p.all(srcs, dest)
			})
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	return cmd
}

// localInfo is what a stat of a file outside the volume tells.
type localInfo struct {
	uid, gid int
	nlink    uint64
	dev, ino uint64
	mode     uint32
	rdev     btrfs.Rdev
	atime    time.Time
}

// putter copies files into a volume.
type putter struct {
	s        *btrfs.Subvolume
	links    linkSet
	copied   bool // it was told that hard links become copies
	progress *progress
	bytes    uint64 // read
	ctxErr   func() error
}

// listedAtOnce is how many names of a directory outside the volume are read at once.
const listedAtOnce = 1024

func (p *putter) all(srcs []string, dest string) error {
	name := rel(dest)
	into, err := isDir(p.s, name)
	if err != nil {
		return err
	}
	if len(srcs) > 1 && !into {
		return fmt.Errorf("%s: %w", dest, btrfs.ErrNotDir)
	}
	for _, src := range srcs {
		to := name
		if into {
			to = path.Join(name, filepath.Base(filepath.Clean(src)))
		}
		if err := p.one(src, to); err != nil {
			return err
		}
	}
	return nil
}

func (p *putter) one(src, to string) error {
	if err := p.ctxErr(); err != nil {
		return err
	}
	fi, err := os.Lstat(src)
	if err != nil {
		return err
	}
	li, known := localStat(fi)
	if err := p.make(src, to, fi, li, known); err != nil {
		return err
	}
	if fi.IsDir() {
		if err := p.contents(src, to); err != nil {
			return err
		}
	}
	return p.attributes(src, to, fi, li, known)
}

// contents puts what is in a directory, in the order in which it is listed.
func (p *putter) contents(src, to string) error {
	dir, err := os.Open(src)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		list, err := dir.ReadDir(listedAtOnce)
		for _, e := range list {
			if err := p.one(filepath.Join(src, e.Name()), path.Join(to, e.Name())); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *putter) make(src, to string, fi fs.FileInfo, li localInfo, known bool) error {
	if fi.IsDir() {
		err := p.s.Mkdir(to, 0o700)
		if ok, _ := isDir(p.s, to); ok && errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	if known {
		id := inodeID{li.dev, li.ino}
		first, met := p.links.again(id)
		if met {
			err := p.again(first, to)
			if !errors.Is(err, btrfs.ErrCrossDevice) {
				return err
			}
			p.tellCopied(to)
			p.links.move(id, to) // the next name may be beside this one
		} else {
			p.links.put(id, to, li.nlink)
		}
	}
	if fi.Mode().IsRegular() {
		return p.file(src, to)
	}
	if err := p.clear(to); err != nil {
		return err
	}
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return p.s.Symlink(target, to)
	case !known:
		return fmt.Errorf("%s: cannot copy a special file here", src)
	}
	return p.s.Mknod(to, li.mode, li.rdev)
}

// again gives a file that was put already another name.
func (p *putter) again(first, to string) error {
	if first == to {
		return nil
	}
	if err := p.clear(to); err != nil {
		return err
	}
	return p.s.Link(first, to)
}

// tellCopied tells once that a subvolume border makes copies of hard links.
func (p *putter) tellCopied(to string) {
	if !p.copied {
		p.progress.done()
		fmt.Fprintf(os.Stderr, "gobtrfs put: /%s: its other names lie in another subvolume; such hard links become copies\n", textName(to))
	}
	p.copied = true
}

// clear removes what is in the way, so that the same put can be run again, nothing that it is linked with changes,
// and no link is followed; directories stay.
func (p *putter) clear(to string) error {
	fi, err := p.s.Lstat(to)
	if errors.Is(err, fs.ErrNotExist) || err == nil && fi.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	return p.s.Remove(to)
}

// file copies a regular file; pieces that are all zero become holes.
func (p *putter) file(src, to string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := p.clear(to); err != nil {
		return err
	}
	out, err := p.s.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = p.copy(out, in)
	return errors.Join(err, out.Close())
}

// copy copies the ranges of a file that may hold data, and what is behind its size by then.
func (p *putter) copy(out *btrfs.File, in *os.File) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		from, to := localData(in, off)
		n, err := p.copyRange(out, in, buf, from, to)
		off = from + n
		if err == io.EOF {
			return out.Truncate(off)
		}
		if err != nil {
			return err
		}
	}
}

// copyRange copies [from, to) and tells how much of it is there; io.EOF when the file ends before to.
func (p *putter) copyRange(out *btrfs.File, in io.ReaderAt, buf []byte, from, to int64) (n int64, err error) {
	for from+n < to {
		if err := p.ctxErr(); err != nil {
			return n, err
		}
		b := buf[:min(int64(len(buf)), to-from-n)]
		got, rerr := in.ReadAt(b, from+n)
		if b = b[:got]; !isZeroAll(b) {
			if _, err := out.WriteAt(b, from+n); err != nil {
				return n, err
			}
		}
		n += int64(got)
		p.bytes += uint64(got)
		p.progress.tell(state{verb: "put", part: -1, bytes: p.bytes, text: iec(p.bytes)})
		if rerr != nil {
			return n, rerr
		}
	}
	return n, nil
}

func isZeroAll(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), sparseUnit)
		if !isZero(b[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// attributes sets owner, xattrs, mode and times.
func (p *putter) attributes(src, to string, fi fs.FileInfo, li localInfo, known bool) error {
	if known {
		if err := p.s.Lchown(to, li.uid, li.gid); err != nil {
			return err
		}
	}
	xattrs, err := localXattrs(src)
	if err != nil {
		return err
	}
	for attr, value := range xattrs {
		if err := p.s.SetXattr(to, attr, value); err != nil {
			return err
		}
	}
	if fi.Mode()&fs.ModeSymlink == 0 {
		if err := p.s.Chmod(to, fi.Mode()); err != nil {
			return err
		}
	}
	return p.s.Lchtimes(to, li.atime, fi.ModTime())
}
