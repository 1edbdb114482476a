package forensic_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// few are the volumes of the short run.
var few = []string{"subvolumes", "node-4k", "sector-16k", "metadata-uuid", "prof-raid1", "sprout"}

// TestLost: whatever of the roots is lost, everything is read that was there. GOBTRFS_ROUNDS=all takes all volumes of the corpus.
func TestLost(t *testing.T) {
	names := few
	if os.Getenv("GOBTRFS_ROUNDS") == "all" {
		names = testenv.Names(t)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "exp-") || slices.Contains([]string{"old-roots"}, name) {
				t.Skip("cannot be read when it is sound")
			}
			devs := load(t, name)
			if strings.HasPrefix(name, "deg-raid") && !strings.HasPrefix(name, "deg-raid1") {
				t.Skip("what devices are missing is rebuilt by the chunk tree alone")
			}
			all, _ := contents(t, given(clones(devs)), btrfs.Options{})
			for _, d := range damages {
				t.Run(d.name, func(t *testing.T) {
					bad, want := clones(devs), maps.Clone(all)
					d.do(t, bad)
					got, rep := contents(t, given(bad), btrfs.Options{Forensic: &btrfs.ForensicOptions{}})
					if name == "sprout" && strings.HasPrefix(d.name, "superblocks") {
						// Without a superblock nothing tells that two volumes are one.
						if !slices.ContainsFunc(rep.Losses, func(l string) bool { return strings.Contains(l, "as from a seeding device") }) {
							t.Errorf("nothing is said of a seeding device: %q", rep.Losses)
						}
						return
					}
					for _, l := range rep.Losses {
						if strings.Contains(l, "file data on it") || strings.Contains(l, "cannot be placed") {
							leaveOutData(got, want)
							break
						}
					}
					same(t, got, want)
					if t.Failed() {
						t.Logf("found: %q\nlost: %q", rep.Notes, rep.Losses)
					}
				})
			}
		})
	}
}

// leaveOutData makes files equal whose data could not be read, as was told.
func leaveOutData(got, want map[string]string) {
	for name, text := range got {
		if !strings.HasPrefix(text, "-") || !strings.HasSuffix(text, " error") {
			continue
		}
		if i := strings.LastIndex(want[name], " "); i > 0 && strings.HasPrefix(text, want[name][:i]) {
			want[name] = text
		}
	}
}
