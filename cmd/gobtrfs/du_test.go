package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestDu: a file in one snapshot alone is that one's; a file that two share, and nobody
// else, is neither's but the set's. What is told is what a deletion then gives back.
func TestDu(t *testing.T) {
	image := small(t)
	dir := t.TempDir()
	ok(t, "subvolume", "create", image, "/live")
	for i, snaps := range [][]string{{"/s1"}, {"/s2", "/s3"}} {
		write(t, filepath.Join(dir, "f"), strings.Repeat(fmt.Sprint(i), 1<<20))
		ok(t, "put", "-q", image, filepath.Join(dir, "f"), "/live/f")
		for _, s := range snaps {
			ok(t, "subvolume", "snapshot", "-r", image, "/live", s)
		}
		ok(t, "rm", image, "/live/f")
	}
	before, _ := digest(t, image)
	d := parse[sizesJSON](t, ok(t, "filesystem", "du", "--snapshots", "--json", image))
	want := map[string]uint64{"/s1": 1 << 20, "/s2": 0, "/s3": 0}
	if len(d.Snapshots) != len(want) {
		t.Fatalf("%+v", d)
	}
	for _, s := range d.Snapshots {
		if s.Plan == nil || s.Plan.DataBytes != want[s.Path] {
			t.Errorf("%s: %+v %s", s.Path, s.Plan, s.Error)
		}
	}
	if d.Set.DataBytes != 2<<20 || d.Set.Roots != 3 {
		t.Errorf("set: %+v", d.Set)
	}
	pair := parse[sizesJSON](t, ok(t, "filesystem", "du", "--snapshots", "--json", image, "/s[23]"))
	if len(pair.Snapshots) != 2 || pair.Set.DataBytes != 1<<20 {
		t.Errorf("%+v", pair)
	}
	if out := ok(t, "filesystem", "du", "--snapshots", image); !strings.Contains(out, "1.00MiB") || !strings.Contains(out, "all 3 at once") {
		t.Errorf("%s", out)
	}
	if after, _ := digest(t, image); string(before) != string(after) {
		t.Error("the image changed")
	}
	done := parse[map[string]any](t, ok(t, "subvolume", "delete", "--json", image, "/s*"))
	if done["data_bytes_freed"].(float64) != float64(d.Set.DataBytes) || done["tree_blocks_freed"].(float64) != float64(d.Set.TreeBlocks) {
		t.Errorf("told %+v, freed %v", d.Set, done)
	}
	fails(t, 2, []string{"--snapshots"}, "filesystem", "du", image)
}
