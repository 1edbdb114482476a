package mkfs

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// firstIno is the inode of a subvolume's root directory.
const firstIno = ondisk.FirstFreeObjectid

// scan is the source as it was found, with inode numbers.
type scan struct {
	src     Source
	root    *node
	subvols []*subvolume // the top-level one first
	files   int
	bytes   uint64
}

// subvolume is a subvolume to be made.
type subvolume struct {
	id        ondisk.TreeID
	uuid      ondisk.UUID
	readOnly  bool
	isDefault bool
	root      *node

	parent ondisk.TreeID // 0: the top-level one
	dir    uint64
	index  uint64
	name   string

	order []*node // inodes in the order of their numbers
}

// node is a name in the source.
type node struct {
	name   string
	path   string
	st     Stat
	xattrs []Xattr
	target string // of a symbolic link
	kids   []*node
	sub    *subvolume // of a directory that becomes one

	parent *node
	index  uint64 // in the parent
	ino    uint64
	first  *node   // the first name of the same inode; nil: this is it
	names  []*node // of a first name: all names, this one too
}

// subvols gives the subvolumes of the volume.
func (b *builder) subvols() []*subvolume { return b.subvol }

// scanSource walks the whole source and numbers the inodes.
func scanSource(ctx context.Context, src Source, subvols []Subvol) (*scan, error) {
	s := &scan{src: src, root: &node{}}
	if err := s.read(s.root); err != nil {
		return nil, err
	}
	if s.root.st.Mode&modeType != modeDir {
		return nil, bad("the source is no directory")
	}
	if err := s.walk(ctx); err != nil {
		return nil, err
	}
	if err := s.mark(subvols); err != nil {
		return nil, err
	}
	s.number()
	return s, nil
}

// read fills in what the source tells about a node.
func (s *scan) read(n *node) (err error) {
	if n.st, err = s.src.Stat(n.path); err != nil {
		return err
	}
	if n.xattrs, err = s.src.Xattrs(n.path); err != nil {
		return err
	}
	switch fileType(n.st.Mode) {
	case ondisk.FTSymlink:
		n.target, err = s.src.ReadLink(n.path)
		n.st.Size = uint64(len(n.target))
	case ondisk.FTUnknown:
		err = fmt.Errorf("%s: unknown type of file (mode %o)", n.path, n.st.Mode)
	}
	return err
}

// readDir lists a directory and reads what is in it.
func (s *scan) readDir(dir *node) error {
	names, err := s.src.ReadDir(dir.path)
	if err != nil {
		return err
	}
	slices.Sort(names)
	dir.kids = make([]*node, 0, len(names))
	for i, name := range names {
		if err := checkName(name); err != nil || i > 0 && names[i-1] == name {
			return fmt.Errorf("%s: directory has a name %q that cannot be: %w", dir.path, name, err)
		}
		n := &node{name: name, path: path.Join(dir.path, name), parent: dir, index: uint64(i) + 2}
		if err := s.read(n); err != nil {
			return err
		}
		dir.kids = append(dir.kids, n)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("not a file name")
	case len(name) > 255:
		return fmt.Errorf("longer than 255 bytes")
	}
	return nil
}

// walk reads all directories, several at once.
func (s *scan) walk(ctx context.Context) error {
	w := &walker{todo: []*node{s.root}}
	w.wake.L = &w.mu
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) + 1 {
		wg.Go(func() {
			for dir := w.next(); dir != nil; dir = w.next() {
				err := ctx.Err()
				if err == nil {
					err = s.readDir(dir)
				}
				w.done(dir, err)
			}
		})
	}
	wg.Wait()
	return w.err
}

// walker shares directories among goroutines.
type walker struct {
	mu   sync.Mutex
	wake sync.Cond
	todo []*node
	busy int
	err  error
}

// next gives a directory to read; nil when there will be no more.
func (w *walker) next() *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.todo) == 0 && w.busy > 0 && w.err == nil {
		w.wake.Wait()
	}
	if len(w.todo) == 0 || w.err != nil {
		return nil
	}
	n := w.todo[len(w.todo)-1]
	w.todo = w.todo[:len(w.todo)-1]
	w.busy++
	return n
}

