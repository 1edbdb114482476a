package mkfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/filedata"
	"github.com/gobtrfs/gobtrfs/internal/fstree"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// sourceDir makes a directory with one of everything.
func sourceDir(t *testing.T) string {
	t.Helper()
	testenv.NeedRoot(t)
	dir := filepath.Join(testenv.Scratch(t), "source")
	rnd := rand.New(rand.NewPCG(1, 2))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"", "a", "a/b", "a/b/c", "sub", "sub/inner", "sub/inner/deep", "ro", "empty"} {
		must(os.Mkdir(in(d), 0o755))
	}
	noise := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		return p
	}
	for _, n := range []int{0, 1, 100, 2047, 2048, 2049, 4095, 4096, 4097, 65536, 131072, 131073, 1048576, 3<<20 + 77} {
		must(os.WriteFile(in(fmt.Sprintf("a/noise%d", n)), noise(n), 0o640))
		must(os.WriteFile(in(fmt.Sprintf("a/b/text%d", n)), bytes.Repeat([]byte("gobtrfs "), n/8+1)[:n], 0o604))
	}
	mixed := slices.Concat(noise(200000), make([]byte, 300000), noise(5000), bytes.Repeat([]byte("x"), 500000))
	must(os.WriteFile(in("sub/inner/mixed"), mixed, 0o600))
	must(os.WriteFile(in("ro/file"), noise(9000), 0o444))
	for _, name := range []string{"wcjifoae", "ccaoacux", strings.Repeat("n", 255), "not\xffutf8", " blank "} {
		must(os.WriteFile(in("a/b/c/"+name), []byte(name), 0o644))
	}
	sparse, err := os.Create(in("sparse"))
	must(err)
	for _, off := range []int64{1 << 20, 5<<20 + 3, 9 << 20} {
		_, err := sparse.WriteAt(noise(10000), off)
		must(err)
	}
	must(errors.Join(sparse.Truncate(20<<20+5), sparse.Close()))
	must(os.WriteFile(in("hole"), nil, 0o600))
	must(os.Truncate(in("hole"), 1<<30))
	for i := range 300 { // more names than fit the reference item of a small node
		must(os.Link(in("a/noise4097"), in(fmt.Sprintf("a/b/c/link-%03d-%s", i, strings.Repeat("l", 60)))))
	}
	must(os.Link(in("a/noise100"), in("sub/inner/linked")))
	must(os.Symlink("../a/noise1", in("a/link")))
	must(os.Symlink(strings.Repeat("/long", 600), in("a/longlink")))
	must(syscall.Mkfifo(in("fifo"), 0o620))
	must(syscall.Mknod(in("null"), syscall.S_IFCHR|0o666, 1<<8|3))
	must(unix.Mknod(in("block"), syscall.S_IFBLK|0o600, int(unix.Mkdev(7, 300))))
	must(syscall.Mknod(in("socket"), syscall.S_IFSOCK|0o600, 0))
	must(os.Chown(in("a/noise2048"), 1234, 70000))
	must(os.Chmod(in("a/noise2048"), fs.ModeSetuid|fs.ModeSetgid|0o755))
	must(os.Chmod(in("empty"), fs.ModeSticky|0o1777))
	for name, value := range map[string][]byte{"trusted.one": []byte("1"), "trusted.empty": {}, "trusted.long": noise(3000), "security.x": []byte("y")} {
		if err := unix.Lsetxattr(in("a/noise1"), name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
	}
	_ = unix.Lsetxattr(in("empty"), "trusted.dir", []byte("value"), 0)
	acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 210, 4, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	_ = unix.Setxattr(in("a/noise2049"), "system.posix_acl_access", acl, 0)
	must(os.Chown(dir, 77, 88))
	must(os.Chmod(dir, 0o751))
	must(unix.UtimesNanoAt(unix.AT_FDCWD, in("fifo"), []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: -5, Nsec: 999999999}}, 0))
	must(unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 1e9 + 1, Nsec: 987654321}}, 0))
	return dir
}

