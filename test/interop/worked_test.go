package interop

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// refBook tells of every extent the flags and references, as the extent tree has
// them: "2: EDR256, SDR 30511104" (and FULL where that flag is set).
type refBook map[ondisk.Bytenr]string

// state is what the worked example looks at.
type state struct {
	v    *volume.Volume
	refs refBook
	used uint64
}

func look(t *testing.T, image string, fn func(s state)) {
	t.Helper()
	d, err := device.OpenFile(image, device.Options{ReadOnly: true})
	must(t, err)
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	defer v.Close()
	fn(state{v: v, refs: readRefs(t, v), used: v.Super().BytesUsed})
}

// readRefs reads the whole extent tree. Only inline references occur in so small
// a volume.
func readRefs(t *testing.T, v *volume.Volume) refBook {
	t.Helper()
	tree, err := v.Tree(ctx, ondisk.ExtentTree)
	must(t, err)
	book := refBook{}
	c, err := tree.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		k := c.Key()
		switch k.Type {
		case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
			e, err := ondisk.DecodeExtent(k, c.Data())
			must(t, err)
			book[ondisk.Bytenr(k.Objectid)] = refText(e)
		case ondisk.TypeBlockGroupItem:
		default:
			t.Fatalf("unexpected item %v in the extent tree", k)
		}
	}
	must(t, err)
	return book
}

func refText(e ondisk.Extent) string {
	var parts []string
	for _, r := range e.Refs {
		s := ""
		switch r.Type {
		case ondisk.TypeTreeBlockRef:
			s = fmt.Sprintf("TBR%d", r.Root)
		case ondisk.TypeSharedBlockRef:
			s = fmt.Sprintf("SBR %d", r.Parent)
		case ondisk.TypeSharedDataRef:
			s = fmt.Sprintf("SDR %d", r.Parent)
		case ondisk.TypeExtentDataRef:
			s = fmt.Sprintf("EDR%d", r.Root)
		}
		if r.Count > 1 {
			s += fmt.Sprintf(" x%d", r.Count)
		}
		parts = append(parts, s)
	}
	slices.Sort(parts)
	if e.Flags&ondisk.ExtentFlagFullBackref != 0 {
		parts = append(parts, "FULL")
	}
	return fmt.Sprintf("%d: %s", e.ExtentItem.Refs, strings.Join(parts, ", "))
}

// shape is one subvolume's tree of two levels.
type shape struct {
	root   ondisk.Bytenr
	leaves []ondisk.Bytenr
	owner  map[ondisk.Bytenr]ondisk.TreeID
	inode  map[uint64]ondisk.Bytenr   // the leaf that holds its INODE_ITEM
	data   map[ondisk.Bytenr][]uint64 // leaf: data extents that it refers to
}

func (s state) tree(t *testing.T, id ondisk.TreeID) shape {
	t.Helper()
	tree, err := s.v.Tree(ctx, id)
	must(t, err)
	p := tree.Promise()
	sh := shape{root: p.Bytenr, owner: map[ondisk.Bytenr]ondisk.TreeID{}, inode: map[uint64]ondisk.Bytenr{}, data: map[ondisk.Bytenr][]uint64{}}
	root, err := s.v.Store().Read(ctx, p)
	must(t, err)
	if root.Level() != 1 {
		t.Fatalf("tree %d has level %d", id, root.Level())
	}
	for i := range root.Data().NrItems() {
		at, gen := root.Data().Ptr(i)
		leaf, err := s.v.Store().Read(ctx, treeblock.Promise{Bytenr: at, Generation: gen, Level: 0})
		must(t, err)
		sh.leaves = append(sh.leaves, at)
		sh.owner[at] = leaf.Owner()
		for j := range leaf.Data().NrItems() {
			switch k := leaf.Data().Key(j); k.Type {
			case ondisk.TypeInodeItem:
				sh.inode[k.Objectid] = at
			case ondisk.TypeExtentData:
				e, err := ondisk.DecodeFileExtent(leaf.Data().Item(j))
				must(t, err)
				if e.Type == ondisk.ExtentReg && e.DiskBytenr != 0 {
					sh.data[at] = append(sh.data[at], uint64(e.DiskBytenr))
				}
			}
		}
	}
	return sh
}

