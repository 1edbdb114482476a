//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// describe tells all that a copy must keep of the tree below dir, by path.
func describe(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(dir, name)
		must(t, err)
		out[rel] = describeFile(t, name, rel, first)
		return nil
	}))
	return out
}

func describeFile(t testing.TB, name, rel string, first map[uint64]string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(name, &st))
	text := fmt.Sprintf("mode %o owner %d:%d mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b, err := os.ReadFile(name)
		must(t, err)
		text += fmt.Sprintf(" size %d %x", st.Size, sum(b))
	case unix.S_IFLNK:
		target, err := os.Readlink(name)
		must(t, err)
		text += " -> " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" device %x", st.Rdev)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if _, there := first[st.Ino]; !there {
			first[st.Ino] = rel
		}
		text += " same as " + first[st.Ino]
	}
	xattrs, err := localXattrs(name)
	must(t, err)
	return text + fmt.Sprintf(" %q", xattrs)
}

// sum is enough to tell contents apart, and short in a failure's text.
func sum(b []byte) (h uint64) {
	h = 14695981039346656037
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// tree makes files of every kind that user may make.
func tree(t testing.TB, dir string, root bool) {
	t.Helper()
	write(t, filepath.Join(dir, "a/text"), "hello\n")
	write(t, filepath.Join(dir, "a/empty"), "")
	write(t, filepath.Join(dir, "a/long"), strings.Repeat("0123456789abcde\n", 50000))
	write(t, filepath.Join(dir, "a/name with \xff and \n"), "odd name")
	write(t, filepath.Join(dir, strings.Repeat("n", 255)), "long name")
	must(t, os.MkdirAll(filepath.Join(dir, "a/deep/er"), 0o755))
	must(t, os.Link(filepath.Join(dir, "a/text"), filepath.Join(dir, "a/deep/second")))
	must(t, os.Symlink("../text", filepath.Join(dir, "a/deep/link")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(t, os.Link(filepath.Join(dir, "dangling"), filepath.Join(dir, "dangling2")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640))
	f, err := os.Create(filepath.Join(dir, "holes"))
	must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 5<<20+17)
	must(t, err)
	must(t, f.Truncate(40<<20))
	must(t, f.Close())
	if root {
		must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, os.Lchown(filepath.Join(dir, "a/text"), 12, 34))
		must(t, os.Lchown(filepath.Join(dir, "dangling"), 56, 78))
	}
	for attr, name := range map[string]string{"user.one": "a/text", "user.two": "a/deep", "user.empty": "a/long"} {
		value := []byte("value of " + attr)
		if attr == "user.empty" {
			value = nil
		}
		if err := unix.Lsetxattr(filepath.Join(dir, name), attr, value, 0); err != nil && err != unix.ENOTSUP {
			t.Fatal(err)
		}
	}
	must(t, os.Chmod(filepath.Join(dir, "a/long"), 0o4711&0o7777))
	must(t, os.Chmod(filepath.Join(dir, "a/empty"), 0o400))
	must(t, os.Chmod(filepath.Join(dir, "a/deep"), fs.ModeSticky|0o750))
	at := time.Unix(1234567890, 123456789)
	for _, name := range []string{"a/text", "holes", "dangling", "fifo", "a/deep"} {
		must(t, setLocalTimes(filepath.Join(dir, name), at, at.Add(time.Nanosecond)))
	}
}

// open makes a directory that every user may reach, and write to.
func open(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gobtrfs-copy-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o777))
	return dir
}

func TestRoundTrip(t *testing.T) {
	dir := open(t)
	src, out, image := filepath.Join(dir, "src"), filepath.Join(dir, "out"), filepath.Join(dir, "vol.img")
	tree(t, src, os.Geteuid() == 0)
	ok(t, "mkfs", "-q", "--size", "256M", image)
	ok(t, "put", "-q", image, src, "/kept")
	ok(t, "get", "-q", image, "/kept", out)
	same(t, describe(t, src), describe(t, out))
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(out, "holes"), &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("the copy out has no holes: %d bytes", st.Blocks*512)
	}
	list := parse[[]entry](t, ok(t, "stat", "--json", image, "/kept/holes", "/kept/a/text"))
	if list[0].Allocated > 2<<20 {
		t.Errorf("the copy in has no holes: %d bytes", list[0].Allocated)
	}
	if list[1].Nlink != 2 {
		t.Errorf("%d links", list[1].Nlink)
	}
	if out := ok(t, "check", "--data", image); !strings.Contains(out, "No errors") {
		t.Error(out)
	}
	testenv.Check(t, image)
}