// compare finds differences between two directories, by what a Source tells.
func compare(t *testing.T, a, b string, exactTimes bool) {
	t.Helper()
	sa, err := mkfs.Directory(a)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := mkfs.Directory(b)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	compareAt(t, sa, sb, "", exactTimes, &n)
	if n < 100 {
		t.Errorf("only %d names compared", n)
	}
}

func compareAt(t *testing.T, a, b mkfs.Source, name string, exactTimes bool, n *int) {
	*n++
	sa, errA := a.Stat(name)
	sb, errB := b.Stat(name)
	if errA != nil || errB != nil {
		t.Errorf("%q: %v %v", name, errA, errB)
		return
	}
	isDir := sa.Mode&syscall.S_IFMT == syscall.S_IFDIR
	sa.Dev, sa.Ino, sb.Dev, sb.Ino, sa.Sparse, sb.Sparse = 0, 0, 0, 0, false, false
	if isDir {
		sa.Size, sa.Links = sb.Size, sb.Links
	}
	if sa.Links = sb.Links; strings.Contains(name, "noise4097") && sb.Links != 301 {
		t.Errorf("%q has %d links", name, sb.Links)
	}
	if sa.Atime = sb.Atime; !exactTimes {
		sa.Ctime = sb.Ctime
	}
	if sa != sb {
		t.Errorf("%q: %+v, want %+v", name, sb, sa)
	}
	compareAttributes(t, a, b, name)
	switch sa.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		if pa, pb := content(t, a, name), content(t, b, name); !bytes.Equal(pa, pb) {
			t.Errorf("%q: %d bytes differ from %d", name, len(pb), len(pa))
		}
	case syscall.S_IFLNK:
		if la, _ := a.ReadLink(name); true {
			if lb, _ := b.ReadLink(name); la != lb {
				t.Errorf("%q: link to %q, want %q", name, lb, la)
			}
		}
	case syscall.S_IFDIR:
		la, errA := a.ReadDir(name)
		lb, errB := b.ReadDir(name)
		slices.Sort(la)
		slices.Sort(lb)
		if errA != nil || errB != nil || !slices.Equal(la, lb) {
			t.Errorf("%q: %v %v names %q, want %q", name, errA, errB, lb, la)
			return
		}
		for _, k := range la {
			compareAt(t, a, b, path.Join(name, k), exactTimes, n)
		}
	}
}

func compareAttributes(t *testing.T, a, b mkfs.Source, name string) {
	t.Helper()
	list := func(s mkfs.Source) []string {
		xs, err := s.Xattrs(name)
		if err != nil {
			t.Errorf("%q: %v", name, err)
		}
		var out []string
		for _, x := range xs {
			out = append(out, fmt.Sprintf("%s=%x", x.Name, x.Value))
		}
		slices.Sort(out)
		return out
	}
	if la, lb := list(a), list(b); !slices.Equal(la, lb) {
		t.Errorf("%q: attributes %q, want %q", name, lb, la)
	}
}

func content(t *testing.T, s mkfs.Source, name string) []byte {
	t.Helper()
	if name == "hole" { // a gibibyte of nothing
		return nil
	}
	f, err := s.Open(name)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer f.Close()
	p, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		t.Errorf("%q: %v", name, err)
	}
	return p
}

