package fstree_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// node is an inode of the model.
type node struct {
	mode, uid, gid uint32
	nlink          int
	rdev           uint64
	target         string
	xattrs         map[string]string
	names          map[string]uint64 // of directories
	parent         uint64            // of directories
}

func (n *node) isDir() bool { return n.mode&fstree.ModeType == fstree.ModeDir }

type model struct {
	*world
	rng   *rand.Rand
	nodes map[uint64]*node
	log   []string
}

// names are few, so that they meet; the first two have one hash.
var names = []string{"wcjifoae", "ccaoacux", "a", "b", "c", "some longer name", "\xff\xfe not text"}

func (m *model) name() string { return names[m.rng.IntN(len(names))] }

func pick[V any](rng *rand.Rand, of map[uint64]V, ok func(V) bool) uint64 {
	var list []uint64
	for k, v := range of {
		if ok(v) {
			list = append(list, k)
		}
	}
	slices.Sort(list)
	return list[rng.IntN(len(list))]
}

func (m *model) dir() uint64 { return pick(m.rng, m.nodes, (*node).isDir) }

func (m *model) any() uint64 { return pick(m.rng, m.nodes, func(*node) bool { return true }) }

// expect compares an error with what the model says.
func (m *model) expect(err, want error) bool {
	m.t.Helper()
	if !errors.Is(err, want) || err != nil && want == nil {
		m.t.Fatalf("%v, want %v; %v", err, want, m.log[max(0, len(m.log)-20):])
	}
	return want == nil
}

func (m *model) note(format string, a ...any) { m.log = append(m.log, fmt.Sprintf(format, a...)) }

func (m *model) create() {
	dir, name := m.dir(), m.name()
	types := []uint32{fstree.ModeFile, fstree.ModeFile, fstree.ModeDir, fstree.ModeDir, fstree.ModeSymlink, fstree.ModeFifo, fstree.ModeSocket, fstree.ModeChar, fstree.ModeBlock}
	n := &node{mode: types[m.rng.IntN(len(types))] | m.rng.Uint32N(0o1000), uid: m.rng.Uint32N(3), gid: m.rng.Uint32N(3), nlink: 1, xattrs: map[string]string{}}
	a := fstree.Attr{Mode: n.mode, UID: n.uid, GID: n.gid}
	switch n.mode & fstree.ModeType {
	case fstree.ModeSymlink:
		n.target = fmt.Sprintf("target-%0*d", 1+m.rng.IntN(2000), 7)
		a.Target = []byte(n.target)
	case fstree.ModeChar, fstree.ModeBlock:
		n.rdev = uint64(m.rng.IntN(200))<<20 | uint64(m.rng.IntN(300))
		a.Rdev = n.rdev
	case fstree.ModeDir:
		n.names, n.parent = map[string]uint64{}, dir
	}
	m.note("create %d/%q %o", dir, name, n.mode)
	var want error
	if m.nodes[dir].names[name] != 0 {
		want = fs.ErrExist
	}
	var ino uint64
	err := m.try(func(t *fstree.Tree) (err error) { ino, err = t.Create(m.ctx, dir, []byte(name), a); return err })
	if m.expect(err, want) {
		m.nodes[ino], m.nodes[dir].names[name] = n, ino
	}
}

func (m *model) link() {
	ino, dir, name := m.any(), m.dir(), m.name()
	m.note("link %d %d/%q", ino, dir, name)
	var want error
	if m.nodes[dir].names[name] != 0 {
		want = fs.ErrExist
	}
	if m.nodes[ino].isDir() {
		want = fstree.ErrIsDir
	}
	if m.expect(m.try(func(t *fstree.Tree) error { return t.Link(m.ctx, ino, dir, []byte(name)) }), want) {
		m.nodes[dir].names[name] = ino
		m.nodes[ino].nlink++
	}
}

