package check_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// corruptVolume is one entry of corrupt.json.
type corruptVolume struct {
	Name         string `json:"name"`
	File         string `json:"file"`
	Size         int64  `json:"size"`
	MetadataOnly bool   `json:"metadata_only"`
	Check        []struct {
		Exit int      `json:"exit"`
		Said []string `json:"said"`
	} `json:"check"`
}

// lenient are the damaged volumes that we pass, and why.
var lenient = map[string]string{
	"bko-199839": "only one copy of the chunk tree is damaged, we use the other",
}

// TestCorrupt: on the damaged and unusual volumes of btrfs-progs we agree with
// its verdict, and none makes us panic or hang.
func TestCorrupt(t *testing.T) {
	dir := filepath.Join(testenv.Shared(t), "corpus", "corrupt")
	text, err := os.ReadFile(filepath.Join(dir, "corrupt.json"))
	if err != nil {
		t.Fatal(err) // Shared skips, by name, where the volumes are not there
	}
	var list []corruptVolume
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		t.Run(c.Name, func(t *testing.T) {
			image := filepath.Join(testenv.Scratch(t), "image")
			if err := testenv.Unpack(filepath.Join(dir, c.File), image, c.Size); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(image)
			want := c.Check[0].Exit == 0 || lenient[c.Name] != ""
			begin := time.Now()
			r := judgeOnly(t, !c.MetadataOnly, image)
			if r.OK() != want {
				t.Errorf("verdict %v, want %v: %q", r.OK(), want, c.Check[0].Said)
			}
			if d := time.Since(begin); d > time.Minute {
				t.Errorf("took %v", d)
			}
			for i, f := range r.Findings {
				if i < 8 && (r.OK() != want || testing.Verbose()) {
					t.Log(f)
				}
			}
		})
	}
}
