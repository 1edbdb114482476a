package forensic_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

var grownOnce = sync.OnceValues(grow)

// grown gives a volume that the test may change; it is made once.
func grown(t testing.TB) []*device.Mem {
	t.Helper()
	devs, err := grownOnce()
	must(t, err)
	return clones(devs)
}

// grow makes a volume with small blocks and many files in the top-level subvolume, in a snapshot of it that was changed later, and in a
// nested subvolume.
func grow() ([]*device.Mem, error) {
	devs := []*device.Mem{device.NewMem(96 << 20), device.NewMem(96 << 20)}
	_, err := btrfs.Make(ctx, given(devs), btrfs.MakeOptions{Nodesize: 4096, Checksum: "sha256", Metadata: "raid1"})
	if err != nil {
		return nil, err
	}
	v, err := btrfs.OpenDevices(ctx, given(devs), btrfs.Options{})
	if err != nil {
		return nil, err
	}
	write := func(s *btrfs.Subvolume, dir string, from, to int) {
		err = errors.Join(err, s.MkdirAll(dir, 0o755))
		for i := from; i < to; i++ {
			body := bytes.Repeat(fmt.Appendf(nil, "%s %d\n", dir, i), 1+i%7*200)
			err = errors.Join(err, s.WriteFile(fmt.Sprintf("%s/file-%05d", dir, i), body, 0o644))
		}
		err = errors.Join(err, v.Commit(ctx))
	}
	write(v.Top(), "a", 0, 300)
	nested, nerr := v.CreateSubvolume(ctx, "/nested")
	if nerr != nil {
		return nil, nerr
	}
	write(nested, "c", 0, 100)
	snap, serr := v.Snapshot(ctx, "/", "/snap", false)
	if serr != nil {
		return nil, serr
	}
	write(snap, "b", 0, 100)
	write(v.Top(), "a", 250, 350)
	return devs, errors.Join(err, holes(v.Top()), v.Top().RemoveAll("a/file-00010"), v.Close())
}

// holes makes a file of many extents with holes between them.
func holes(s *btrfs.Subvolume) error {
	f, err := s.Create("a/holes")
	if err != nil {
		return err
	}
	for i := range 400 {
		_, werr := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), int64(i)*3*4096)
		err = errors.Join(err, werr)
	}
	return errors.Join(err, f.Close())
}

// of matches the blocks of a tree on the levels from low on.
func of(tree ondisk.TreeID, low uint8) func(sb *ondisk.Superblock, b ondisk.Block) bool {
	return func(_ *ondisk.Superblock, b ondisk.Block) bool { return b.Owner() == tree && b.Level() >= low }
}

// TestMend: trees whose nodes are lost are read by their leaves, also when extents, checksums or the root tree are lost as well.
func TestMend(t *testing.T) {
	snap := ondisk.TreeID(257)
	devs := grown(t)
	want, _ := contents(t, given(clones(devs)), btrfs.Options{})
	for _, c := range []struct {
		name   string
		lose   []func(sb *ondisk.Superblock, b ondisk.Block) bool
		named  string // in what is told to be lost
		unsure bool
	}{
		{"subvolume", nodes(ondisk.FSTree), "top-level subvolume", false},
		{"snapshot", nodes(snap), "subvolume 257", false},
		{"source and snapshot", nodes(ondisk.FSTree, snap), "subvolume 257", false},
		{"checksums", nodes(ondisk.CsumTree), "checksum tree", false},
		{"extents", nodes(ondisk.ExtentTree, ondisk.FSTree), "extent tree", true},
		{"all nodes", nodes(ondisk.ExtentTree, ondisk.FSTree, snap, ondisk.CsumTree, 256), "checksum tree", true},
		{"nodes and root", append(nodes(ondisk.FSTree), of(ondisk.RootTree, 0)), "root tree", false},
		{"nodes and chunks", append(nodes(ondisk.FSTree), chunkTree), "top-level subvolume", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := clones(devs)
			wiped(c.lose...)(t, bad)
			got, rep := contents(t, given(bad), btrfs.Options{Forensic: &btrfs.ForensicOptions{}})
			if c.unsure && strings.HasSuffix(got["a/holes"], " error") {
				got["a/holes"] = want["a/holes"] // without the extent tree a hole may be a lost leaf
			}
			same(t, got, want)
			if !slices.ContainsFunc(rep.Losses, func(l string) bool { return strings.Contains(l, c.named) }) {
				t.Errorf("%q is not told: %q", c.named, rep.Losses)
			}
			if t.Failed() {
				t.Logf("found: %q\nlost: %q", rep.Notes, rep.Losses)
			}
		})
	}
}