func (w *walker) done(dir *node, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	if err != nil && w.err == nil {
		w.err = err
	}
	for _, n := range dir.kids {
		if n.st.Mode&modeType == modeDir {
			w.todo = append(w.todo, n)
		}
	}
	w.wake.Broadcast()
}

// mark finds the directories that become subvolumes.
func (s *scan) mark(list []Subvol) error {
	s.root.sub = &subvolume{id: ondisk.FSTree, root: s.root}
	for _, o := range list {
		clean := strings.TrimPrefix(path.Clean("/"+o.Path), "/")
		n := s.find(clean)
		switch {
		case clean == "" && o.Default && !o.ReadOnly:
			continue // the top-level subvolume is the default anyway
		case clean == "":
			return bad("subvolume %q: the top of the source is a subvolume already", o.Path)
		case n == nil || n.st.Mode&modeType != modeDir:
			return bad("subvolume %q: no such directory in the source", o.Path)
		case n.sub != nil:
			return bad("subvolume %q named twice", o.Path)
		}
		n.sub = &subvolume{readOnly: o.ReadOnly, isDefault: o.Default, root: n}
	}
	defaults := 0
	for _, o := range list {
		if o.Default {
			defaults++
		}
	}
	if defaults > 1 {
		return bad("more than one default subvolume")
	}
	return nil
}

func (s *scan) find(p string) *node {
	n := s.root
	for name := range strings.SplitSeq(p, "/") {
		i, ok := slices.BinarySearchFunc(n.kids, name, func(k *node, name string) int { return cmp.Compare(k.name, name) })
		if !ok {
			return nil
		}
		n = n.kids[i]
	}
	return n
}

// number gives ids to subvolumes and numbers to inodes: those of a directory follow each other, in the order of names.
func (s *scan) number() {
	s.subvols = []*subvolume{s.root.sub}
	for i := 0; i < len(s.subvols); i++ {
		sub := s.subvols[i]
		nb := numbering{s: s, sub: sub, next: firstIno, links: map[[2]uint64]*node{}}
		nb.take(sub.root)
		nb.dir(sub.root)
	}
}

// numbering is the state of number inside one subvolume.
type numbering struct {
	s     *scan
	sub   *subvolume
	next  uint64
	links map[[2]uint64]*node // first names of files with several, by device and inode in the source
}

// take gives a node the next number, or the number of an earlier name of the same file.
func (nb *numbering) take(n *node) {
	if n.st.Links > 1 && n.st.Mode&modeType != modeDir {
		id := [2]uint64{n.st.Dev, n.st.Ino}
		if first := nb.links[id]; first != nil && first.st.Mode == n.st.Mode && first.st.Size == n.st.Size {
			n.first, n.ino = first, first.ino
			first.names = append(first.names, n)
			return
		}
		nb.links[id] = n
	}
	n.ino = nb.next
	nb.next++
	n.names = []*node{n}
	nb.sub.order = append(nb.sub.order, n)
	nb.s.files++
	if n.st.Mode&modeType == modeRegular {
		nb.s.bytes += n.st.Size
	}
}

func (nb *numbering) dir(d *node) {
	for _, n := range d.kids {
		if n.sub == nil {
			nb.take(n)
			continue
		}
		sub := n.sub
		sub.id = ondisk.TreeID(uint64(firstIno) + uint64(len(nb.s.subvols)) - 1)
		sub.parent, sub.dir, sub.index, sub.name = nb.sub.id, d.ino, n.index, n.name
		nb.s.subvols = append(nb.s.subvols, sub)
	}
	for _, n := range d.kids {
		if n.sub == nil && n.st.Mode&modeType == modeDir {
			nb.dir(n)
		}
	}
}

// digest writes what identifies the source.
func (s *scan) digest(w io.Writer) {
	for _, sub := range s.subvols {
		fmt.Fprintln(w, sub.id, sub.readOnly, sub.isDefault)
		for _, n := range sub.order {
			for _, o := range n.names {
				fmt.Fprintf(w, "%q ", o.path)
			}
			st := &n.st
			fmt.Fprintln(w, n.ino, st.Mode, st.UID, st.GID, st.Major, st.Minor, st.Size, st.Mtime, n.target)
			for _, x := range n.xattrs {
				fmt.Fprintf(w, "%q %q\n", x.Name, x.Value)
			}
		}
	}
}
