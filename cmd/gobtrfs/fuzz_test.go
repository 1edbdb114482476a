package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// recipe makes the items of a hostile subvolume. Each record of the text it reads is a kind, two lengths, a name and a
// value; names may be anything, and may be there twice.
type recipe struct {
	gen       ondisk.Generation
	items     map[ondisk.Key][]byte
	dir, last uint64 // where entries go; the inode made last
	next      uint64
	index     uint64
	dirs      map[uint64]bool
}

// Kinds of a record.
const (
	makeFile = iota
	makeDir
	makeSymlink
	linkLast  // another name of the inode made last
	attribute // of the inode made last
	enterLast // entries go into the inode made last
	goUp      // entries go into the root
	kinds
)

func cook(gen ondisk.Generation, text []byte) map[ondisk.Key][]byte {
	r := &recipe{gen: gen, items: map[ondisk.Key][]byte{}, dir: 256, last: 256, next: 257, index: 2, dirs: map[uint64]bool{256: true}}
	r.inode(256, 0o40755, nil)
	r.items[ondisk.Key{Objectid: 256, Type: ondisk.TypeInodeRef, Offset: 256}] = ondisk.AppendInodeRef(nil, ondisk.InodeRef{Name: []byte("..")})
	for n := 0; len(text) >= 3 && n < 20; n++ {
		kind, a, b := text[0]%kinds, int(text[1])%64, int(text[2])%64
		text = text[3:]
		name := text[:min(a, len(text))]
		text = text[len(name):]
		value := text[:min(b, len(text))]
		text = text[len(value):]
		r.record(kind, name, value)
	}
	return r.items
}

func (r *recipe) record(kind byte, name, value []byte) {
	switch kind {
	case makeFile:
		r.file(0o100644, ondisk.FTFile, name, value)
	case makeDir:
		r.file(0o40755, ondisk.FTDir, name, nil)
		r.dirs[r.last] = true
	case makeSymlink:
		r.file(0o120777, ondisk.FTSymlink, name, value)
	case linkLast:
		r.entry(ondisk.FTFile, name)
	case attribute:
		e := ondisk.DirEntry{Type: ondisk.FTXattr, Name: name, Data: value}
		if len(name) > 0 {
			r.items[ondisk.Key{Objectid: r.last, Type: ondisk.TypeXattrItem, Offset: uint64(checksum.NameHash(name))}] = ondisk.AppendDirEntry(nil, e)
		}
	case enterLast:
		if r.dirs[r.last] {
			r.dir = r.last
		}
	case goUp:
		r.dir = 256
	}
}

func (r *recipe) inode(ino uint64, mode uint32, content []byte) {
	it := ondisk.InodeItem{Generation: r.gen, Transid: r.gen, Size: uint64(len(content)), Nbytes: uint64(len(content)), Nlink: 2, Mode: mode}
	if mode>>12 == 0o4 {
		it.Nlink = 1
	}
	r.items[ondisk.Key{Objectid: ino, Type: ondisk.TypeInodeItem}] = it.Append(nil)
	if len(content) > 0 {
		e := ondisk.FileExtent{Generation: r.gen, RAMBytes: uint64(len(content)), Inline: content}
		r.items[ondisk.Key{Objectid: ino, Type: ondisk.TypeExtentData}] = e.Append(nil)
	}
}

func (r *recipe) file(mode uint32, typ uint8, name, content []byte) {
	r.last = r.next
	r.next++
	r.inode(r.last, mode, content)
	r.entry(typ, name)
}

