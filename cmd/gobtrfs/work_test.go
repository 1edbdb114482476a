package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestReproducible: the same input gives the same bytes, wherever it lies and whenever
// it is taken.
func TestReproducible(t *testing.T) {
	src := t.TempDir()
	for i := range 60 {
		write(t, filepath.Join(src, fmt.Sprintf("d%d/f%d", i%7, i)), strings.Repeat(fmt.Sprint(i), 1+i*i*13))
	}
	must(t, os.Link(filepath.Join(src, "d0/f0"), filepath.Join(src, "d1/again")))
	scratch := testenv.Scratch(t)
	for _, more := range [][]string{nil, {"--compress", "zstd:3", "--subvol", "ro:d1", "--shrink"}} {
		var sums [2][]byte
		for i := range sums {
			image := filepath.Join(scratch, fmt.Sprintf("%d.img", i))
			os.Remove(image)
			args := append([]string{"mkfs", "-q", "--size", "256M", "--reproducible", "--rootdir", src, "-L", "same", image}, more...)
			ok(t, args...)
			sums[i], _ = digest(t, image)
			ok(t, "check", "--data", image)
		}
		if !bytes.Equal(sums[0], sums[1]) {
			t.Errorf("%v: two runs differ", more)
		}
	}
}

// TestMkfs: what is asked for is what the volume says it is.
func TestMkfs(t *testing.T) {
	scratch := testenv.Scratch(t)
	one, two := filepath.Join(scratch, "1.img"), filepath.Join(scratch, "2.img")
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	target := one + "," + two
	out := ok(t, "mkfs", "--size", "512M", "-L", "named", "-U", uuid, "-n", "8K", "--checksum", "xxhash", "-d", "raid0", "-m", "raid1", "-O", "^free-space-tree", target)
	if !strings.Contains(out, uuid) {
		t.Errorf("mkfs printed %s", out)
	}
	info := parse[struct {
		Label, UUID, Checksum string
		Nodesize              int
		Features              []string
		Devices               []struct{ Size uint64 }
	}](t, ok(t, "filesystem", "show", "--json", target))
	if info.Label != "named" || info.UUID != uuid || info.Checksum != "xxhash" && info.Checksum != "xxhash64" || info.Nodesize != 8192 || len(info.Devices) != 2 || info.Devices[0].Size != 512<<20 {
		t.Errorf("%+v", info)
	}
	df := ok(t, "filesystem", "df", target)
	for _, want := range []string{"Data, RAID0", "Metadata, RAID1", "System, RAID1"} {
		if !strings.Contains(df, want) {
			t.Errorf("no %s:\n%s", want, df)
		}
	}
	ok(t, "filesystem", "label", target, "renamed")
	if out := ok(t, "filesystem", "label", target); out != "renamed\n" {
		t.Errorf("label %q", out)
	}
	ok(t, "check", "--data", target)
	testenv.Check(t, one, two)
}

// TestFiles: the small commands for files.
func TestFiles(t *testing.T) {
	image := small(t)
	local := filepath.Join(t.TempDir(), "local")
	write(t, local, "text\n")
	ok(t, "mkdir", "-m", "750", image, "/a", "/b")
	ok(t, "mkdir", "-p", image, "/a", "/a/x/y")
	ok(t, "put", "-q", image, local, local, "/a") // twice the same is one
	ok(t, "put", "-q", image, local, "/a/named")
	ok(t, "ln", image, "/a/named", "/b/other")
	ok(t, "ln", "-s", image, "../a/named", "/b/sym")
	ok(t, "mv", image, "/a/local", "/a/named", "/b")
	ok(t, "mv", image, "/a/x", "/a/z")
	ok(t, "mv", "--exchange", image, "/a/z", "/b/local")
	fails(t, 1, []string{"missing"}, "rm", image, "/missing")
	ok(t, "rm", "-f", image, "/missing")
	ok(t, "rm", "-r", image, "/b/local")
	if out := ok(t, "ls", "-R", image); out != "a\na/z\nb\nb/named\nb/other\nb/sym\n" {
		t.Errorf("%s", out)
	}
	if out := ok(t, "cat", image, "/a/z", "/b/named"); out != "text\ntext\n" {
		t.Errorf("%q", out)
	}
	if e := parse[[]entry](t, ok(t, "stat", "--json", image, "/a"))[0]; e.Mode != "0750" {
		t.Errorf("%+v", e)
	}
	ok(t, "check", "--data", image)
	testenv.Check(t, image)
}