// TestRootDir: what the kernel shows is what was in the source, whatever the options; and btrfs check is silent.
func TestRootDir(t *testing.T) {
	testenv.NeedKernel(t)
	testenv.NeedProgs(t)
	dir := sourceDir(t)
	subvols := []mkfs.Subvol{{Path: "sub"}, {Path: "sub/inner"}, {Path: "/ro/", ReadOnly: true}}
	for name, v := range map[string]struct {
		devs int
		opt  mkfs.Options
	}{
		"default":              {1, mkfs.Options{}},
		"small nodes, all old": {1, mkfs.Options{Nodesize: 4096, Checksum: checksum.SHA256, Features: []string{"^no-holes,^fst,^skinny-metadata"}}},
		"zlib":                 {1, mkfs.Options{Compression: "zlib:9", Features: []string{"^no-holes"}}},
		"lzo":                  {1, mkfs.Options{Compression: "lzo", Subvols: subvols, Nodesize: 65536}},
		"zstd":                 {1, mkfs.Options{Compression: "zstd", Shrink: true, Reproducible: true}},
		"shrink":               {1, mkfs.Options{Shrink: true, Metadata: "single"}},
		"raid":                 {4, mkfs.Options{Data: "raid10", Metadata: "raid1c3", Subvols: subvols}},
		"parity":               {4, mkfs.Options{Data: "raid6", Metadata: "raid5"}},
		"striped":              {3, mkfs.Options{Data: "raid0", Metadata: "raid0", Shrink: true, Compression: "zstd:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			images, devs := files(t, v.devs, 300*mib)
			opt := v.opt
			opt.RootDir = dir
			r := mustMake(t, devs, opt)
			closeAll(t, devs)
			if opt.Shrink {
				for i, n := range r.DevSizes {
					if n > 40*mib {
						t.Errorf("shrunk to %d bytes", n)
					}
					if err := os.Truncate(images[i], int64(n)); err != nil {
						t.Fatal(err)
					}
				}
			}
			testenv.Check(t, images...)
			mnt := testenv.Mount(t, images)
			compare(t, dir, mnt, !opt.Reproducible)
			if len(opt.Subvols) > 0 {
				list := testenv.Run(t, "btrfs", "subvolume", "list", mnt)
				if strings.Count(list, "\n") != 3 || !strings.Contains(list, "path sub/inner\n") {
					t.Errorf("subvolumes:\n%s", list)
				}
				if err := os.WriteFile(filepath.Join(mnt, "ro/new"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
					t.Errorf("write to a read-only subvolume: %v", err)
				}
			}
			_ = os.WriteFile(filepath.Join(mnt, "a/noise2048"), make([]byte, 100000), 0o644) // no room may be left
			testenv.Umount(t, mnt)
			testenv.Check(t, images...)
		})
	}
}

// TestDefaultSubvol: a mount without options shows the default subvolume.
func TestDefaultSubvol(t *testing.T) {
	testenv.NeedKernel(t)
	src := &memSource{files: map[string]string{"top": "1", "x/y/inside": "2"}}
	images, devs := files(t, 1, 128*mib)
	mustMake(t, devs, mkfs.Options{Source: src, Subvols: []mkfs.Subvol{{Path: "x/y", Default: true, ReadOnly: true}}})
	closeAll(t, devs)
	testenv.Check(t, images...)
	mnt := testenv.Mount(t, images)
	if p, err := os.ReadFile(filepath.Join(mnt, "inside")); err != nil || string(p) != "2" {
		t.Errorf("%q %v", p, err)
	}
}

// TestOwnReader: what our own reader finds in a volume is what was in the source.
func TestOwnReader(t *testing.T) {
	ctx := context.Background()
	src := &memSource{files: map[string]string{}}
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 300 {
		p := make([]byte, rnd.IntN(1<<uint(4+rnd.IntN(18))))
		for k := range p {
			p[k] = byte(rnd.IntN(1 + i%7))
		}
		src.files[fmt.Sprintf("dir%d/file%d", i%5, i)] = string(p)
	}
	for _, algo := range []string{"no", "zlib:1", "lzo", "zstd"} {
		t.Run(algo, func(t *testing.T) {
			devs := mems(2, 512*mib)
			mustMake(t, devs, mkfs.Options{Source: src, Compression: algo, Data: "raid0", Nodesize: 4096, Subvols: []mkfs.Subvol{{Path: "dir3"}}})
			v, err := volume.Open(ctx, devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
			if err != nil {
				t.Fatal(err)
			}
			judge(t, v)
			csums, err := v.Tree(ctx, ondisk.CsumTree)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range src.files {
				dir, base, _ := strings.Cut(name, "/")
				id, parent := ondisk.FSTree, uint64(256)
				fs, err := v.Tree(ctx, id)
				if err != nil {
					t.Fatal(err)
				}
				e, err := fstree.Lookup(ctx, fs, parent, []byte(dir))
				if err != nil {
					t.Fatal(err)
				}
				if parent = e.Location.Objectid; e.Location.Type == ondisk.TypeRootItem {
					id, parent = ondisk.TreeID(e.Location.Objectid), 256
				}
				if (id != ondisk.FSTree) != (dir == "dir3") {
					t.Fatalf("%s lies in %v", name, id)
				}
				if fs, err = v.Tree(ctx, id); err != nil {
					t.Fatal(err)
				}
				if e, err = fstree.Lookup(ctx, fs, parent, []byte(base)); err != nil {
					t.Fatal(name, err)
				}
				r, err := filedata.NewReader(ctx, v, fs, csums, e.Location.Objectid)
				if err != nil {
					t.Fatal(name, err)
				}
				got := make([]byte, len(want)+10)
				n, err := r.ReadAt(ctx, got, 0)
				if err != io.EOF || string(got[:n]) != want {
					t.Errorf("%s: %d bytes, want %d: %v", name, n, len(want), err)
				}
			}
		})
	}
}

// TestBigSectors: sectors of other sizes than the kernel here mounts.
func TestBigSectors(t *testing.T) {
	src := &memSource{files: map[string]string{
		"inline": strings.Repeat("i", 2000), "small": strings.Repeat("s", 5000), "d/text": strings.Repeat("text ", 100000), "d/empty": "",
	}}
	for _, size := range []uint32{8192, 16384, 32768, 65536} {
		images, devs := files(t, 1, 256*mib)
		mustMake(t, devs, mkfs.Options{Source: src, Sectorsize: size, Compression: "lzo", Shrink: true})
		v, err := volume.Open(context.Background(), devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
		if err != nil {
			t.Fatal(err)
		}
		judge(t, v)
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		testenv.Check(t, images...)
	}
}

// TestReproducible: the same source gives the same bytes on one processor and on many, and without the option it does not.
func TestReproducible(t *testing.T) {
	src := &memSource{files: map[string]string{}}
	rnd := rand.New(rand.NewPCG(7, 7))
	for i := range 200 {
		p := make([]byte, rnd.IntN(1<<uint(4+rnd.IntN(15))))
		for k := range p {
			p[k] = byte(rnd.IntN(4)) // compresses somewhat
		}
		src.files[fmt.Sprintf("dir%d/file%d", i%17, i)] = string(p)
	}
	opt := mkfs.Options{Source: src, Compression: "zstd", Reproducible: true, Subvols: []mkfs.Subvol{{Path: "dir3"}}}
	image := func(procs int, opt mkfs.Options) []byte {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		dev := device.NewMem(40 * mib)
		mustMake(t, []device.Device{dev}, opt)
		p := make([]byte, dev.Size())
		if _, err := dev.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := image(1, opt)
	for range 2 {
		if !bytes.Equal(first, image(8, opt)) {
			t.Fatal("images differ")
		}
	}
	opt.Reproducible = false
	if bytes.Equal(image(2, opt), image(2, opt)) {
		t.Error("two volumes with the same UUID")
	}
}

// memSource is a source in memory; fault may spoil it.
type memSource struct {
	files map[string]string
	fault func(op, name string) error
	grown map[string]uint64 // what an open file says its size is
}

func (m *memSource) err(op, name string) error {
	if m.fault == nil {
		return nil
	}
	return m.fault(op, name)
}

func (m *memSource) ReadDir(dir string) ([]string, error) {
	var out []string
	for name := range m.files {
		rest, ok := strings.CutPrefix(name, dir+"/")
		if dir == "" {
			rest, ok = name, true
		}
		first, _, _ := strings.Cut(rest, "/")
		if ok && !slices.Contains(out, first) {
			out = append(out, first)
		}
	}
	return out, m.err("readdir", dir)
}

func (m *memSource) Stat(name string) (mkfs.Stat, error) {
	if p, ok := m.files[name]; ok {
		return mkfs.Stat{Mode: syscall.S_IFREG | 0o644, Size: uint64(len(p)), Links: 1}, m.err("stat", name)
	}
	return mkfs.Stat{Mode: syscall.S_IFDIR | 0o755, Links: 1}, m.err("stat", name)
}

func (m *memSource) Xattrs(name string) ([]mkfs.Xattr, error) { return nil, m.err("xattrs", name) }

func (m *memSource) ReadLink(name string) (string, error) { return "", m.err("readlink", name) }

func (m *memSource) Open(name string) (mkfs.File, error) {
	return &memFile{strings.NewReader(m.files[name]), m, name}, m.err("open", name)
}

type memFile struct {
	*strings.Reader
	m    *memSource
	name string
}

func (f *memFile) Close() error { return nil }

func (f *memFile) Stat() (mkfs.Stat, error) {
	st, err := f.m.Stat(f.name)
	st.Size = max(st.Size, f.m.grown[f.name])
	return st, err
}

func (f *memFile) Data(off uint64) (uint64, uint64, error) { return off, 1 << 63, nil }

// TestHostileSource: what goes wrong while reading is told with the file's name, and leaves nothing that looks like a volume.
func TestHostileSource(t *testing.T) {
	big := strings.Repeat("x", 5<<20)
	for name, c := range map[string]struct {
		src  *memSource
		want error
		text string
	}{
		"vanished": {&memSource{fault: func(op, name string) error {
			if op == "open" && name == "d/big" {
				return fs.ErrNotExist
			}
			return nil
		}}, fs.ErrNotExist, "d/big"},
		"unreadable directory": {&memSource{fault: func(op, name string) error {
			if op == "readdir" && name == "d" {
				return fs.ErrPermission
			}
			return nil
		}}, fs.ErrPermission, ""},
		"grown":          {&memSource{grown: map[string]uint64{"d/big": 6 << 20}}, mkfs.ErrChanged, "d/big"},
		"no room":        {&memSource{files: map[string]string{"d/big": strings.Repeat("y", 200<<20)}}, mkfs.ErrNoRoom, "d/big"},
		"impossible dir": {&memSource{files: map[string]string{"d/..": "x"}}, nil, ".."},
		"long name":      {&memSource{files: map[string]string{strings.Repeat("n", 256): "x"}}, nil, "255"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.src.files == nil {
				c.src.files = map[string]string{"a": "1", "d/big": big, "d/other": "2"}
			}
			devs := mems(1, 128*mib)
			mustMake(t, devs, mkfs.Options{})
			_, err := mkfs.Make(context.Background(), devs, mkfs.Options{Source: c.src})
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %v with %q", err, c.want, c.text)
			}
			// A source that cannot be read at all leaves the old volume alone; else nothing may be found.
			if v, err := volume.Open(context.Background(), devs, volume.Options{SuperCopy: -1, BackupRoot: -1}); err == nil {
				if v.Super().Generation != ondisk.Generation(1) || errors.Is(c.want, mkfs.ErrChanged) || errors.Is(c.want, mkfs.ErrNoRoom) {
					t.Error("a volume is left")
				}
			}
		})
	}
}

// TestCancel: a cancelled context ends the work.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	src := &memSource{files: map[string]string{}}
	for i := range 2000 {
		src.files[fmt.Sprint(i)] = "some data of a file"
	}
	src.fault = func(op, name string) error {
		if op == "open" && name == "1500" {
			cancel()
		}
		return nil
	}
	if _, err := mkfs.Make(ctx, mems(1, 128*mib), mkfs.Options{Source: src}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// BenchmarkGoTree makes a volume from the Go toolchain's own tree.
func BenchmarkGoTree(b *testing.B) {
	for _, algo := range []string{"no", "zstd:1", "lzo"} {
		b.Run(algo, func(b *testing.B) {
			for b.Loop() {
				r, err := mkfs.Make(context.Background(), []device.Device{device.NewMem(4 << 30)}, mkfs.Options{RootDir: goRoot(b), Compression: algo})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(r.FileBytes))
				b.ReportMetric(float64(r.Files), "files")
			}
		})
	}
}

func goRoot(b *testing.B) string {
	b.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("needs the go command")
	}
	return strings.TrimSpace(string(out))
}
