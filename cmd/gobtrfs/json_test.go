package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// world makes a volume with a bit of everything: /etc/hosts, a link to it, a file
// that is not UTF-8, a subvolume /sub with /sub/file, two read-only snapshots.
func world(t testing.TB) string {
	t.Helper()
	src := t.TempDir()
	write(t, filepath.Join(src, "etc/hosts"), "127.0.0.1 localhost\n")
	write(t, filepath.Join(src, "bad\xffname"), "odd\n")
	write(t, filepath.Join(src, "sub/file"), strings.Repeat("some text\n", 10000))
	must(t, os.Symlink("etc/hosts", filepath.Join(src, "link")))
	image := filepath.Join(testenv.Scratch(t), "world.img")
	ok(t, "mkfs", "-q", "--size", "256M", "--rootdir", src, "--subvol", "sub", "-L", "world", image)
	ok(t, "subvolume", "snapshot", "-r", image, "/sub", "/snap1")
	write(t, filepath.Join(src, "more"), strings.Repeat("more", 20000))
	ok(t, "put", "-q", image, filepath.Join(src, "more"), "/sub/more")
	ok(t, "subvolume", "snapshot", "-r", image, "/sub", "/snap2")
	ok(t, "rm", image, "/sub/more")
	return image
}

func TestJSON(t *testing.T) {
	image := world(t)
	for _, c := range []struct {
		args    string // % is the target
		members string
	}{
		{"subvolume show --json % /snap1", "id parent path readonly generation created uuid parent_uuid"},
		{"subvolume get-default --json %", "id path"},
		{"filesystem show --json %", "label uuid bytes_used total_bytes generation nodesize sectorsize checksum features devices"},
		{"filesystem usage --json %", "device_size device_allocated device_unallocated used_on_disk groups devices"},
		{"check --json %", "errors warnings findings"},
		{"check --json --data %", "errors warnings findings"},
		{"subvolume delete --dry-run --json % /snap1 /snap2", "subvolumes tree_blocks metadata_bytes data_extents data_bytes checksum_bytes disk_bytes"},
	} {
		t.Run(c.args, func(t *testing.T) {
			out := ok(t, strings.Fields(strings.ReplaceAll(c.args, "%", image))...)
			members(t, parse[map[string]any](t, out), strings.Fields(c.members)...)
		})
	}
	for _, c := range []struct {
		args    string
		n       int // members of the array
		members string
	}{
		{"ls --json %", 6, "name type size mode uid gid nlink inode mtime"},
		{"ls -R --json %", 11, "name path type size mode uid gid nlink inode mtime"},
		{"ls --json % /etc/hosts", 1, "name type size"},
		{"stat --json % / /etc/hosts", 2, "name type size mode uid gid nlink inode mtime atime ctime otime subvolume"},
		{"subvolume list --json %", 3, "id parent path readonly generation created uuid"},
		{"subvolume list --json -r %", 2, "id path"},
		{"subvolume list --json -s %", 2, "id parent_uuid"},
		{"subvolume list --json --deleted %", 0, ""},
		{"filesystem df --json %", 3, "type profile total used total_on_disk used_on_disk"},
	} {
		t.Run(c.args, func(t *testing.T) {
			out := ok(t, strings.Fields(strings.ReplaceAll(c.args, "%", image))...)
			list := parse[[]map[string]any](t, out)
			if len(list) != c.n {
				t.Fatalf("%d members, want %d:\n%s", len(list), c.n, out)
			}
			for _, o := range list {
				members(t, o, strings.Fields(c.members)...)
			}
		})
	}
}

// TestListEntries looks at the values that ls --json gives.
func TestListEntries(t *testing.T) {
	byName := map[string]entry{}
	for _, e := range parse[[]entry](t, ok(t, "ls", "--json", world(t))) {
		byName[e.Name] = e
	}
	if e := byName["link"]; e.Type != "symlink" || e.Target == nil || *e.Target != "etc/hosts" {
		t.Errorf("link: %+v", e)
	}
	if e := byName["sub"]; e.Type != "dir" || e.Subvolume < 256 {
		t.Errorf("sub: %+v", e)
	}
	odd := false
	for _, e := range byName {
		odd = odd || e.NameB64 == "YmFk/25hbWU="
	}
	if !odd {
		t.Errorf("the name that is not UTF-8 is missing: %+v", byName)
	}
}

// TestText: what the commands print for people names what they are about.
func TestText(t *testing.T) {
	image := world(t)
	for args, want := range map[string]string{
		"ls %":                                       "etc\n",
		"ls -l %":                                    "link -> etc/hosts",
		"cat % /etc/hosts /etc/hosts":                "127.0.0.1 localhost\n127.0.0.1 localhost\n",
		"cat % /link":                                "127.0.0.1 localhost\n",
		"stat % /etc/hosts":                          "Size: 20B",
		"stat --raw % /etc/hosts":                    "Size: 20 ",
		"subvolume list %":                           "path snap1\n",
		"subvolume show % /snap1":                    "Read-only:       true",
		"subvolume get-default %":                    "ID 5",
		"filesystem show %":                          `Label: "world"`,
		"filesystem df %":                            "Metadata, DUP: total=",
		"filesystem usage --raw %":                   "268435456",
		"filesystem label %":                         "world\n",
		"check %":                                    "No errors found",
		"check --data %":                             "No errors found",
		"inspect dump-super %":                       "label",
		"inspect dump-tree -t root %":                "ROOT_ITEM",
		"subvolume delete --dry-run % /snap1 /snap2": "Deleting 2 subvolumes",
		"version":                                    "gobtrfs " + version,
	} {
		if out := ok(t, strings.Fields(strings.ReplaceAll(args, "%", image))...); !strings.Contains(out, want) {
			t.Errorf("%s does not print %q:\n%s", args, want, out)
		}
	}
}

// TestHelp: every command tells how it is used, and completion works for the shells.
func TestHelp(t *testing.T) {
	for _, args := range []string{
		"help", "help mkfs", "tour --help", "mkfs --help", "ls --help", "cat --help", "get --help", "put --help", "rm --help", "mkdir --help",
		"mv --help", "ln --help", "stat --help", "subvolume --help", "subvolume delete --help", "filesystem --help", "check --help", "inspect --help",
	} {
		if out := ok(t, strings.Fields(args)...); !strings.Contains(out, "Usage:") {
			t.Errorf("%s: no usage:\n%s", args, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := ok(t, "completion", shell); !strings.Contains(out, "gobtrfs") {
			t.Errorf("completion %s:\n%s", shell, out)
		}
	}
	if out := ok(t, "__complete", "subvolume", "sn"); !strings.Contains(out, "snapshot") {
		t.Errorf("completion of a verb:\n%s", out)
	}
}
