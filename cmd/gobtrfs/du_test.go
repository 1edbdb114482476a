package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
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
	for size, want := range map[string]string{"1M": "/s1", "1K": "/s1", "1500K": "/s1 /s2 /s3", "0": ""} {
		few := sameAsDryRun(t, image, "--free", size)[0]
		if got := strings.Join(few.Paths, " "); got != want || !few.Exact {
			t.Errorf("--free %s: %s, want %s", size, got, want)
		}
	}
	if c := sameAsDryRun(t, image, "--free", "1M", "/s[23]"); len(c[0].Paths) != 2 || len(c[1].Paths) != 2 {
		t.Errorf("%+v", c)
	}
	if out := ok(t, "filesystem", "du", "--snapshots", "--free", "1M", image); !strings.HasPrefix(out, "These 1 give back at least 1.00MiB (no fewer do):\n  /s1\nTogether: 1.00MiB of data") {
		t.Errorf("%s", out)
	}
	fails(t, 1, []string{"all 3 snapshots together", "2.0"}, "filesystem", "du", "--snapshots", "--free", "1G", image)
	fails(t, 1, []string{"/none"}, "filesystem", "du", "--snapshots", image, "/none")
	if after, _ := digest(t, image); string(before) != string(after) {
		t.Error("the image changed")
	}
	done := parse[map[string]any](t, ok(t, "subvolume", "delete", "--json", image, "/s*"))
	if done["data_bytes_freed"].(float64) != float64(d.Set.DataBytes) || done["tree_blocks_freed"].(float64) != float64(d.Set.TreeBlocks) {
		t.Errorf("told %+v, freed %v", d.Set, done)
	}
	fails(t, 2, []string{"--snapshots"}, "filesystem", "du", image)
}

// sameAsDryRun asks for sets to delete, and a dry run whether they give back what is told.
func sameAsDryRun(t *testing.T, image string, args ...string) []choiceJSON {
	t.Helper()
	d := parse[sizesJSON](t, ok(t, append([]string{"filesystem", "du", "--snapshots", "--json", image}, args...)...))
	for _, c := range d.Free.Choices {
		if len(c.Paths) == 0 {
			continue
		}
		plan := parse[btrfs.DropPlan](t, ok(t, append([]string{"subvolume", "delete", "--dry-run", "--json", image}, c.Paths...)...))
		plan.Reads = 0
		if plan != c.Set {
			t.Errorf("%v: told %+v, a dry run tells %+v", c.Paths, c.Set, plan)
		}
		if c.Set.DataBytes+c.Set.MetadataBytes < d.Free.Wanted || len(c.IDs) != len(c.Paths) {
			t.Errorf("%+v is not %d bytes", c, d.Free.Wanted)
		}
	}
	return d.Free.Choices
}

// TestDuOfMany: with more snapshots than can be tried, the greedy sets are as good as a dry run says, and the fewest
// are not more than the shortest run.
func TestDuOfMany(t *testing.T) {
	image := testenv.Image(t, "snap30")
	all := parse[sizesJSON](t, ok(t, "filesystem", "du", "--snapshots", "--json", image)).Set
	if all.Roots < 25 || all.Reads == 0 || all.Reads > all.TreeBlocks {
		t.Fatalf("%+v", all)
	}
	for _, part := range []uint64{100, 10, 3, 1} {
		c := sameAsDryRun(t, image, "--free", fmt.Sprint((all.DataBytes+all.MetadataBytes)/part))
		if n := len(c[0].Paths); c[0].Exact || n == 0 || n > len(c[1].Paths) || part == 1 && n != all.Roots {
			t.Errorf("1/%d: %d snapshots, a run of %d", part, n, len(c[1].Paths))
		}
	}
}