func (m *model) remove() {
	dir, name := m.dir(), m.name()
	ino := m.nodes[dir].names[name]
	m.note("remove %d/%q %d", dir, name, ino)
	var want error
	isDir := ino != 0 && m.nodes[ino].isDir()
	if ino == 0 {
		want = fs.ErrNotExist
	} else if isDir && len(m.nodes[ino].names) > 0 {
		want = fstree.ErrNotEmpty
	}
	err := m.try(func(t *fstree.Tree) error {
		if isDir {
			return t.Rmdir(m.ctx, dir, []byte(name))
		}
		return t.Unlink(m.ctx, dir, []byte(name))
	})
	if m.expect(err, want) {
		m.drop(dir, name)
	}
}

func (m *model) drop(dir uint64, name string) {
	ino := m.nodes[dir].names[name]
	delete(m.nodes[dir].names, name)
	if m.nodes[ino].nlink--; m.nodes[ino].nlink == 0 {
		delete(m.nodes, ino)
	}
}

// inside tells whether dir is ino or lies in it.
func (m *model) inside(ino, dir uint64) bool {
	for ; dir != ino; dir = m.nodes[dir].parent {
		if dir == top {
			return false
		}
	}
	return true
}

func (m *model) rename() {
	from, oname, to, nname := m.dir(), m.name(), m.dir(), m.name()
	exchange := m.rng.IntN(3) == 0
	m.note("rename %d/%q %d/%q %v", from, oname, to, nname, exchange)
	a, b := m.nodes[from].names[oname], m.nodes[to].names[nname]
	want := m.mayRename(a, b, from, to, exchange)
	err := m.try(func(t *fstree.Tree) error {
		if exchange {
			return t.Exchange(m.ctx, from, []byte(oname), to, []byte(nname))
		}
		return t.Rename(m.ctx, from, []byte(oname), to, []byte(nname))
	})
	if !m.expect(err, want) || a == b {
		return
	}
	if exchange {
		m.put(from, oname, b)
	} else {
		if b != 0 {
			m.drop(to, nname)
		}
		delete(m.nodes[from].names, oname)
	}
	m.put(to, nname, a)
}

func (m *model) put(dir uint64, name string, ino uint64) {
	m.nodes[dir].names[name] = ino
	if m.nodes[ino].isDir() {
		m.nodes[ino].parent = dir
	}
}

func (m *model) mayRename(a, b, from, to uint64, exchange bool) error {
	switch {
	case a == 0 || exchange && b == 0:
		return fs.ErrNotExist
	case a == b:
		return nil
	case exchange:
		if m.nodes[a].isDir() && m.inside(a, to) || m.nodes[b].isDir() && m.inside(b, from) {
			return fs.ErrInvalid
		}
		return nil
	case b != 0 && m.nodes[b].isDir() && !m.nodes[a].isDir():
		return fstree.ErrIsDir
	case b != 0 && !m.nodes[b].isDir() && m.nodes[a].isDir():
		return fstree.ErrNotDir
	case b != 0 && m.nodes[b].isDir() && len(m.nodes[b].names) > 0:
		return fstree.ErrNotEmpty
	case m.nodes[a].isDir() && m.inside(a, to):
		return fs.ErrInvalid
	}
	return nil
}

func (m *model) attributes() {
	ino := m.any()
	n := m.nodes[ino]
	m.note("attributes %d", ino)
	if m.rng.IntN(2) == 0 && n.mode&fstree.ModeType != fstree.ModeSymlink {
		mode := m.rng.Uint32N(0o1000)
		uid := m.rng.Uint32N(5)
		m.edit(func(t *fstree.Tree) error { return t.SetAttr(m.ctx, ino, fstree.SetAttr{Mode: &mode, UID: &uid}) })
		n.mode, n.uid = n.mode&fstree.ModeType|mode, uid
		return
	}
	name := "trusted." + m.name()[:1]
	if _, ok := n.xattrs[name]; m.rng.IntN(3) == 0 {
		var want error
		if !ok {
			want = fs.ErrNotExist
		}
		m.expect(m.try(func(t *fstree.Tree) error { return t.RemoveXattr(m.ctx, ino, name) }), want)
		delete(n.xattrs, name)
		return
	}
	value := fmt.Sprintf("%0*d", m.rng.IntN(900), ino)
	m.edit(func(t *fstree.Tree) error { return t.SetXattr(m.ctx, ino, name, []byte(value)) })
	n.xattrs[name] = value
}