// entry gives the inode made last a name. The hash finds the first of names that are equal.
func (r *recipe) entry(typ uint8, name []byte) {
	if len(name) == 0 {
		return
	}
	e := ondisk.DirEntry{Location: ondisk.Key{Objectid: r.last, Type: ondisk.TypeInodeItem}, Transid: r.gen, Type: typ, Name: name}
	hash := ondisk.Key{Objectid: r.dir, Type: ondisk.TypeDirItem, Offset: uint64(checksum.NameHash(name))}
	if r.items[hash] == nil {
		r.items[hash] = ondisk.AppendDirEntry(nil, e)
	}
	r.items[ondisk.Key{Objectid: r.dir, Type: ondisk.TypeDirIndex, Offset: r.index}] = ondisk.AppendDirEntry(nil, e)
	ref := ondisk.Key{Objectid: r.last, Type: ondisk.TypeInodeRef, Offset: r.dir}
	r.items[ref] = ondisk.AppendInodeRef(r.items[ref], ondisk.InodeRef{Index: r.index, Name: name})
	r.index++
}

// serve makes items the only leaf of the top-level subvolume in an image.
func serve(t testing.TB, image string, text []byte) {
	d, err := device.OpenFile(image, device.Options{})
	must(t, err)
	v, err := volume.Open(t.Context(), []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	defer v.Close()
	tree, err := v.Tree(t.Context(), ondisk.FSTree)
	must(t, err)
	b := make(ondisk.Block, v.Nodesize())
	must(t, v.IO().Read(t.Context(), tree.Root().Bytenr, 0, b))
	clear(b[ondisk.HeaderSize:])
	items := cook(b.Generation(), text)
	end := ondisk.LeafData(len(b))
	for i, k := range slices.SortedFunc(maps.Keys(items), ondisk.Key.Compare) {
		body := items[k]
		end -= len(body)
		b.SetItemHead(i, k, uint32(end), uint32(len(body)))
		copy(b[ondisk.HeaderSize+end:], body)
	}
	b.SetNrItems(len(items))
	checksum.Sum(v.CsumType(), b[:32], b[32:])
	must(t, v.IO().Write(t.Context(), tree.Root().Bytenr, b))
}

// record writes one record of a recipe.
func record(kind byte, name, value string) []byte {
	return append(append([]byte{kind, byte(len(name)), byte(len(value))}, name...), value...)
}

// outside tells what lies in dir, but not below to.
func outside(t testing.TB, dir, to string) string {
	var all strings.Builder
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == to {
			return cmp.Or(err, fs.SkipDir)
		}
		fi, err := d.Info()
		if err == nil && !strings.HasSuffix(to, filepath.Base(p)) && !d.IsDir() {
			fmt.Fprintln(&all, p, fi.Mode(), fi.Size(), fi.ModTime())
		} else if err == nil {
			fmt.Fprintln(&all, p, fi.Mode())
		}
		return err
	}))
	return all.String()
}