// TestRootDirSame: mkfs --rootdir keeps what put keeps.
func TestRootDirSame(t *testing.T) {
	dir := open(t)
	src, out, image := filepath.Join(dir, "src"), filepath.Join(dir, "out"), filepath.Join(dir, "vol.img")
	tree(t, src, os.Geteuid() == 0)
	ok(t, "mkfs", "-q", "--size", "256M", "--rootdir", src, "--compress", "zstd:3", image)
	must(t, os.Mkdir(out, 0o700))
	ok(t, "get", "-q", image, "/", out)
	same(t, describe(t, src), describe(t, out))
}

func same(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%q:\n want %s\n  got %s", name, w, got[name])
		}
	}
	for name := range got {
		if _, there := want[name]; !there {
			t.Errorf("%q is too much", name)
		}
	}
}

// TestOrdinaryUser: all the daily work, done by a user who is not root.
func TestOrdinaryUser(t *testing.T) {
	testenv.NeedRoot(t)
	const uid = 65534
	dir := open(t)
	self, err := os.Executable()
	must(t, err)
	program := filepath.Join(dir, "gobtrfs")
	must(t, testenv.CopySparse(self, program))
	must(t, os.Chmod(program, 0o755))
	src := filepath.Join(dir, "src")
	tree(t, src, false)
	must(t, filepath.WalkDir(src, func(name string, _ fs.DirEntry, _ error) error { return os.Lchown(name, uid, uid) }))
	must(t, os.Chmod(filepath.Join(src, "a/long"), 0o4711)) // chown took the bit
	as := func(args ...string) result {
		cmd := command(t, args...)
		cmd.Path = program
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return finish(t, cmd)
	}
	for _, args := range []string{
		"mkfs -q --size 256M vol.img", "put -q vol.img src /kept", "get -q vol.img /kept out", "subvolume create vol.img /live", "put -q vol.img src/a /live/a",
		"subvolume snapshot -r vol.img /live /s1", "subvolume snapshot vol.img /live /s2", "rm -r vol.img /live/a", "subvolume delete -q vol.img /s*", "check --data vol.img",
		"mkfs -q --size 256M --rootdir src two.img", "check --data two.img",
	} {
		if r := as(strings.Fields(args)...); r.code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
	same(t, describe(t, src), describe(t, filepath.Join(dir, "out")))

	// What belongs to others comes out as the user's own, and that is no failure.
	ok(t, "mkfs", "-q", "--size", "256M", filepath.Join(dir, "roots.img"))
	own := filepath.Join(dir, "own")
	write(t, filepath.Join(own, "file"), "of root")
	ok(t, "put", "-q", filepath.Join(dir, "roots.img"), own, "/own")
	if r := as("get", "-q", "roots.img", "/own", "mine"); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.err)
	}
	must(t, os.Chmod(filepath.Join(dir, "roots.img"), 0o644))
	if r := as("mkdir", "roots.img", "/d"); r.code != 1 || !strings.Contains(r.err, "permission denied") {
		t.Errorf("exit %d\n%s", r.code, r.err)
	}
}

