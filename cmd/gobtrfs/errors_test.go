package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestWrongUse: status 2 and where help is.
func TestWrongUse(t *testing.T) {
	for _, args := range []string{
		"", "nonsense", "ls", "cat x", "ls --nonsense x", "mkfs", "mkfs a b", "subvolume", "subvolume nonsense", "subvolume snapshot x", "subvolume delete x",
		"filesystem", "mkfs --size many x", "mkfs -u nonsense:d x", "mkfs --shrink x", "mkfs -U nonsense x", "mkdir -m 9 x /d", "inspect dump-tree -t nonsense x", "mv x /a", "get x /a",
	} {
		t.Run(args, func(t *testing.T) {
			r := fails(t, 2, nil, strings.Fields(args)...)
			if r.err == "" {
				t.Error("nothing on standard error")
			}
		})
	}
}

// TestNumbers: negative and absurd numbers are refused as wrong use, the error names
// them, and nothing is made or changed.
func TestNumbers(t *testing.T) {
	image := small(t)
	before, fi := digest(t, image)
	fresh := filepath.Join(testenv.Scratch(t), "fresh.img")
	for _, c := range []struct{ args, word string }{
		{"mkfs --size -1 NEW", "-1"}, {"mkfs --size 0 NEW", "size of 0"}, {"mkfs --size 8E NEW", "8E"}, {"mkfs --size 99999999999G NEW", "99999999999G"},
		{"mkfs --size 4.5G NEW", "4.5G"}, {"mkfs --size 1M NEW", "fewer than"}, {"mkfs --size 1G -n 5000 NEW", "5000"}, {"mkfs --size 1G -n -4096 NEW", "-4096"},
		{"mkfs --size 1G -n 128K NEW", "131072"}, {"mkfs --size 1G -n 8G NEW", "8.00GiB"}, {"mkfs --size 1G -s 0 NEW", "size of 0"}, {"mkfs --size 1G -s 512 NEW", "512"},
		{"mkfs --size 1G --compress zstd:99 -r DIR NEW", "99"}, {"mkfs --size 1G --compress zlib:-1 -r DIR NEW", "-1"},
		{"mkfs --size 1G -d nonsense NEW", "nonsense"}, {"mkfs --size 1G -O nonsense NEW", "nonsense"}, {"mkfs --size 1G --checksum nonsense NEW", "nonsense"},
		{"subvolume delete --budget -1 % /x", "-1"}, {"subvolume delete --budget 99999999999 % /x", "99999999999"},
		{"subvolume delete --budget 99999999999999999999 % /x", "99999999999999999999"}, {"subvolume delete --rate -1 % /x", "-1"},
		{"subvolume delete --rate 1 % /x", "4.00KiB"}, {"subvolume undelete % -7", ""}, {"subvolume undelete % 1e3", "1e3"},
		{"filesystem du --snapshots --free -1 %", "-1"},
		{"ls --super 0 %", "\"0\""}, {"ls --super 4 %", "\"4\""}, {"cat --backup -1 % /x", "-1"}, {"stat --backup 5 % /", "\"5\""},
		{"inspect dump-tree -b -1 %", "-1"}, {"inspect dump-tree -b 99999999999999999999 %", "99999999999999999999"}, {"inspect dump-tree -t 99999999999999999999 %", "99999999999999999999"},
		{"mkdir -m -1 % /d", "-1"}, {"mkdir -m 17777 % /d", "17777"},
	} {
		t.Run(c.args, func(t *testing.T) {
			put := strings.NewReplacer("%", image, "NEW", fresh, "DIR", filepath.Dir(image))
			fails(t, 2, []string{c.word}, strings.Fields(put.Replace(c.args))...)
		})
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an image was left: %v", err)
	}
	if after, fi2 := digest(t, image); !bytes.Equal(before, after) || !fi.ModTime().Equal(fi2.ModTime()) {
		t.Error("the image changed")
	}
}