// want fails unless the references of all extents named are as told.
func (s state) want(t *testing.T, step, what, refs string, at ...ondisk.Bytenr) {
	t.Helper()
	for _, a := range at {
		if got := s.refs[a]; got != refs {
			t.Errorf("%s: %s %d has %q, want %q", step, what, a, got, refs)
		}
	}
}

func extents(list []uint64) (out []ondisk.Bytenr) {
	for _, a := range list {
		out = append(out, ondisk.Bytenr(a))
	}
	return out
}

func fileOf(n int) string { return fmt.Sprintf("f%02d", n) }

// TestWorkedExample replays the worked example of the reference rules: two
// subvolumes with 20 files, changed and dropped one after the other. X is the leaf
// that A changes (case 3: the owner moves away), Y the one that B changes (case 4).
func TestWorkedExample(t *testing.T) {
	image := fresh(t, 256<<20, btrfs.MakeOptions{Nodesize: 4096})
	do := func(fn func(v *btrfs.Volume)) { t.Helper(); with(t, image, btrfs.Options{}, fn) }
	var begin uint64
	look(t, image, func(s state) { begin = s.used })

	do(func(v *btrfs.Volume) {
		a, err := v.CreateSubvolume(ctx, "/A")
		must(t, err)
		for i := range 20 {
			must(t, a.WriteFile(fileOf(i), []byte(strings.Repeat(fileOf(i), 8192/3+1))[:8192], 0o644))
		}
	})
	var x, y ondisk.Bytenr
	var d1, d2, rest []ondisk.Bytenr // data of X, of Y; leaves that nobody changes
	look(t, image, func(s state) {
		a := s.tree(t, 256)
		x, y = a.inode[261], a.inode[274]
		if x == y {
			t.Fatalf("inodes 261 and 274 lie in one leaf")
		}
		d1, d2 = extents(a.data[x]), extents(a.data[y])
		for _, l := range a.leaves {
			if l != x && l != y {
				rest = append(rest, l)
			}
		}
		if len(d1) == 0 || len(d2) == 0 || len(rest) == 0 {
			t.Fatalf("X holds %d extents, Y %d, %d other leaves", len(d1), len(d2), len(rest))
		}
		s.want(t, "created", "block", "1: TBR256", append([]ondisk.Bytenr{a.root}, a.leaves...)...)
		s.want(t, "created", "data", "1: EDR256", append(slices.Clone(d1), d2...)...)
	})

	do(func(v *btrfs.Volume) { _, err := v.Snapshot(ctx, "/A", "/B", false); must(t, err) })
	look(t, image, func(s state) {
		a, b := s.tree(t, 256), s.tree(t, 257)
		s.want(t, "snapshot", "root", "1: TBR256", a.root)
		s.want(t, "snapshot", "root", "1: TBR257", b.root)
		s.want(t, "snapshot", "leaf", "2: TBR256, TBR257", a.leaves...)
		s.want(t, "snapshot", "data", "1: EDR256", append(slices.Clone(d1), d2...)...)
		if !slices.Equal(a.leaves, b.leaves) {
			t.Errorf("snapshot: leaves %v and %v", a.leaves, b.leaves)
		}
	})

	chmod := func(sub string, ino int) {
		do(func(v *btrfs.Volume) {
			must(t, v.Top().Chmod(sub+"/"+fileOf(ino-257), fs.FileMode(0o600)))
		})
	}
	sdrX := fmt.Sprintf("SDR %d", x)
	chmod("A", 261)
	look(t, image, func(s state) {
		a := s.tree(t, 256)
		s.want(t, "change in A", "X", "1: TBR257, FULL", x)
		s.want(t, "change in A", "X'", "1: TBR256", a.inode[261])
		s.want(t, "change in A", "Y and others", "2: TBR256, TBR257", append([]ondisk.Bytenr{y}, rest...)...)
		s.want(t, "change in A", "data of X", "2: EDR256, "+sdrX, d1...)
		s.want(t, "change in A", "data of Y", "1: EDR256", d2...)
		if b := s.tree(t, 257); b.owner[x] != 256 || a.owner[a.inode[261]] != 256 {
			t.Errorf("change in A: X is owned by %d, X' by %d", b.owner[x], a.owner[a.inode[261]])
		}
	})
	chmod("B", 274)
	var xNew, yNew ondisk.Bytenr
	look(t, image, func(s state) {
		xNew, yNew = s.tree(t, 256).inode[261], s.tree(t, 257).inode[274]
		s.want(t, "change in B", "X", "1: TBR257, FULL", x)
		s.want(t, "change in B", "Y", "1: TBR256", y)
		s.want(t, "change in B", "Y'", "1: TBR257", yNew)
		s.want(t, "change in B", "others", "2: TBR256, TBR257", rest...)
		s.want(t, "change in B", "data of X", "2: EDR256, "+sdrX, d1...)
		s.want(t, "change in B", "data of Y", "2: EDR256, EDR257", d2...)
		if b := s.tree(t, 257); b.owner[yNew] != 257 {
			t.Errorf("change in B: Y' is owned by %d", b.owner[yNew])
		}
	})
	judge(t, image)
	other := filepath.Join(filepath.Dir(image), "other.img")
	must(t, testenv.CopySparse(image, other))

	do(func(v *btrfs.Volume) { must(t, v.DeleteSubvolumes(ctx, []string{"/A"})) })
	look(t, image, func(s state) {
		s.want(t, "A unlinked", "others", "2: TBR256, TBR257", rest...)
		s.want(t, "A unlinked", "data of X", "2: EDR256, "+sdrX, d1...)
	})
	drop := func() { do(func(v *btrfs.Volume) { _, err := v.Drop(ctx, btrfs.DropOptions{}); must(t, err) }) }
	drop()
	look(t, image, func(s state) {
		s.want(t, "A dropped", "X and others", "1: TBR257, FULL", append([]ondisk.Bytenr{x}, rest...)...)
		s.want(t, "A dropped", "data of X", "1: "+sdrX, d1...)
		s.want(t, "A dropped", "data of Y", "1: EDR257", d2...)
		s.want(t, "A dropped", "Y'", "1: TBR257", yNew)
		s.want(t, "A dropped", "freed", "", xNew, y)
	})
	judge(t, image)

	do(func(v *btrfs.Volume) { must(t, v.DeleteSubvolumes(ctx, []string{"/B"})) })
	drop()
	look(t, image, func(s state) {
		s.want(t, "B dropped", "freed", "", slices.Concat(rest, d1, d2, []ondisk.Bytenr{x, y, xNew, yNew})...)
		if s.used != begin {
			t.Errorf("in the end %d bytes are used, %d before", s.used, begin)
		}
	})
	judge(t, image)

	image = other // from before A went: B goes first
	do(func(v *btrfs.Volume) { must(t, v.DeleteSubvolumes(ctx, []string{"/B"})) })
	drop()
	look(t, image, func(s state) {
		a := s.tree(t, 256)
		s.want(t, "B dropped first", "block", "1: TBR256", append([]ondisk.Bytenr{a.root, y, xNew}, rest...)...)
		s.want(t, "B dropped first", "data", "1: EDR256", append(slices.Clone(d1), d2...)...)
		s.want(t, "B dropped first", "freed", "", x, yNew)
	})
	judge(t, image)
	with(t, image, btrfs.Options{ReadOnly: true}, func(v *btrfs.Volume) {
		b, err := v.Top().ReadFile("A/" + fileOf(7))
		if err != nil || !strings.HasPrefix(string(b), "f07f07") || len(b) != 8192 {
			t.Errorf("a file of A afterwards: %d bytes, %v", len(b), err)
		}
	})
}