// FuzzRestore copies subvolumes, one over the other, with names, links and attributes of any kind out of a volume: what has a usable name
// arrives, and nothing is written outside of the directory that is copied to.
func FuzzRestore(f *testing.F) {
	last := record(makeFile, "file", "of before")
	for _, records := range [][][]byte{
		{record(makeFile, "file", "contents"), record(linkLast, "link", ""), record(attribute, "user.a", "b"), record(makeSymlink, "s", "file")},
		{record(makeDir, "a", ""), record(enterLast, "", ""), record(makeFile, "file", "evil")},
		{record(makeSymlink, "a", "../../canary"), record(makeDir, "a", ""), record(enterLast, "", ""), record(makeFile, "file", "evil")},
		{record(makeDir, "a", ""), record(enterLast, "", ""), record(makeFile, "file", "evil")},
		{record(makeFile, "a", "evil"), record(attribute, "user.evil", "evil")},
		{record(makeSymlink, "a", "../../canary/file"), record(makeFile, "a", "evil"), record(makeFile, "b", "x"), record(linkLast, "a", "")},
		{record(makeDir, "d", ""), record(enterLast, "", ""), record(makeFile, "../../evil", "evil"), record(makeDir, "..", ""), record(linkLast, "up", "")},
		{record(makeDir, "d", ""), record(enterLast, "", ""), record(linkLast, "loop", ""), record(makeFile, "a/b", "c"), record(goUp, "", ""), record(makeFile, "\x00\n", "")},
		{record(makeDir, "d", ""), record(enterLast, "", ""), record(makeFile, ".", "c"), record(makeFile, "/etc/evil", "c"), record(makeFile, "\\x", "c"), record(makeFile, "\xff", "c")},
	} {
		f.Add(last, bytes.Join(records, nil))
		f.Add(bytes.Join(records, nil), last)
		last = bytes.Join(records, nil)
	}
	dir := testenv.Scratch(f)
	image, to := filepath.Join(dir, "v.img"), filepath.Join(dir, "x", "y")
	must(f, os.MkdirAll(filepath.Join(dir, "canary"), 0o755))
	must(f, os.WriteFile(filepath.Join(dir, "canary", "file"), []byte("sings"), 0o644))
	if code := run(f.Context(), []string{"mkfs", "-q", "--size", "128M", image}); code != 0 {
		f.Fatal("no volume")
	}
	said, err := os.OpenFile(filepath.Join(testenv.Scratch(f), "said"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(f, err)
	f.Cleanup(func() { said.Close() })
	stdout, stderr := os.Stdout, os.Stderr
	f.Cleanup(func() { os.Stdout, os.Stderr = stdout, stderr })
	copyOut := func(t *testing.T, args ...string) {
		before := outside(t, dir, to)
		must(t, said.Truncate(0))
		os.Stdout, os.Stderr = said, said
		code := run(t.Context(), args)
		os.Stdout, os.Stderr = stdout, stderr
		text, err := os.ReadFile(said.Name())
		must(t, err)
		if i := bytes.IndexFunc(text, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }); i >= 0 {
			t.Errorf("%s writes control characters: %q", args[0], text)
		}
		if code != 0 && code != 1 {
			t.Errorf("%s: exit %d", args[0], code)
		}
		if after := outside(t, dir, to); after != before {
			t.Errorf("%s changed what it must not:\n%s\nbefore:\n%s", args[0], after, before)
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		must(t, os.RemoveAll(to))
		must(t, os.MkdirAll(to, 0o755))
		serve(t, image, first)
		copyOut(t, "restore", "-q", "-S", "-m", "-x", image, to)
		arrived(t, to, first)
		serve(t, image, second)
		copyOut(t, "restore", "-q", "-S", "-m", "-x", "-o", image, to) // over what is there, links too
		must(t, os.RemoveAll(to))
		must(t, os.MkdirAll(to, 0o755))
		copyOut(t, "get", "-q", image, "/", to)
		arrived(t, to, second)
	})
}

// arrived looks for the files of the root that have a usable name of their own.
func arrived(t *testing.T, to string, text []byte) {
	items := cook(1, text)
	names := map[string]int{}
	var all []ondisk.DirEntry
	for k, body := range items {
		if es, err := ondisk.DecodeDirEntries(body); err == nil && k.Objectid == 256 && k.Type == ondisk.TypeDirIndex {
			all = append(all, es...)
			names[string(es[0].Name)]++
		}
	}
	for _, e := range all {
		name := string(e.Name)
		if e.Type != ondisk.FTFile || names[name] > 1 || !safeName(name) {
			continue
		}
		mode, err := ondisk.DecodeInodeItem(items[ondisk.Key{Objectid: e.Location.Objectid, Type: ondisk.TypeInodeItem}])
		if err != nil || mode.Mode>>12 != 0o10 {
			continue
		}
		var want []byte
		if b := items[ondisk.Key{Objectid: e.Location.Objectid, Type: ondisk.TypeExtentData}]; b != nil {
			x, err := ondisk.DecodeFileExtent(b)
			must(t, err)
			want = x.Inline
		}
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q has %q (%v), want %q", name, got, err, want)
		}
	}
}
