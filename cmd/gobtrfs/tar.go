package main

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// tarBuffer gathers headers and small files; larger writes pass it by.
const tarBuffer = 256 << 10

// tarer writes what a getter gets as a tar stream.
type tarer struct {
	*getter
	w   *tar.Writer
	raw *bufio.Writer // what w writes to
}

// tar writes files and trees to w. Each is called what it is called in its
// directory, the root ".".
func (g *getter) tar(srcs []string, w io.Writer) error {
	widen(w)
	buf := bufio.NewWriterSize(w, tarBuffer)
	t := &tarer{g, tar.NewWriter(buf), buf}
	for _, p := range srcs {
		name := rel(p)
		err := g.s.Walk(g.ctx, name, btrfs.WalkOptions{Want: g.wants}, func(e *btrfs.WalkEntry) error {
			return t.entry(e, filepath.ToSlash(localPath(name, path.Base(name), e.Path)))
		})
		if err != nil {
			return err
		}
	}
	if err := errors.Join(t.w.Close(), buf.Flush()); err != nil {
		return err
	}
	return g.result()
}

// entry writes what Walk met. An error is one of the stream, or an interruption.
func (t *tarer) entry(e *btrfs.WalkEntry, name string) error {
	if errors.Is(e.Err, context.Canceled) {
		return e.Err
	}
	h, err := t.header(e, name)
	if err == errSkipped {
		return nil
	}
	if err != nil {
		t.report(err)
		return filepath.SkipDir
	}
	if h.Typeflag == tar.TypeReg {
		if f := t.sparseFile(e); f != nil {
			defer f.in.Close()
			return t.sparse(e, h, f)
		}
	}
	if err := t.w.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", textName(e.Path), err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f := &tarFile{w: t.w}
	if err := t.contents(e, f.put); err != nil {
		return err
	}
	return f.zeros(h.Size)
}

func (t *tarer) header(e *btrfs.WalkEntry, name string) (*tar.Header, error) {
	if e.Err != nil {
		return nil, e.Err
	}
	if err := checkName(e); err != nil {
		return nil, err
	}
	st := e.Stat
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.UID), Gid: int(st.GID), ModTime: st.Mtime,
		Devmajor: int64(st.Rdev.Major), Devminor: int64(st.Rdev.Minor), Format: tar.FormatPAX,
	}
	switch typeName(st) {
	case "file":
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case "dir":
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case "symlink":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case "char":
		h.Typeflag = tar.TypeChar
	case "block":
		h.Typeflag = tar.TypeBlock
	case "fifo":
		h.Typeflag = tar.TypeFifo
	default:
		fmt.Fprintf(os.Stderr, "gobtrfs %s: %s: a tar stream holds no sockets; left out\n", t.verb, textName(e.Path))
		return nil, errSkipped
	}
	id := inodeID{st.Subvolume, st.Inode}
	if first, ok := t.links.again(id); ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return h, nil
	}
	if !st.IsDir() {
		t.links.put(id, name, uint64(st.Nlink))
	}
	return h, t.setXattrs(e, h)
}

// setXattrs adds the extended attributes as GNU tar and others have them.
func (t *tarer) setXattrs(e *btrfs.WalkEntry, h *tar.Header) error {
	xattrs, err := e.Xattrs()
	if err != nil {
		t.report(err) // the rest is fine
	}
	for k, v := range xattrs {
		if strings.Contains(k, "=") {
			t.report(fmt.Errorf("%s: xattr %q: a tar stream cannot have it", textName(e.Path), k))
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = string(v)
	}
	return nil
}

// tarFile is the contents of one file without holes.
type tarFile struct {
	w  *tar.Writer
	at int64
}

func (f *tarFile) put(p []byte, off int64) error {
	if err := f.zeros(off); err != nil {
		return err
	}
	n, err := f.w.Write(p)
	f.at += int64(n)
	return err
}

// zeros writes zeros up to off.
func (f *tarFile) zeros(off int64) error {
	for f.at < off {
		n, err := f.w.Write(zeroUnit[:min(off-f.at, sparseUnit)])
		f.at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
