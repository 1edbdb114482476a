package testenv

import "testing"

// TestManifests: every manifest can be read and every volume has its images.
func TestManifests(t *testing.T) {
	names := Names(t)
	if len(names) < 90 {
		t.Errorf("%d volumes in the corpus", len(names))
	}
	for _, name := range names {
		m := ReadManifest(t, name, "")
		if len(m.Images) == 0 || len(m.Check) == 0 {
			t.Errorf("%s: %d images, %d checks", name, len(m.Images), len(m.Check))
		}
	}
}