// TestErrors: status 1, and an error that names verb, target, what and why.
func TestErrors(t *testing.T) {
	image := world(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "text"), strings.Repeat("no volume at all\n", 20000))
	write(t, filepath.Join(dir, "tiny"), "x")
	write(t, filepath.Join(dir, "zst"), "\x28\xb5\x2f\xfd"+strings.Repeat("x", 70<<10))
	for _, c := range []struct{ args, words string }{
		{"ls NO/nothing.img", "ls|NO/nothing.img|no such file"},
		{"ls NO/text", "ls|NO/text"},
		{"ls NO/tiny", "ls|NO/tiny"},
		{"ls NO/zst", "ls: NO/zst|no Btrfs volume|zstd; decompress"},
		{"ls NO", "ls|NO"},
		{"check NO/text", "check|NO/text"},
		{"ls % /missing", "ls: %|missing|not exist"},
		{"cat % /etc", "cat: %|etc|directory"},
		{"cat % /etc/hosts/x", "cat: %|not a directory"},
		{"rm % /etc", "rm: %|/etc|-r"},
		{"rm % /missing", "rm: %|missing"},
		{"rm -r % /sub", "rm: %"},
		{"mkdir % /etc", "mkdir: %|etc|exist"},
		{"mkdir % /a/b", "mkdir: %|not exist"},
		{"mv % /missing /x", "mv: %|missing"},
		{"mv % /etc/hosts /snap1/hosts", "mv: %"},
		{"ln % /etc/hosts /sub/hosts", "ln: %|subvolume"},
		{"put % NO/text /snap1/text", "put: %|read-only"},
		{"put % NO/nothing /x", "put: %|nothing|no such file"},
		{"rm % /snap1/file", "rm: %|read-only"},
		{"mkdir % /snap1/d", "mkdir: %|read-only"},
		{"subvolume create % /snap1/s", "subvolume create: %|read-only"},
		{"subvolume create % /etc", "subvolume create: %|exist"},
		{"subvolume delete % /etc", "subvolume delete: %|not a subvolume"},
		{"subvolume delete % /", "subvolume delete: %"},
		{"subvolume delete % /none*", "subvolume delete: %|none*"},
		{"subvolume show % /etc/hosts", "subvolume show: %|not a subvolume"},
		{"subvolume snapshot % /etc /x", "subvolume snapshot: %|not a subvolume"},
		{"subvolume set-default % /etc", "subvolume set-default: %|not a subvolume"},
		{"mkfs -q %", "mkfs: %|-f"},
		{"mkfs -q NO/nothing.img", "mkfs: NO/nothing.img|--size"},
		{"mkfs -q -f -r NO/nothing %", "mkfs: %|NO/nothing"},
		{"tour NO/nothing", "tour: |NO/nothing"},
	} {
		t.Run(c.args, func(t *testing.T) {
			put := strings.NewReplacer("%", image, "NO", dir)
			fails(t, 1, strings.Split(put.Replace(c.words), "|"), strings.Fields(put.Replace(c.args))...)
		})
	}
	if out := ok(t, "check", "--data", image); !strings.Contains(out, "No errors") {
		t.Error(out)
	}
	testenv.Check(t, image)
}

// TestTruncated: the beginning of an image alone is told to be that, and never crashes
// the command.
func TestTruncated(t *testing.T) {
	full := world(t)
	for _, size := range []int64{0, 64 << 10, 64<<10 + 4095, 68 << 10, 1 << 20, 20 << 20, 200 << 20} {
		image := filepath.Join(testenv.Scratch(t), "cut.img")
		must(t, testenv.CopySparse(full, image))
		must(t, os.Truncate(image, size))
		fails(t, 1, []string{"rm: ", image}, "rm", image, "/link")
		for _, args := range [][]string{{"ls", "-R", image}, {"check", "--data", image}, {"filesystem", "show", image}} {
			if r := gobtrfs(t, args...); r.code > 1 || r.code < 0 || strings.Contains(r.err, "goroutine ") {
				t.Errorf("%d bytes: %v: exit %d\n%s", size, args, r.code, r.err)
			}
		}
	}
}

// TestLocked: a volume that is open for writing is refused to other writers, and
// they are told why.
func TestLocked(t *testing.T) {
	image := small(t)
	v, err := btrfs.Open(t.Context(), image, btrfs.Options{})
	must(t, err)
	fails(t, 1, []string{"mkdir: ", image, "open elsewhere"}, "mkdir", image, "/d")
	fails(t, 1, []string{"mkfs: ", image, "open elsewhere"}, "mkfs", "-q", "-f", image)
	must(t, v.Close())
	ok(t, "mkdir", image, "/d")
}