func nodes(trees ...ondisk.TreeID) (out []func(sb *ondisk.Superblock, b ondisk.Block) bool) {
	for _, id := range trees {
		out = append(out, of(id, 1))
	}
	return out
}

// TestLostLeaf: when a leaf is lost, what it did not hold is read, and nothing that is read is wrong.
func TestLostLeaf(t *testing.T) {
	devs := grown(t)
	want, _ := contents(t, given(clones(devs)), btrfs.Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range testenv.Rounds(8) {
		bad := clones(devs)
		at := pickLeaf(t, bad, rng)
		wipe(t, bad, func(_ *ondisk.Superblock, b ondisk.Block) bool { return b.Bytenr() == at })
		before, _ := contents(t, given(clones(bad)), btrfs.Options{})
		got, rep := contents(t, given(bad), btrfs.Options{Forensic: &btrfs.ForensicOptions{}})
		if len(rep.Losses) == 0 {
			t.Errorf("round %d: nothing is told to be lost", round)
		}
		wrong, less := 0, 0
		for name, text := range got {
			if untimed(text) != untimed(want[name]) && !strings.HasSuffix(text, " error") {
				if wrong++; wrong < 4 {
					t.Errorf("round %d: %q:\n got %s\nwant %s", round, name, text, want[name])
				}
			}
		}
		for name, text := range before {
			if text == want[name] && untimed(got[name]) != untimed(text) {
				if less++; less < 4 {
					t.Errorf("round %d: %q was read before:\n got %s\nwant %s", round, name, got[name], text)
				}
			}
		}
		if len(got) < len(want)*9/10 {
			t.Errorf("round %d: only %d of %d names", round, len(got), len(want))
		}
		if t.Failed() {
			t.Fatalf("round %d, leaf %d: found: %q\nlost: %q", round, at, rep.Notes, rep.Losses)
		}
	}
}

// untimed leaves out the time, which is another one when an older leaf stands in. Contents are always the same.
func untimed(text string) string {
	head, tail, _ := strings.Cut(text, " 20")
	_, tail, _ = strings.Cut(tail, " UTC ")
	return head + tail
}

// pickLeaf chooses a leaf of the top-level subvolume but the first, which holds its root directory.
func pickLeaf(t testing.TB, devs []*device.Mem, rng *rand.Rand) ondisk.Bytenr {
	t.Helper()
	newest := map[ondisk.Key]ondisk.Bytenr{}
	gens := map[ondisk.Key]ondisk.Generation{}
	wipe(t, devs, func(_ *ondisk.Superblock, b ondisk.Block) bool {
		if k := b.Key(0); b.Owner() == ondisk.FSTree && b.Level() == 0 && k.Objectid > 256 && b.Generation() > gens[k] {
			newest[k], gens[k] = b.Bytenr(), b.Generation()
		}
		return false
	})
	var all []ondisk.Bytenr
	for _, at := range newest {
		all = append(all, at)
	}
	slices.Sort(all)
	if len(all) < 10 {
		t.Fatalf("only %d leaves", len(all))
	}
	return all[rng.IntN(len(all))]
}
