package filedata_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// special are volumes of the corpus that do not read like the others.
var special = map[string]string{
	"exp-raid-stripe-tree": "features that are refused",
	"exp-remap-tree":       "features that are refused",
	"old-roots":            "the newest roots are lost; package volume tests it",
	"sprout":               "the manifest tells of the seed alone",
	"bad-meta-both":        "a part of a tree is lost; TestLostMetadata",
}

func openVolume(t testing.TB, paths []string, opt volume.Options) *volume.Volume {
	t.Helper()
	var devs []device.Device
	for _, p := range paths {
		d, err := device.OpenFile(p, device.Options{ReadOnly: opt.ReadOnly})
		if err != nil {
			t.Fatal(err)
		}
		devs = append(devs, d)
	}
	opt.SuperCopy, opt.BackupRoot = -1, -1
	v, err := volume.Open(context.Background(), devs, opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCorpus compares every path of every volume with what the kernel showed.
func TestCorpus(t *testing.T) {
	for _, name := range testenv.Names(t) {
		if special[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := openVolume(t, testenv.ReadImages(t, name), volume.Options{ReadOnly: true})
			defer v.Close()
			w := &corpusWalk{t: t, v: v, m: testenv.ReadManifest(t, name, "")}
			w.all()
		})
	}
}

type corpusWalk struct {
	t     *testing.T
	v     *volume.Volume
	m     *testenv.Manifest
	trees map[ondisk.TreeID]*btree.Tree
}

func (w *corpusWalk) tree(id ondisk.TreeID) *btree.Tree {
	if t := w.trees[id]; t != nil {
		return t
	}
	t, err := w.v.Tree(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.trees == nil {
		w.trees = map[ondisk.TreeID]*btree.Tree{}
	}
	w.trees[id] = t
	return t
}

func (w *corpusWalk) all() {
	listed := map[string]int{}
	for _, e := range w.m.Entries {
		if e.Error != nil {
			continue
		}
		path := unbase(e.Path, e.PathB64)
		err := w.entry(e, path)
		if err != nil {
			w.t.Errorf("subvolume %d, %q: %v", e.Subvol, path, err)
		}
		if path != "/" {
			listed[fmt.Sprint(e.Subvol, ":", path[:strings.LastIndexByte(path, '/')+1])]++
		}
	}
	w.directories(listed)
	w.subvolumes()
}

// subvolumes compares the root items; where subvolumes lie is test/compat's TestSubvolumes.
func (w *corpusWalk) subvolumes() {
	if w.m.FromTwin != nil {
		return
	}
	for _, s := range w.m.Subvolumes {
		_, item, err := roots.Find(context.Background(), w.v.RootTree(), ondisk.TreeID(s.ID))
		if err != nil {
			w.t.Errorf("subvolume %d: %v", s.ID, err)
			continue
		}
		got := []string{fmt.Sprint(item.Flags&ondisk.RootFlagReadonly != 0), id(item.UUID), id(item.ParentUUID)}
		want := []string{fmt.Sprint(s.ReadOnly), s.UUID, s.ParentUUID}
		number := func(g ondisk.Generation, w *uint64) {
			if w != nil {
				got, want = append(got, fmt.Sprint(g)), append(want, fmt.Sprint(*w))
			}
		}
		number(item.Generation, s.Generation)
		number(item.Ctransid, s.Ctransid)
		number(item.Otransid, s.Otransid)
		number(item.Stransid, s.Stransid)
		number(item.Rtransid, s.Rtransid)
		if s.ReceivedUUID != nil && s.Otime != nil {
			got, want = append(got, id(item.ReceivedUUID), stamp(item.Otime)), append(want, *s.ReceivedUUID, *s.Otime)
		}
		if !slices.Equal(got, want) {
			w.t.Errorf("subvolume %d is %v, want %v", s.ID, got, want)
		}
	}
}

func id(u ondisk.UUID) string {
	if u.IsZero() {
		return ""
	}
	return u.String()
}

func unbase(plain, b64 string) string {
	if b64 != "" {
		b, _ := base64.StdEncoding.DecodeString(b64)
		return string(b)
	}
	return plain
}

// directories checks that ReadDir lists as many names as the manifest has.
func (w *corpusWalk) directories(listed map[string]int) {
	for _, e := range w.m.Entries {
		if e.Type != "dir" || e.Stub || e.Error != nil {
			continue
		}
		path := unbase(e.Path, e.PathB64)
		got, last := 0, uint64(0)
		err := fstree.ReadDir(context.Background(), w.tree(ondisk.TreeID(e.Subvol)), e.Ino, 0, func(x fstree.Entry) error {
			if got > 0 && x.Index <= last {
				return fmt.Errorf("index %d after %d", x.Index, last)
			}
			if !x.IsSubvolume() || w.isStub(e, path, x) {
				got++
			}
			last = x.Index
			return nil
		})
		want := listed[fmt.Sprint(e.Subvol, ":", strings.TrimSuffix(path, "/")+"/")]
		if err != nil || got != want {
			w.t.Errorf("subvolume %d, %q: %d names, want %d: %v", e.Subvol, path, got, want, err)
		}
	}
}

// isStub tells whether the manifest lists an entry of a subvolume as a path of
// the directory that it lies in.
func (w *corpusWalk) isStub(dir testenv.ManifestEntry, path string, x fstree.Entry) bool {
	want := strings.TrimSuffix(path, "/") + "/" + string(x.Name)
	return slices.ContainsFunc(w.m.Entries, func(e testenv.ManifestEntry) bool {
		return e.Subvol == dir.Subvol && e.Stub && unbase(e.Path, e.PathB64) == want
	})
}

func (w *corpusWalk) entry(e testenv.ManifestEntry, path string) error {
	t := w.tree(ondisk.TreeID(e.Subvol))
	ino, err := resolve(t, path, e.Stub)
	if err != nil || e.Stub {
		return err
	}
	it, err := fstree.ReadInode(context.Background(), t, ino)
	if err != nil {
		return err
	}
	return errors.Join(w.attributes(e, ino, it), w.names(t, e, ino, path), w.xattrs(t, e, ino), w.contents(t, e, ino))
}

func resolve(t *btree.Tree, path string, stub bool) (uint64, error) {
	ino := uint64(fstree.RootIno)
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, name := range parts {
		if name == "" {
			continue
		}
		e, err := fstree.Lookup(context.Background(), t, ino, []byte(name))
		if err != nil {
			return 0, err
		}
		if e.IsSubvolume() && !(stub && i == len(parts)-1) {
			return 0, fmt.Errorf("%q is a subvolume", name)
		}
		ino = e.Location.Objectid
	}
	return ino, nil
}

func stamp(s ondisk.Timespec) string { return fmt.Sprintf("%d.%09d", s.Sec, s.Nsec) }

var typeNames = map[uint32]string{
	fstree.ModeFile: "file", fstree.ModeDir: "dir", fstree.ModeSymlink: "symlink", fstree.ModeChar: "char",
	fstree.ModeBlock: "block", fstree.ModeFifo: "fifo", fstree.ModeSocket: "socket",
}

func (w *corpusWalk) attributes(e testenv.ManifestEntry, ino uint64, it ondisk.InodeItem) error {
	var bad []error
	same := func(what, got, want string) {
		if got != want && want != "" {
			bad = append(bad, fmt.Errorf("%s is %s, want %s", what, got, want))
		}
	}
	same("type", typeNames[it.Mode&fstree.ModeType], e.Type)
	same("mode", fmt.Sprintf("%04o", it.Mode&0o7777), e.Mode)
	same("uid", fmt.Sprint(it.UID), fmt.Sprint(e.UID))
	same("gid", fmt.Sprint(it.GID), fmt.Sprint(e.GID))
	same("size", fmt.Sprint(it.Size), fmt.Sprint(e.Size))
	same("nlink", fmt.Sprint(it.Nlink), fmt.Sprint(e.Nlink))
	if w.m.FromTwin == nil {
		same("ino", fmt.Sprint(ino), fmt.Sprint(e.Ino))
		same("mtime", stamp(it.Mtime), e.Mtime)
		same("ctime", stamp(it.Ctime), e.Ctime)
		same("btime", stamp(it.Otime), e.Btime)
		if e.Type == "file" {
			same("blocks", fmt.Sprint((it.Nbytes+4095)/4096*8), fmt.Sprint(e.Blocks))
		}
	}
	if (e.Type == "file" || e.Type == "dir") && e.XattrError == nil { // lsattr asks no others
		same("flags", shown(it.Flags), flagsOf(e))
	}
	if e.Rdev != "" {
		same("rdev", fmt.Sprintf("%d:%d", it.Rdev>>20, it.Rdev&(1<<20-1)), e.Rdev)
	}
	return errors.Join(bad...)
}

// shown gives the flags of an inode as lsattr shows them.
func shown(flags uint64) string {
	var f uint32
	for _, x := range []struct {
		inode uint64
		shown uint32
	}{
		{ondisk.InodeSync, 0x8}, {ondisk.InodeImmutable, 0x10}, {ondisk.InodeAppend, 0x20}, {ondisk.InodeNodump, 0x40}, {ondisk.InodeNoatime, 0x80},
		{ondisk.InodeDirsync, 0x10000}, {ondisk.InodeNodatacow, 0x800000},
	} {
		if flags&x.inode != 0 {
			f |= x.shown
		}
	}
	switch {
	case flags&ondisk.InodeNocompress != 0:
		f |= 0x400
	case flags&ondisk.InodeCompress != 0:
		f |= 0x4
	}
	return fmt.Sprintf("%#x", f)
}

// flagsOf gives the flags of a manifest, in which none are left out.
func flagsOf(e testenv.ManifestEntry) string {
	if e.Flags == nil {
		return "0x0"
	}
	return strings.Trim(string(e.Flags), `"`)
}

// names checks that the inode knows the name it was found by.
func (w *corpusWalk) names(t *btree.Tree, e testenv.ManifestEntry, ino uint64, path string) error {
	links, err := fstree.Links(context.Background(), t, ino)
	if err != nil {
		return err
	}
	if len(links) != int(e.Nlink) {
		return fmt.Errorf("%d names, want %d", len(links), e.Nlink)
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	if path == "/" {
		name = ".."
	}
	if !slices.ContainsFunc(links, func(l fstree.Link) bool { return string(l.Name) == name }) {
		return fmt.Errorf("the inode does not know its name %q", name)
	}
	return nil
}

func (w *corpusWalk) xattrs(t *btree.Tree, e testenv.ManifestEntry, ino uint64) error {
	ctx, got := context.Background(), 0
	err := fstree.ListXattr(ctx, t, ino, func(name string, value []byte) error {
		got++
		shown := name
		if !utf8.ValidString(name) {
			shown = "base64:" + base64.StdEncoding.EncodeToString([]byte(name))
		}
		want, err := base64.StdEncoding.DecodeString(e.Xattrs[shown])
		if _, ok := e.Xattrs[shown]; !ok || err != nil || !bytes.Equal(value, want) {
			return fmt.Errorf("attribute %q is %q, want %q", name, value, want)
		}
		one, err := fstree.Xattr(ctx, t, ino, name)
		if err != nil || !bytes.Equal(one, value) {
			return fmt.Errorf("attribute %q alone is %q: %v", name, one, err)
		}
		return nil
	})
	if err == nil && got != len(e.Xattrs) {
		err = fmt.Errorf("%d attributes, want %d", got, len(e.Xattrs))
	}
	return err
}

func (w *corpusWalk) contents(t *btree.Tree, e testenv.ManifestEntry, ino uint64) error {
	ctx := context.Background()
	switch {
	case e.Target != nil || e.TargetB64 != "":
		want := ""
		if e.Target != nil {
			want = *e.Target
		}
		got, err := fstree.Readlink(ctx, t, ino)
		if want = unbase(want, e.TargetB64); err != nil || string(got) != want {
			return fmt.Errorf("target %q, want %q: %v", got, want, err)
		}
		return nil
	case e.Type != "file":
		return nil
	}
	r, err := filedata.NewReader(ctx, w.v, t, w.tree(ondisk.CsumTree), ino)
	if err != nil {
		return err
	}
	if e.ReadError != nil {
		return damaged(r, e)
	}
	return errors.Join(ranges(r, e, w.m.FromTwin != nil), bytesOf(r, e))
}

// damaged checks that bad data are refused, and nothing but those.
func damaged(r *filedata.Reader, e testenv.ManifestEntry) error {
	var re *filedata.ReadError
	if _, err := r.WriteTo(context.Background(), io.Discard); !errors.As(err, &re) {
		return fmt.Errorf("bad data were read: %v", err)
	}
	var bad []int64
	for off := int64(0); off < e.Size; off += 4096 {
		if _, err := r.ReadAt(context.Background(), make([]byte, min(4096, e.Size-off)), off); err != nil && err != io.EOF {
			bad = append(bad, off)
		}
	}
	if !slices.Equal(bad, e.BadBlocks) {
		return fmt.Errorf("blocks at %v are bad, want %v", bad, e.BadBlocks)
	}
	return nil
}

func ranges(r *filedata.Reader, e testenv.ManifestEntry, twin bool) error {
	if e.Path == "/prealloc-clone" {
		return nil // the kernel had cached pages of space that was only reserved
	}
	if twin {
		return nil // where holes are is up to who wrote the file
	}
	want := e.Data
	if want == nil && e.Size > 0 {
		want = [][2]int64{{0, e.Size}}
	}
	var got [][2]int64
	err := r.DataRanges(context.Background(), 0, ^uint64(0), func(start, end uint64) error {
		got = append(got, [2]int64{int64(start), int64(end)})
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		return fmt.Errorf("data at %v, want %v: %v", got, want, err)
	}
	return nil
}

func bytesOf(r *filedata.Reader, e testenv.ManifestEntry) error {
	ctx, h := context.Background(), sha256.New()
	if e.SHA256 != "" {
		if _, err := r.WriteTo(ctx, h); err != nil {
			return err
		}
		if err := sameSum(h, e.SHA256); err != nil {
			return err
		}
		return inSteps(r, e)
	}
	for _, d := range e.Data {
		b := make([]byte, d[1]-d[0])
		if n, err := r.ReadAt(ctx, b, d[0]); n != len(b) || err != nil && err != io.EOF {
			return fmt.Errorf("%d bytes at %d: %v", n, d[0], err)
		}
		h.Write(b)
	}
	return sameSum(h, e.SHA256OfData)
}

func sameSum(h hash.Hash, want string) error {
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("sha256 %s, want %s", got, want)
	}
	return nil
}

// inSteps reads small files again in steps that fit nothing.
func inSteps(r *filedata.Reader, e testenv.ManifestEntry) error {
	if e.Size > 1<<20 {
		return nil
	}
	h, b := sha256.New(), make([]byte, 9973)
	for off := int64(0); ; {
		n, err := r.ReadAt(context.Background(), b, off)
		h.Write(b[:n])
		if off += int64(n); err == io.EOF {
			break
		}
		if err != nil {
			return errors.New("in steps: " + strconv.FormatInt(off, 10) + ": " + err.Error())
		}
	}
	return sameSum(h, e.SHA256)
}
