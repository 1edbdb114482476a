package cleaner_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/subvol"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/treeblock"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// kernelHistory has the kernel make a volume with snapshots of snapshots that differ, reflinks, and relocated blocks. It returns the image and the
// names of the subvolumes, all in the top directory.
// Of backups, the first subvolume is the one that is worked on, and the others are its snapshots.
func kernelHistory(t *testing.T, dir string, seed int64, backups bool) (image string, names []string) {
	rng := rand.New(rand.NewPCG(uint64(seed), 11))
	image = filepath.Join(dir, "history.img")
	testenv.MakeVolume(t, image, 160<<20, "-n", "4096", "-d", "single", "-m", "single")
	mnt := testenv.Mount(t, []string{image}, "max_inline=0")
	add := func(args ...string) {
		testenv.Run(t, "btrfs", append([]string{"subvolume"}, args...)...)
	}
	first := "s0"
	add("create", filepath.Join(mnt, first))
	names = []string{first}
	file := func(sub string, i int) string {
		return filepath.Join(mnt, sub, fmt.Sprintf("file-with-a-longer-name-%05d", i))
	}
	const files = 900
	for i := range files {
		write(t, file(first, i), rng)
	}
	for round := range 9 {
		src, changed := names[rng.IntN(len(names))], names
		if backups {
			src, changed = first, names[:1]
		}
		name := fmt.Sprintf("s%d", round+1)
		add("snapshot", filepath.Join(mnt, src), filepath.Join(mnt, name))
		names = append(names, name)
		if round == 5 && !backups {
			testenv.Run(t, "btrfs", "balance", "start", "-m", mnt)
		}
		for range 25 {
			sub := changed[rng.IntN(len(changed))]
			i := rng.IntN(files)
			switch rng.IntN(5) {
			case 0:
				os.Remove(file(sub, i))
			case 1:
				os.Chmod(file(sub, i), os.FileMode(0o600+rng.IntN(64)))
			case 2:
				from := file(names[rng.IntN(len(names))], rng.IntN(files))
				exec.Command("cp", "--reflink=always", from, file(sub, i)).Run() // from may be gone
			default:
				write(t, file(sub, i), rng)
			}
		}
		testenv.Run(t, "sync", "-f", mnt)
	}
	testenv.Umount(t, mnt)
	return image, names
}