// TestTar: GNU tar makes of the stream what was copied in.
func TestTar(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "tar")
	dir := open(t)
	src, image, stream, out := filepath.Join(dir, "src"), filepath.Join(dir, "v.img"), filepath.Join(dir, "t.tar"), filepath.Join(dir, "out")
	must(t, os.Mkdir(src, 0o755))
	tree(t, src, true)
	ok(t, "mkfs", "-q", "--size", "256M", "--rootdir", src, image)
	write(t, stream, ok(t, "get", "-q", image, "/", "-"))
	must(t, os.Mkdir(out, 0o755))
	testenv.Run(t, "tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", out, "-xpf", stream)
	same(t, describe(t, src), describe(t, out))
	write(t, stream, ok(t, "get", "-q", image, "/a/deep", "/dangling", "/a/long", "-"))
	names := strings.Fields(testenv.Run(t, "tar", "-tf", stream))
	slices.Sort(names) // a directory's order is its own
	if want := []string{"dangling", "deep/", "deep/er/", "deep/link", "deep/second", "long"}; !slices.Equal(names, want) {
		t.Errorf("the stream holds %q", names)
	}
}

// TestPutAgain: a put that was interrupted can be run again, whatever is there
// already.
func TestPutAgain(t *testing.T) {
	src, image := t.TempDir(), small(t)
	write(t, filepath.Join(src, "d", "file"), "text")
	must(t, os.Link(filepath.Join(src, "d", "file"), filepath.Join(src, "d", "hard")))
	must(t, os.Symlink("file", filepath.Join(src, "d", "link")))
	must(t, unix.Mkfifo(filepath.Join(src, "d", "pipe"), 0o600))
	want := describe(t, filepath.Join(src, "d"))
	for range 2 {
		ok(t, "put", "-q", image, filepath.Join(src, "d"), "/")
	}
	testenv.Check(t, image)
	to := t.TempDir()
	ok(t, "get", "-q", image, "/d", to)
	if got := describe(t, filepath.Join(to, "d")); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestPutReplaces: what is there is replaced, so files that have become two since do not get the same contents, and
// a symbolic link is not followed.
func TestPutReplaces(t *testing.T) {
	image, dir := small(t), t.TempDir()
	a, b, from := filepath.Join(dir, "from/a"), filepath.Join(dir, "from/b"), filepath.Join(dir, "from")
	must(t, os.Mkdir(from, 0o700))
	write(t, a, "first")
	must(t, os.Link(a, b))
	ok(t, "put", image, from, "/")
	must(t, os.Remove(b))
	write(t, b, "second")
	must(t, os.Chmod(b, 0o640))
	write(t, filepath.Join(dir, "mine"), "mine")
	ok(t, "put", image, filepath.Join(dir, "mine"), "/mine")
	must(t, os.Symlink("../mine", filepath.Join(from, "c")))
	ok(t, "put", image, filepath.Join(from, "c"), "/from/c")
	must(t, os.Remove(filepath.Join(from, "c")))
	write(t, filepath.Join(from, "c"), "third")
	ok(t, "put", image, from, "/")
	out := filepath.Join(dir, "out")
	ok(t, "get", "-q", image, "/from", out)
	same(t, describe(t, from), describe(t, out))
	if text := ok(t, "cat", image, "/mine"); text != "mine" {
		t.Errorf("a file elsewhere is now %q", text)
	}
}

// TestGetAgain: what is there is replaced, not written into: files that have become two stay two, and a file that is linked
// from elsewhere is left alone there.
func TestGetAgain(t *testing.T) {
	image, dir := small(t), t.TempDir()
	from, to, elsewhere := filepath.Join(dir, "from"), filepath.Join(dir, "to"), filepath.Join(dir, "elsewhere")
	must(t, os.Mkdir(from, 0o700))
	must(t, os.Mkdir(to, 0o700))
	write(t, filepath.Join(from, "a"), "first")
	write(t, filepath.Join(from, "b"), "second")
	must(t, os.Link(filepath.Join(from, "b"), filepath.Join(from, "c")))
	must(t, os.Symlink("a", filepath.Join(from, "link")))
	must(t, unix.Mkfifo(filepath.Join(from, "pipe"), 0o600))
	ok(t, "put", image, from, "/d")

	write(t, elsewhere, "mine")
	must(t, os.Mkdir(filepath.Join(to, "d"), 0o700))
	for _, name := range []string{"a", "b", "link"} {
		must(t, os.Link(elsewhere, filepath.Join(to, "d", name)))
	}
	for range 2 {
		ok(t, "get", "-q", image, "/d", to)
		same(t, describe(t, from), describe(t, filepath.Join(to, "d")))
	}
	if b, err := os.ReadFile(elsewhere); err != nil || string(b) != "mine" {
		t.Errorf("a file elsewhere is now %q, %v", b, err)
	}
	pipe := filepath.Join(to, "d", "pipe")
	fails(t, 1, []string{pipe, "exists"}, "get", "-q", image, "/d/a", pipe)
	must(t, os.Mkdir(filepath.Join(to, "a"), 0o700))
	fails(t, 1, []string{filepath.Join(to, "a"), "is a directory"}, "get", "-q", image, "/d/a", to)
}

// TestTarHoles: GNU tar makes of the stream files with the same bytes and the same holes, and archive/tar reads it; a GiB of nothing takes no room.
func TestTarHoles(t *testing.T) {
	testenv.NeedProgram(t, "tar")
	dir := open(t)
	src, image, stream, out := filepath.Join(dir, "src"), filepath.Join(dir, "v.img"), filepath.Join(dir, "t.tar"), filepath.Join(dir, "out")
	must(t, os.Mkdir(src, 0o755))
	must(t, os.Mkdir(out, 0o755))
	sparse(t, filepath.Join(src, "ends in data"), 9<<20+5, 0, 1<<20, 9<<20)
	sparse(t, filepath.Join(src, "ends in a hole "+strings.Repeat("long ", 40)), 30<<20+1, 3<<20, 20<<20)
	sparse(t, filepath.Join(src, "only a hole"), 7<<20)
	record := "x\n26 GNU-sparse.realsize=5242880\n" // a name that looks like a record of its own header
	sparse(t, filepath.Join(src, record), 5<<20, 0)
	sparse(t, filepath.Join(src, "huge"), 1<<30, 1<<29)
	write(t, filepath.Join(src, "plain"), "text")
	ok(t, "mkfs", "-q", "--size", "256M", image)
	ok(t, "put", "-q", image, filepath.Join(src, "."), "/src")
	write(t, stream, ok(t, "get", "-q", image, "/src", "-"))
	if fi, err := os.Stat(stream); err != nil || fi.Size() > 8<<20 { // put takes a MiB at a time
		t.Fatalf("the stream is not small: %v, %v", fi.Size(), err)
	}
	testenv.Run(t, "tar", "-C", out, "-xpSf", stream)
	for _, name := range []string{"ends in data", "ends in a hole " + strings.Repeat("long ", 40), "only a hole", "plain", "huge", record} {
		want, got := filepath.Join(src, name), filepath.Join(out, "src", name)
		if a, b := dataOf(t, want), dataOf(t, got); a != b {
			t.Errorf("%s: data at %s, want %s", name, b, a)
		}
		var st unix.Stat_t
		must(t, unix.Stat(got, &st))
		if name != "plain" && st.Blocks*512 > 4<<20 {
			t.Errorf("%s takes %d bytes", name, st.Blocks*512)
		}
	}
	f, err := os.Open(stream)
	must(t, err)
	defer f.Close()
	sizes := map[string]int64{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		sizes[h.Name] = h.Size
	}
	if len(sizes) != 7 || sizes["src/huge"] != 1<<30 || sizes["src/only a hole"] != 7<<20 || sizes["src/"+record] != 5<<20 {
		t.Errorf("archive/tar reads %v", sizes)
	}
}

// sparse makes a file with some text at some places.
func sparse(t *testing.T, path string, size int64, places ...int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	for _, at := range places {
		_, err := fmt.Fprintf(io.NewOffsetWriter(f, at), "%5d", at%99991)
		must(t, err)
	}
	must(t, f.Close())
}

// dataOf tells the size of a file and what is in its blocks that are not zero.
func dataOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	fi, err := f.Stat()
	must(t, err)
	text := fmt.Sprint(fi.Size())
	b := make([]byte, 4096)
	for at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err == nil; at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA) {
		at -= at % int64(len(b))
		n, _ := f.ReadAt(b, at)
		if !isZero(b[:n]) {
			text += fmt.Sprintf(" %d:%s", at, bytes.Trim(b[:n], "\x00"))
		}
		at += int64(len(b))
	}
	return text
}