func (m *model) step() {
	switch k := m.rng.IntN(100); {
	case k < 35:
		m.create()
	case k < 50:
		m.link()
	case k < 65:
		m.remove()
	case k < 85:
		m.rename()
	case k < 98:
		m.attributes()
	case k < 99:
		m.must(m.m.Commit(m.ctx))
	default:
		m.close()
		m.open()
	}
}

// same compares the tree with the model.
func (m *model) same() {
	m.t.Helper()
	for ino, n := range m.nodes {
		it := m.inode(ino)
		if it.Mode != n.mode || it.UID != n.uid || it.GID != n.gid || int(it.Nlink) != n.nlink || it.Rdev != n.rdev {
			m.t.Errorf("inode %d is %+v, want %+v", ino, it, n)
		}
		got := map[string]string{}
		m.must(fstree.ListXattr(m.ctx, m.tree(), ino, func(name string, value []byte) error {
			got[name] = string(value)
			return nil
		}))
		if !maps.Equal(got, n.xattrs) {
			m.t.Errorf("inode %d has attributes %q, want %q", ino, got, n.xattrs)
		}
		if n.isDir() {
			list := map[string]uint64{}
			m.must(fstree.ReadDir(m.ctx, m.tree(), ino, 0, func(e fstree.Entry) error {
				list[string(e.Name)] = e.Location.Objectid
				return nil
			}))
			if !maps.Equal(list, n.names) {
				m.t.Errorf("directory %d has %v, want %v", ino, list, n.names)
			}
		}
	}
}

// mounted compares what the kernel shows of a directory with the model.
func (m *model) mounted(path string, ino uint64) {
	m.t.Helper()
	n := m.nodes[ino]
	var st syscall.Stat_t
	m.must(syscall.Lstat(path, &st))
	if st.Ino != ino || st.Mode != n.mode || st.Uid != n.uid || st.Gid != n.gid || int(st.Nlink) != n.nlink {
		m.t.Errorf("the kernel shows %q as %+v, want %d %+v", path, st, ino, n)
	}
	if n.rdev != 0 && st.Rdev != unix.Mkdev(uint32(n.rdev>>20), uint32(n.rdev&(1<<20-1))) {
		m.t.Errorf("the kernel shows device %q as %#x, want %#x", path, st.Rdev, n.rdev)
	}
	if n.target != "" {
		if got, err := os.Readlink(path); err != nil || got != n.target {
			m.t.Errorf("the kernel shows the target %q, %v, want %q", got, err, n.target)
		}
	}
	for name, want := range n.xattrs {
		b := make([]byte, 4096)
		if k, err := unix.Lgetxattr(path, name, b); err != nil || string(b[:k]) != want {
			m.t.Errorf("the kernel shows %q of %q as %q, %v, want %q", name, path, b[:max(k, 0)], err, want)
		}
	}
	if !n.isDir() {
		return
	}
	list, err := os.ReadDir(path)
	m.must(err)
	if len(list) != len(n.names) {
		m.t.Errorf("the kernel shows %d names in %q, want %d", len(list), path, len(n.names))
	}
	for name, child := range n.names {
		m.mounted(filepath.Join(path, name), child)
	}
}

// TestModel does random things to names and inodes on several kinds of volumes.
func TestModel(t *testing.T) {
	for i, image := range []string{"empty", "node-4k", "no-extref", "legacy"} {
		t.Run(image, func(t *testing.T) {
			seed := testenv.Seed(t, int64(i)+1)
			m := &model{world: newWorld(t, image), rng: rand.New(rand.NewPCG(uint64(seed), 3)), nodes: map[uint64]*node{}}
			root := m.make(top, "model", dirMode)
			it := m.inode(root)
			m.nodes[root] = &node{mode: it.Mode, nlink: 1, parent: top, names: map[string]uint64{}, xattrs: map[string]string{}}
			for range testenv.Rounds(600) {
				m.step()
			}
			m.same()
			m.check()
			if os.Getuid() != 0 {
				return
			}
			dir := testenv.Mount(t, m.paths, "ro")
			defer testenv.Umount(t, dir)
			m.mounted(filepath.Join(dir, "model"), root)
		})
	}
}
