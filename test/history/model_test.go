// Package history holds the random-history test: thousands of random operations
// over many subvolumes and snapshots, by gobtrfs and by the kernel in turn,
// against a model in memory.
package history

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"sort"
)

// file is an inode of the model.
type file struct {
	kind    byte // 'f', 'd', 'l'
	mode    uint32
	data    []byte
	target  string
	xattrs  map[string]string
	entries map[string]*file // of directories
}

func (f *file) clone(seen map[*file]*file) *file {
	if c, ok := seen[f]; ok {
		return c
	}
	c := &file{kind: f.kind, mode: f.mode, data: bytes.Clone(f.data), target: f.target, xattrs: map[string]string{}}
	seen[f] = c
	for k, v := range f.xattrs {
		c.xattrs[k] = v
	}
	if f.entries != nil {
		c.entries = map[string]*file{}
		for k, v := range f.entries {
			c.entries[k] = v.clone(seen)
		}
	}
	return c
}

func newDir() *file {
	return &file{kind: 'd', mode: 0o755, xattrs: map[string]string{}, entries: map[string]*file{}}
}

// subvolume is a subvolume of the model.
type subvolume struct {
	root     *file
	readonly bool
}

// world is the model of a volume: subvolumes in its top directory.
type world struct {
	subs map[string]*subvolume
	next int
}