func write(t *testing.T, name string, rng *rand.Rand) {
	t.Helper()
	data := make([]byte, 4096*(1+rng.IntN(3)))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyOf(t *testing.T, image, name string) string {
	t.Helper()
	to := filepath.Join(filepath.Dir(image), name)
	if err := testenv.CopySparse(image, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// kernelDrops deletes subvolumes with the kernel and waits for its cleaner.
func kernelDrops(t *testing.T, image string, names []string) {
	mnt := testenv.Mount(t, []string{image})
	if len(names) > 0 {
		args := []string{"subvolume", "delete", "--commit-after"}
		for _, n := range names {
			args = append(args, filepath.Join(mnt, n))
		}
		testenv.Run(t, "btrfs", args...)
	}
	// "subvolume sync" does not wait for the tree that is just being dropped, and unmounting stops the kernel's cleaner.
	for range 20 {
		testenv.Run(t, "btrfs", "subvolume", "sync", mnt)
		testenv.Umount(t, mnt)
		if dead(t, image) == 0 {
			return
		}
		mnt = testenv.Mount(t, []string{image})
		time.Sleep(time.Second / 2)
	}
	t.Fatal("the kernel does not finish its drops")
}

func dead(t *testing.T, image string) (n int) {
	v := openReadOnly(t, image)
	defer v.Close()
	list, err := subvol.List(context.Background(), v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Deleted {
			n++
		}
	}
	return n
}

// weDrop deletes subvolumes and runs the cleaner.
func weDrop(t *testing.T, image string, names []string, opt cleaner.Options) cleaner.Report {
	t.Helper()
	return weDropWith(t, image, names, opt, 0)
}

// weDelete unlinks subvolumes.
func weDelete(t *testing.T, m *transaction.Manager, names []string) {
	t.Helper()
	ctx := context.Background()
	var ids []ondisk.TreeID
	for _, s := range listed(t, m) {
		if slices.Contains(names, s.Path) {
			ids = append(ids, s.ID)
		}
	}
	tx, err := m.Begin(ctx, transaction.Need{Items: 8 + 8*len(ids), Deleting: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := subvol.Delete(ctx, tx, ids); err != nil {
		t.Fatal(err)
	}
	if err := tx.End(ctx); err != nil {
		t.Fatal(err)
	}
}

// weDropWith does so with a bound on dirty bytes.
func weDropWith(t *testing.T, image string, names []string, opt cleaner.Options, dirty int64) cleaner.Report {
	t.Helper()
	ctx := context.Background()
	v, m := openWith(t, []string{image}, dirty)
	weDelete(t, m, names)
	r, err := cleaner.Run(ctx, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, v, m)
	if early := v.Store().Stats().Early; (early > 0) != (dirty > 0) {
		t.Errorf("%d blocks written early", early)
	}
	return r
}

// Sweep factors that settle whether blocks are read or swept.
const (
	never  = -1
	always = 1 << 20
)

// TestSameBytes: how many processors there are changes nothing, at any budget, read or swept.
func TestSameBytes(t *testing.T) {
	testenv.NeedKernel(t)
	dir := testenv.Scratch(t)
	image, names := kernelHistory(t, dir, 3, true)
	set := names[1:]
	for _, opt := range []cleaner.Options{{Budget: 1}, {Budget: 1, Commit: true}, {Budget: 40}, {SweepFactor: never}, {SweepFactor: always}} {
		var sums [2][sha256.Size]byte
		for i, procs := range []int{1, 8} {
			c := copyOf(t, image, "same.img")
			func() {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				r := weDrop(t, c, set, opt)
				if opt.SweepFactor == always && r.Stats.Swept == 0 {
					t.Error("nothing was swept")
				}
				t.Logf("%+v: %+v", opt, r)
			}()
			sums[i] = sumOf(t, c)
		}
		if sums[0] != sums[1] {
			t.Errorf("%+v: other bytes with other processors", opt)
		}
	}
}

func sumOf(t *testing.T, path string) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// TestSameAsTheKernel: random sets, dropped by the kernel and by us, leave the same references; and each finishes what the other began.
func TestSameAsTheKernel(t *testing.T) {
	testenv.NeedKernel(t)
	const sets = 1
	swept := uint64(0)
	for round := range int64(testenv.Rounds(2)) {
		seed := testenv.Seed(t, 1) + round
		rng := rand.New(rand.NewPCG(uint64(seed), 12))
		dir := testenv.Scratch(t)
		image, names := kernelHistory(t, dir, seed, round%2 == 1)
		for n := range sets { // sets of one history
			rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			set := slices.Clone(names[:1+rng.IntN(len(names)-1)])
			if round%2 == 1 {
				set = slices.DeleteFunc(set, func(name string) bool { return name == "s0" })
			}
			t.Logf("seed %d: dropping %v", seed, set)
			kernel := copyOf(t, image, fmt.Sprintf("kernel%d.img", n))
			kernelDrops(t, kernel, set)
			want := account(t, kernel)

			ours := copyOf(t, image, fmt.Sprintf("ours%d.img", n))
			foreseeAndDrop(t, ours, set)
			same(t, "ours", account(t, ours), want)
			compareModel(t, ours, kernel)
			for _, factor := range []int{never, always} {
				other := copyOf(t, image, "other.img")
				r := weDrop(t, other, set, cleaner.Options{SweepFactor: factor})
				if factor == never && r.Stats.Surveys > 0 {
					t.Errorf("swept: %+v", r.Stats)
				}
				swept += r.Stats.Swept
				testenv.Check(t, other)
				same(t, "ours, swept or not", account(t, other), want)
				// With hardly any memory for changed blocks.
				other = copyOf(t, image, "other.img")
				weDropWith(t, other, set, cleaner.Options{SweepFactor: factor}, 8<<10)
				testenv.Check(t, other)
				same(t, "ours, written early", account(t, other), want)
			}

			for _, budget := range []int{1 + rng.IntN(4), 5 + rng.IntN(50)} {
				half := copyOf(t, image, "half.img")
				r := weDrop(t, half, set, cleaner.Options{Budget: budget, Steps: 1 + rng.IntN(60), Commit: true, SweepFactor: always})
				t.Logf("budget %d: %d of %d trees done, %d blocks freed in %d commits", budget, r.RootsDone, r.Roots, r.BlocksFreed, r.Commits)
				testenv.Check(t, half)
				rest := copyOf(t, half, "rest.img")
				kernelDrops(t, half, nil)
				testenv.Check(t, half)
				same(t, "finished by the kernel", account(t, half), want)
				weDrop(t, rest, nil, cleaner.Options{SweepFactor: always * int(1-2*rng.IntN(2))})
				same(t, "finished by us", account(t, rest), want)
			}
		}
	}
	if swept == 0 {
		t.Error("nothing was swept")
	}
}

func compareModel(t *testing.T, a, b string) {
	t.Helper()
	shared := os.Getenv("GOBTRFS_SHARED")
	if shared == "" {
		shared = filepath.Join(testenv.Root(t), "..", "shared")
	}
	model := filepath.Join(shared, "model", "compare.py")
	if _, err := os.Stat(model); err != nil {
		t.Log("no outside model to compare with")
		return
	}
	t.Log(strings.TrimSpace(testenv.Run(t, "python3", model, a, b)))
}

// foreseeAndDrop compares the dry run with what is then freed.
func foreseeAndDrop(t *testing.T, image string, set []string) {
	t.Helper()
	v := openReadOnly(t, image)
	ctx := context.Background()
	list, err := subvol.List(ctx, v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	var ids []ondisk.TreeID
	for _, s := range list {
		if slices.Contains(set, s.Path) {
			ids = append(ids, s.ID)
		}
	}
	plan, err := cleaner.Plan(ctx, v, ids)
	if err != nil {
		t.Fatal(err)
	}
	used, own := v.Super().BytesUsed, ownBlocks(t, v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	r := weDrop(t, image, set, cleaner.Options{})
	testenv.Check(t, image)
	t.Logf("plan %+v, done %+v", plan, r)
	if plan.Blocks != r.BlocksFreed || plan.Extents != r.ExtentsFreed || plan.DataBytes != r.DataFreed {
		t.Errorf("foreseen %+v, done %+v", plan, r)
	}
	// Whether it is worth to sweep depends on the size of the extent tree, which the deletion itself may change.
	if (plan.Swept > 0) == (r.Stats.Swept > 0) && plan.Reads != r.Stats.Reads {
		t.Errorf("foreseen %+v, done %+v", plan, r)
	}
	// To the byte: what df shows less is the plan, but for what the trees of the volume itself grew or shrank.
	v = openReadOnly(t, image)
	defer v.Close()
	node := int64(v.Nodesize())
	got := int64(used-v.Super().BytesUsed) - (own-ownBlocks(t, v))*node
	if want := int64(plan.DataBytes + plan.MetadataBytes); got != want {
		t.Errorf("%d bytes came back, foreseen were %d", got, want)
	}
}

// ownBlocks counts the blocks of all trees but the subvolumes; of the top-level subvolume too, which names the others.
func ownBlocks(t *testing.T, v *volume.Volume) int64 {
	t.Helper()
	ctx := context.Background()
	seen := map[ondisk.Bytenr]bool{}
	blocksOf(t, v, v.RootTree().Promise(), seen)
	blocksOf(t, v, v.ChunkTree().Promise(), seen)
	if err := roots.All(ctx, v.RootTree(), func(k ondisk.Key, item ondisk.RootItem) error {
		if id := ondisk.TreeID(k.Objectid); id == ondisk.FSTree || !id.IsSubvolume() {
			blocksOf(t, v, treeblock.Promise{Bytenr: item.Bytenr, Generation: item.Generation, Level: item.Level}, seen)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return int64(len(seen))
}

func openReadOnly(t *testing.T, image string) *volume.Volume {
	t.Helper()
	d, err := device.OpenFile(image, device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	v, err := volume.Open(context.Background(), []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func same(t *testing.T, what string, got, want map[ondisk.Bytenr]string) {
	t.Helper()
	all := maps.Clone(want)
	maps.Copy(all, got)
	n := 0
	for _, at := range slices.Sorted(maps.Keys(all)) {
		if got[at] != want[at] {
			if n++; n < 5 {
				t.Errorf("%s: extent %d: %q, the kernel has %q", what, at, got[at], want[at])
			}
		}
	}
	if n > 0 {
		t.Fatalf("%s: %d of %d extents differ", what, n, len(all))
	}
}

// account lists the references of all data extents, and of all tree blocks of subvolumes but the top-level one: count, flags, back references.
func account(t *testing.T, image string) map[ondisk.Bytenr]string {
	t.Helper()
	ctx := context.Background()
	v := openReadOnly(t, image)
	defer v.Close()
	ours := map[ondisk.Bytenr]bool{}
	list, err := subvol.List(ctx, v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.ID != ondisk.FSTree {
			blocksOf(t, v, treeblock.Promise{Bytenr: s.Item.Bytenr, Generation: s.Item.Generation, Level: s.Item.Level}, ours)
		}
	}
	extents, err := v.Tree(ctx, ondisk.ExtentTree)
	if err != nil {
		t.Fatal(err)
	}
	out := map[ondisk.Bytenr]string{}
	refs := map[ondisk.Bytenr][]string{}
	c, err := extents.Seek(ctx, ondisk.Key{})
	for ; err == nil && c.Valid(); err = c.Next(ctx) {
		k, at := c.Key(), ondisk.Bytenr(c.Key().Objectid)
		switch k.Type {
		case ondisk.TypeExtentItem, ondisk.TypeMetadataItem:
			e, err := ondisk.DecodeExtent(k, c.Data())
			if err != nil {
				t.Fatal(err)
			}
			if e.Flags&ondisk.ExtentFlagData == 0 && !ours[at] {
				continue
			}
			out[at] = fmt.Sprintf("refs %d flags %#x", e.ExtentItem.Refs, e.Flags)
			for _, r := range e.Refs {
				refs[at] = append(refs[at], fmt.Sprintf("%v %v %v %v %v x%d", r.Type, r.Root, r.Parent, r.Objectid, r.Offset, max(r.Count, 1)))
			}
		case ondisk.TypeTreeBlockRef:
			refs[at] = append(refs[at], fmt.Sprintf("%v %v 0 0 0 x1", k.Type, ondisk.TreeID(k.Offset)))
		case ondisk.TypeSharedBlockRef:
			refs[at] = append(refs[at], fmt.Sprintf("%v %v %v 0 0 x1", k.Type, ondisk.TreeID(0), k.Offset))
		case ondisk.TypeSharedDataRef:
			n, err := ondisk.DecodeSharedDataRef(c.Data())
			if err != nil {
				t.Fatal(err)
			}
			refs[at] = append(refs[at], fmt.Sprintf("%v %v %v 0 0 x%d", k.Type, ondisk.TreeID(0), k.Offset, n))
		case ondisk.TypeExtentDataRef:
			d, err := ondisk.DecodeExtentDataRef(c.Data())
			if err != nil {
				t.Fatal(err)
			}
			refs[at] = append(refs[at], fmt.Sprintf("%v %v 0 %v %v x%d", k.Type, d.Root, d.Objectid, d.Offset, d.Count))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for at := range out {
		slices.Sort(refs[at])
		out[at] += ": " + strings.Join(refs[at], ", ")
	}
	return out
}

func blocksOf(t *testing.T, v *volume.Volume, p treeblock.Promise, seen map[ondisk.Bytenr]bool) {
	t.Helper()
	if seen[p.Bytenr] {
		return
	}
	seen[p.Bytenr] = true
	if p.Level == 0 {
		return
	}
	b, err := v.Store().Read(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.Data().NrItems() {
		at, gen := b.Data().Ptr(i)
		blocksOf(t, v, treeblock.Promise{Bytenr: at, Generation: gen, Level: p.Level - 1}, seen)
	}
}
