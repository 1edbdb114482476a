package check_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// open opens a volume for reading.
func open(t testing.TB, images ...string) (*volume.Volume, error) {
	t.Helper()
	var devs []device.Device
	for _, p := range images {
		d, err := device.OpenFile(p, device.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		devs = append(devs, d)
	}
	return volume.Open(context.Background(), devs, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
}

// judge checks a volume with its data; one that can not be opened is bad.
func judge(t testing.TB, images ...string) *check.Report {
	t.Helper()
	return judgeOnly(t, true, images...)
}

func judgeOnly(t testing.TB, data bool, images ...string) *check.Report {
	t.Helper()
	v, err := open(t, images...)
	if err != nil {
		return &check.Report{Errors: 1, Findings: []check.Finding{{Severity: check.Error, What: err.Error()}}}
	}
	r, err := check.Check(context.Background(), v, check.Options{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// differing are the volumes that we judge otherwise than btrfs check 6.19, and
// why.
var differing = map[string]bool{
	"verity":              true, // it does not know verity items
	"bad-super-primary":   true, // we use another copy of the superblock
	"half-drop-quota":     true, // it counts what is dropped already
	"deg-raid6":           true, // it can not rebuild metadata
	"replace-interrupted": true, // it adds the size of the target
	"default-old":         true, // what mkfs left in the free space tree is harmless, says check 6.2
	"empty-old":           true,
	"bgt-converted":       true,
	"stale-raid1":         true, // we leave a stale device out
}

// few are the volumes that the short run looks at.
var few = []string{
	"default", "attrs", "collisions", "full-backrefs", "half-drop-shared", "fst-bitmaps", "holes-items", "legacy", "no-skinny", "mixed",
	"balance-interrupted", "hardlinks", "node-4k", "space-cache-v1", "bad-data-single", "bad-free-space-tree", "default-old", "bad-meta-both",
}

// TestCorpus: our verdict on volumes that Linux made is that of btrfs check.
// GOBTRFS_ROUNDS=all looks at all.
func TestCorpus(t *testing.T) {
	names := few
	if os.Getenv("GOBTRFS_ROUNDS") == "all" {
		names = testenv.Names(t)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "exp-") {
				t.Skip("features that nobody uses yet")
			}
			m := testenv.ReadManifest(t, name, "")
			want := m.Check[0].Exit == 0
			if w, ok := differing[name]; ok {
				want = w
			}
			r := judge(t, testenv.ReadImages(t, name)...)
			if r.OK() != want {
				t.Errorf("verdict %v, want %v: %q", r.OK(), want, m.Check[0].Said)
			}
			for i, f := range r.Findings {
				if i < 8 && (r.OK() != want || testing.Verbose()) {
					t.Log(f)
				}
			}
		})
	}
}

// TestSameReport: however many workers, the report is the same.
func TestSameReport(t *testing.T) {
	var want []string
	for _, workers := range []int{1, 2, 8, 3, 8} {
		v, err := open(t, testenv.ReadImages(t, "bad-data-single")...)
		if err != nil {
			t.Fatal(err)
		}
		r, err := check.Check(context.Background(), v, check.Options{Data: true, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range r.Findings {
			got = append(got, f.String())
		}
		if want == nil {
			want = got
		}
		if len(got) == 0 || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%d workers: %q, before %q", workers, got, want)
		}
	}
}