func (w *world) names(writable bool) []string {
	var out []string
	for n, s := range w.subs {
		if !writable || !s.readonly {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

func (w *world) newName() string {
	w.next++
	return fmt.Sprintf("sub%03d", w.next)
}

// target is what can do the operations: gobtrfs or the kernel. Paths begin with
// the name of the subvolume.
type target interface {
	create(p string) error
	write(p string, off int64, data []byte) error
	truncate(p string, size int64) error
	punch(p string, off, n int64) error
	clone(p string, off int64, src string, srcOff, n int64) error
	mkdir(p string) error
	remove(p string) error
	rename(a, b string) error
	link(a, b string) error
	symlink(target, p string) error
	chmod(p string, mode uint32) error
	setxattr(p, name, value string) error
	subvolume(name string) error
	snapshot(src, name string, readonly bool) error
	drop(names []string) error
}

// player makes random operations and does them to the model and a target.
type player struct {
	w   *world
	t   target
	rnd *rand.Rand
	log []string
}

// spot is a place in a tree of the model.
type spot struct {
	dir  *file
	name string
	path string
	f    *file
}

// spots lists everything below a subvolume in a fixed order.
func spots(sub string, root *file) []spot {
	var out []spot
	var walk func(dir *file, p string)
	walk = func(dir *file, p string) {
		names := make([]string, 0, len(dir.entries))
		for n := range dir.entries {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			f := dir.entries[n]
			out = append(out, spot{dir, n, path.Join(p, n), f})
			if f.kind == 'd' {
				walk(f, path.Join(p, n))
			}
		}
	}
	walk(root, sub)
	return out
}

func (p *player) pick(list []spot, kinds string) (spot, bool) {
	var ok []spot
	for _, s := range list {
		if bytes.IndexByte([]byte(kinds), s.f.kind) >= 0 {
			ok = append(ok, s)
		}
	}
	if len(ok) == 0 {
		return spot{}, false
	}
	return ok[p.rnd.IntN(len(ok))], true
}

// dir picks a directory, the root among them.
func (p *player) dir(sub string, root *file, list []spot) (string, *file) {
	if s, ok := p.pick(list, "d"); ok && p.rnd.IntN(3) > 0 {
		return s.path, s.f
	}
	return sub, root
}

func (p *player) bytes(n int) []byte {
	b := make([]byte, n)
	if p.rnd.IntN(3) == 0 { // compressible
		copy(b, bytes.Repeat([]byte(fmt.Sprintf("%x ", p.rnd.Uint32())), n/4+1))
		return b
	}
	for i := range b {
		b[i] = byte(p.rnd.Uint32())
	}
	return b
}

func (p *player) size() int {
	switch p.rnd.IntN(6) {
	case 0:
		return p.rnd.IntN(64)
	case 1, 2:
		return p.rnd.IntN(5000)
	case 3, 4:
		return p.rnd.IntN(40000)
	}
	return p.rnd.IntN(300000)
}

// step does one operation. What the model says cannot be done is not tried.
func (p *player) step() error {
	subs := p.w.names(true)
	if len(subs) == 0 {
		return p.newSubvolume()
	}
	sub := subs[p.rnd.IntN(len(subs))]
	root := p.w.subs[sub].root
	list := spots(sub, root)
	switch k := p.rnd.IntN(100); {
	case k < 2:
		return p.newSubvolume()
	case k < 7:
		return p.snapshot()
	case k < 10:
		return p.drop()
	case k < 30 || len(list) < 5:
		return p.make(sub, root, list)
	case k < 60:
		return p.change(list)
	case k < 70:
		return p.rename(sub, root, list)
	case k < 76:
		return p.link(sub, root, list)
	case k < 90:
		return p.remove(list)
	}
	return p.attributes(list)
}

func (p *player) note(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

func (p *player) newSubvolume() error {
	if len(p.w.subs) > 24 {
		return nil
	}
	name := p.w.newName()
	p.note("subvolume %s", name)
	p.w.subs[name] = &subvolume{root: newDir()}
	return p.t.subvolume(name)
}

func (p *player) snapshot() error {
	all := p.w.names(false)
	if len(all) > 24 {
		return p.drop()
	}
	src, name, ro := all[p.rnd.IntN(len(all))], p.w.newName(), p.rnd.IntN(2) == 0
	p.note("snapshot %s %s readonly=%v", src, name, ro)
	p.w.subs[name] = &subvolume{root: p.w.subs[src].root.clone(map[*file]*file{}), readonly: ro}
	return p.t.snapshot(src, name, ro)
}

func (p *player) drop() error {
	all := p.w.names(false)
	if len(all) < 4 {
		return nil
	}
	p.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	names := all[:1+p.rnd.IntN(len(all)/2)]
	p.note("drop %v", names)
	for _, n := range names {
		delete(p.w.subs, n)
	}
	return p.t.drop(names)
}

func (p *player) make(sub string, root *file, list []spot) error {
	at, dir := p.dir(sub, root, list)
	name := fmt.Sprintf("n%d", p.rnd.IntN(60))
	if p.rnd.IntN(20) == 0 {
		name = fmt.Sprintf("%0200d", p.rnd.IntN(60))
	}
	if dir.entries[name] != nil {
		return nil
	}
	full := path.Join(at, name)
	switch p.rnd.IntN(8) {
	case 0, 1:
		p.note("mkdir %s", full)
		dir.entries[name] = newDir()
		return p.t.mkdir(full)
	case 2:
		target := fmt.Sprintf("../x/%d", p.rnd.IntN(1000))
		p.note("symlink %s", full)
		dir.entries[name] = &file{kind: 'l', mode: 0o777, target: target, xattrs: map[string]string{}}
		return p.t.symlink(target, full)
	}
	f := &file{kind: 'f', mode: 0o644, xattrs: map[string]string{}}
	dir.entries[name] = f
	p.note("create %s", full)
	if err := p.t.create(full); err != nil {
		return err
	}
	return p.write(full, f)
}

func (f *file) writeAt(off int64, data []byte) {
	if need := off + int64(len(data)); need > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, need-int64(len(f.data)))...)
	}
	copy(f.data[off:], data)
}

func (p *player) write(full string, f *file) error {
	off := int64(0)
	if len(f.data) > 0 {
		off = p.rnd.Int64N(int64(len(f.data)) + 1)
	}
	if p.rnd.IntN(10) == 0 {
		off += p.rnd.Int64N(100000)
	}
	data := p.bytes(1 + p.size())
	p.note("write %s off=%d n=%d", full, off, len(data))
	f.writeAt(off, data)
	return p.t.write(full, off, data)
}

func (p *player) change(list []spot) error {
	s, ok := p.pick(list, "f")
	if !ok {
		return nil
	}
	switch p.rnd.IntN(8) {
	case 0:
		size := p.rnd.Int64N(int64(len(s.f.data)) + 50000)
		p.note("truncate %s %d", s.path, size)
		if size < int64(len(s.f.data)) {
			s.f.data = s.f.data[:size:size]
		} else {
			s.f.data = append(s.f.data, make([]byte, size-int64(len(s.f.data)))...)
		}
		return p.t.truncate(s.path, size)
	case 1:
		if len(s.f.data) == 0 {
			return nil
		}
		off := p.rnd.Int64N(int64(len(s.f.data)))
		n := 1 + p.rnd.Int64N(60000)
		p.note("punch %s off=%d n=%d", s.path, off, n)
		clear(s.f.data[off:min(off+n, int64(len(s.f.data)))])
		return p.t.punch(s.path, off, n)
	case 2:
		return p.clone(s, list)
	}
	return p.write(s.path, s.f)
}

// clone reflinks whole sectors of another file of the same subvolume.
func (p *player) clone(s spot, list []spot) error {
	src, ok := p.pick(list, "f")
	sectors := int64(len(src.f.data)) / 4096
	if !ok || src.f == s.f || sectors < 1 {
		return nil
	}
	from := p.rnd.Int64N(sectors)
	n := 1 + p.rnd.Int64N(sectors-from)
	to := p.rnd.Int64N(int64(len(s.f.data))/4096 + 1)
	p.note("clone %s off=%d from %s off=%d n=%d", s.path, to*4096, src.path, from*4096, n*4096)
	s.f.writeAt(to*4096, bytes.Clone(src.f.data[from*4096:(from+n)*4096]))
	return p.t.clone(s.path, to*4096, src.path, from*4096, n*4096)
}

func (p *player) rename(sub string, root *file, list []spot) error {
	s, ok := p.pick(list, "fdl")
	if !ok {
		return nil
	}
	at, dir := p.dir(sub, root, list)
	name := fmt.Sprintf("n%d", p.rnd.IntN(60))
	if s.f.kind == 'd' && holds(s.f, dir) {
		return nil
	}
	old := dir.entries[name]
	if old == s.f && old != nil {
		return nil // two names of one file: nothing happens
	}
	if old != nil && (old.kind == 'd') != (s.f.kind == 'd') || old != nil && old.kind == 'd' && len(old.entries) > 0 {
		return nil
	}
	full := path.Join(at, name)
	p.note("rename %s %s", s.path, full)
	delete(s.dir.entries, s.name)
	dir.entries[name] = s.f
	return p.t.rename(s.path, full)
}

// holds tells whether directory in is dir or lies below it.
func holds(dir, in *file) bool {
	if dir == in {
		return true
	}
	for _, f := range dir.entries {
		if f.kind == 'd' && holds(f, in) {
			return true
		}
	}
	return false
}

func (p *player) link(sub string, root *file, list []spot) error {
	s, ok := p.pick(list, "f")
	if !ok {
		return nil
	}
	at, dir := p.dir(sub, root, list)
	name := fmt.Sprintf("h%d", p.rnd.IntN(60))
	if dir.entries[name] != nil {
		return nil
	}
	full := path.Join(at, name)
	p.note("link %s %s", s.path, full)
	dir.entries[name] = s.f
	return p.t.link(s.path, full)
}

func (p *player) remove(list []spot) error {
	s, ok := p.pick(list, "fdl")
	if !ok || s.f.kind == 'd' && len(s.f.entries) > 0 {
		return nil
	}
	p.note("remove %s", s.path)
	delete(s.dir.entries, s.name)
	return p.t.remove(s.path)
}

func (p *player) attributes(list []spot) error {
	s, ok := p.pick(list, "fd")
	if !ok {
		return nil
	}
	if p.rnd.IntN(2) == 0 {
		mode := uint32(0o600 | p.rnd.IntN(0o200))
		p.note("chmod %s %o", s.path, mode)
		s.f.mode = mode
		return p.t.chmod(s.path, mode)
	}
	name, value := fmt.Sprintf("user.x%d", p.rnd.IntN(4)), string(bytes.Repeat([]byte{'a' + byte(p.rnd.IntN(20))}, p.rnd.IntN(300)))
	p.note("setxattr %s %s %d", s.path, name, len(value))
	s.f.xattrs[name] = value
	return p.t.setxattr(s.path, name, value)
}