// TestMissingDevice: a volume that lacks a device can be read as far as its profiles
// allow, and the missing device is named.
func TestMissingDevice(t *testing.T) {
	image := strings.Join(testenv.Images(t, "deg-raid1"), ",")
	shown := parse[struct {
		Devices []struct{ Missing bool }
	}](t, ok(t, "filesystem", "show", "--json", image))
	missing := 0
	for _, d := range shown.Devices {
		if d.Missing {
			missing++
		}
	}
	if want := len(testenv.ReadManifest(t, "deg-raid1", "").MissingDevids); missing != want {
		t.Errorf("%d devices missing, want %d", missing, want)
	}
	if out := ok(t, "filesystem", "show", image); !strings.Contains(out, "MISSING") {
		t.Error(out)
	}
	ok(t, "ls", "-R", image)
	fails(t, 1, []string{"mkdir: ", image, "missing"}, "mkdir", image, "/d")
	whole := testenv.Images(t, "prof-raid0")
	fails(t, 1, []string{whole[0]}, "check", "--data", whole[0])
	ok(t, "mkdir", strings.Join(whole, ","), "/d")
}

// TestUnknownFeatures: features that this version does not know are named.
func TestUnknownFeatures(t *testing.T) {
	for name, feature := range map[string]string{"exp-remap-tree": "remap", "exp-raid-stripe-tree": "raid"} {
		image := strings.Join(testenv.Images(t, name), ",")
		r := fails(t, 1, []string{"mkdir: ", image}, "mkdir", image, "/d")
		if !strings.Contains(strings.ToLower(r.err), feature) {
			t.Errorf("%s: the feature is not named: %s", name, r.err)
		}
	}
}

// TestCheckFindsErrors: damage is status 1 and findings with places, in both forms.
func TestCheckFindsErrors(t *testing.T) {
	image := testenv.Image(t, "bad-data-single")
	ok(t, "check", image)
	r := gobtrfs(t, "check", "--data", image)
	if r.code != 1 || !strings.Contains(r.out, "error: ") || r.err != "" {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	r = gobtrfs(t, "check", "--data", "--json", image)
	doc := parse[struct {
		Errors   int
		Findings []map[string]any
	}](t, r.out)
	if r.code != 1 || doc.Errors == 0 || len(doc.Findings) == 0 {
		t.Fatalf("exit %d\n%s", r.code, r.out)
	}
	members(t, doc.Findings[0], "severity", "what", "text")
}

// TestGetDamaged: what cannot be read is named, the rest is copied, the status is 1.
func TestGetDamaged(t *testing.T) {
	image := testenv.Image(t, "bad-data-single")
	dir := t.TempDir()
	fails(t, 1, []string{"get: "}, "get", "-q", image, "/", filepath.Join(dir, "out"))
	n := 0
	must(t, filepath.WalkDir(dir, func(string, os.DirEntry, error) error { n++; return nil }))
	if n < 3 {
		t.Errorf("only %d files were copied", n)
	}
}

// TestDryRun: not a byte changes, nor the times of the file.
func TestDryRun(t *testing.T) {
	image := world(t)
	before, fi := digest(t, image)
	ok(t, "subvolume", "delete", "--dry-run", image, "/snap*", "/sub")
	ok(t, "ls", "-R", image)
	ok(t, "check", "--data", image)
	after, fi2 := digest(t, image)
	if !bytes.Equal(before, after) || !fi.ModTime().Equal(fi2.ModTime()) {
		t.Error("the image changed")
	}
	half := testenv.Image(t, "half-drop")
	before, _ = digest(t, half)
	ok(t, "subvolume", "list", "--deleted", half)
	ok(t, "subvolume", "delete", "--dry-run", "--ghosts", half)
	if after, _ = digest(t, half); !bytes.Equal(before, after) {
		t.Error("a half-dropped volume changed")
	}
}

func digest(t testing.TB, name string) ([]byte, os.FileInfo) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	h := sha256.New()
	_, err = io.Copy(h, f)
	fi, serr := f.Stat()
	must(t, errors.Join(err, serr, f.Close()))
	return h.Sum(nil), fi
}

// TestLostOutput: what could not be printed is a failure, of commands too that print without asking.
func TestLostOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil && !testenv.CI() {
		t.Skip(err)
	}
	must(t, err)
	defer full.Close()
	image := world(t)
	for _, args := range []string{"stat % /etc", "check %", "ls %", "cat % /etc/hosts", "get -q % / -", "restore -D % NO", "filesystem show %", "subvolume list %", "version"} {
		t.Run(args, func(t *testing.T) {
			cmd := command(t, strings.Fields(strings.ReplaceAll(args, "%", image))...)
			var stderr strings.Builder
			cmd.Stdout, cmd.Stderr = full, &stderr
			if cmd.Run(); cmd.ProcessState.ExitCode() != 1 || strings.Count(stderr.String(), "no space left") != 1 {
				t.Errorf("%v: %s", cmd.ProcessState, stderr.String())
			}
		})
	}
}