// TestDelete: many at once, by pattern; a dry run tells what the deletion then gives
// back; --no-drop leaves ghosts, which are listed, finished by --ghosts or by the next
// writer.
func TestDelete(t *testing.T) {
	image := small(t)
	dir := t.TempDir()
	ok(t, "subvolume", "create", image, "/live")
	for i := range 5 {
		write(t, filepath.Join(dir, "f"), strings.Repeat(fmt.Sprint(i), 100000+i))
		ok(t, "put", "-q", image, filepath.Join(dir, "f"), fmt.Sprintf("/live/f%d", i))
		ok(t, "subvolume", "snapshot", "-r", image, "/live", fmt.Sprintf("/s%d", i))
		ok(t, "rm", image, fmt.Sprintf("/live/f%d", i))
	}
	plan := parse[map[string]uint64](t, ok(t, "subvolume", "delete", "--dry-run", "--json", image, "/s[0-2]"))
	done := parse[map[string]any](t, ok(t, "subvolume", "delete", "--json", image, "/s[0-2]"))
	for p, d := range map[string]string{"subvolumes": "subvolumes", "tree_blocks": "tree_blocks_freed", "data_extents": "data_extents_freed", "data_bytes": "data_bytes_freed", "metadata_bytes": "metadata_bytes_freed"} {
		if float64(plan[p]) != done[d].(float64) {
			t.Errorf("dry run: %s %d; done: %v", p, plan[p], done[d])
		}
	}
	if plan["subvolumes"] != 3 || plan["data_bytes"] == 0 {
		t.Errorf("%v", plan)
	}
	ok(t, "subvolume", "delete", "--no-drop", image, "/s3")
	ghosts := parse[[]subvolumeJSON](t, ok(t, "subvolume", "list", "--deleted", "--json", image))
	if len(ghosts) != 1 || !ghosts[0].Deleted {
		t.Errorf("ghosts: %+v", ghosts)
	}
	ok(t, "check", "--data", image)
	done = parse[map[string]any](t, ok(t, "subvolume", "delete", "--ghosts", "--json", image))
	if done["subvolumes"].(float64) != 1 {
		t.Errorf("%v", done)
	}
	ok(t, "subvolume", "delete", "-q", "--no-drop", image, "/s4")
	if r := gobtrfs(t, "mkdir", image, "/d"); r.code != 0 || !strings.Contains(r.err, "finished dropping 1 ") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if out := ok(t, "subvolume", "list", "--deleted", image); out != "" {
		t.Errorf("%s", out)
	}
	ok(t, "check", "--data", image)
	testenv.Check(t, image)
}

// TestHalfDropped: what the kernel left in the middle of a drop is finished by hand and
// by the next writer.
func TestHalfDropped(t *testing.T) {
	for _, name := range []string{"half-drop", "half-drop-many", "half-drop-shared", "dead-roots-many"} {
		image := testenv.Image(t, name)
		before := len(parse[[]subvolumeJSON](t, ok(t, "subvolume", "list", "-d", "--json", image)))
		if before == 0 {
			t.Fatalf("%s has no ghosts", name)
		}
		plan := parse[map[string]uint64](t, ok(t, "subvolume", "delete", "--ghosts", "--dry-run", "--json", image))
		done := parse[map[string]any](t, ok(t, "subvolume", "delete", "--ghosts", "--json", image))
		for p, d := range map[string]string{"subvolumes": "subvolumes", "tree_blocks": "tree_blocks_freed", "data_extents": "data_extents_freed", "data_bytes": "data_bytes_freed"} {
			if float64(plan[p]) != done[d].(float64) {
				t.Errorf("%s: dry run: %s %d; done: %v", name, p, plan[p], done[d])
			}
		}
		if int(done["subvolumes"].(float64)) != before {
			t.Errorf("%s: %d ghosts, dropped %v", name, before, done)
		}
		ok(t, "check", "--data", image)
		testenv.Check(t, image)
	}
}

// TestDefault: the default subvolume is told, set, and not deleted.
func TestDefault(t *testing.T) {
	image := world(t)
	ok(t, "subvolume", "set-default", image, "/snap1")
	if d := parse[subvolumeJSON](t, ok(t, "subvolume", "get-default", "--json", image)); d.Path != "/snap1" && d.Path != "snap1" {
		t.Errorf("%+v", d)
	}
	fails(t, 1, []string{"default"}, "subvolume", "delete", image, "/snap1", "/snap2")
	if n := len(parse[[]subvolumeJSON](t, ok(t, "subvolume", "list", "--json", image))); n != 3 {
		t.Errorf("%d subvolumes left of 3", n)
	}
	testenv.Check(t, image)
}

// TestTour: the tour works on a small directory for a user whose home is empty, and
// leaves nothing behind.
func TestTour(t *testing.T) {
	home, tmp, src := t.TempDir(), t.TempDir(), t.TempDir()
	for i := range 80 {
		write(t, filepath.Join(src, fmt.Sprintf("d%d/f%d", i%5, i)), strings.Repeat("line of text\n", 1+i*7))
	}
	cmd := command(t, "tour", src)
	cmd.Env = append(cmd.Env, "HOME="+home, "TMPDIR="+tmp)
	r := finish(t, cmd)
	for _, want := range []string{"100 snapshots", "are free again", "no errors"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the tour does not tell %q", want)
		}
	}
	if r.code != 0 || r.err != "" || t.Failed() {
		t.Fatalf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	for _, dir := range []string{home, tmp} {
		if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
			t.Errorf("left behind: %v %v", list, err)
		}
	}
}
