package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestUndelete: a deletion is taken back, by default to a place that tells the id; other deleted subvolumes are not
// touched by it; what cannot be brought back is refused.
func TestUndelete(t *testing.T) {
	image := small(t)
	local := filepath.Join(t.TempDir(), "file")
	write(t, local, strings.Repeat("text", 5000))
	ok(t, "subvolume", "create", image, "/a")
	ok(t, "put", "-q", image, local, "/a/file")
	ok(t, "subvolume", "snapshot", "-r", image, "/a", "/b")
	before := ok(t, "subvolume", "show", image, "/b")
	ok(t, "subvolume", "delete", "--no-drop", image, "/a", "/b")
	ids := map[bool]string{}
	for _, s := range parse[[]subvolumeJSON](t, ok(t, "subvolume", "list", "-d", "--json", image)) {
		ids[s.ReadOnly] = fmt.Sprint(s.ID)
	}
	a, b := ids[false], ids[true]
	if out := ok(t, "subvolume", "undelete", image, a); out != "Subvolume "+a+" is back at /recovered-"+a+"\n" {
		t.Errorf("%s", out)
	}
	fails(t, 1, []string{"not deleted"}, "subvolume", "undelete", image, a, "/x")
	fails(t, 1, []string{"exist"}, "subvolume", "undelete", image, b, "/recovered-"+a)
	fails(t, 2, []string{"list --deleted"}, "subvolume", "undelete", image, "/b")
	if s := parse[subvolumeJSON](t, ok(t, "subvolume", "undelete", "--json", image, b, "b")); fmt.Sprint(s.ID) != b || !s.ReadOnly || s.Deleted {
		t.Errorf("%+v", s)
	}
	if out := ok(t, "subvolume", "show", image, "/b"); out != before {
		t.Errorf("%s\nwas\n%s", out, before)
	}
	for _, p := range []string{"/b/file", "/recovered-" + a + "/file"} {
		if out := ok(t, "cat", image, p); out != strings.Repeat("text", 5000) {
			t.Errorf("%s differs", p)
		}
	}
	ok(t, "check", "--data", image)
	testenv.Check(t, image)
}

// TestUndeleteHalfDropped: what has begun to go does not come back, and what waits does.
func TestUndeleteHalfDropped(t *testing.T) {
	image := testenv.Image(t, "half-drop-many")
	ghosts := parse[[]subvolumeJSON](t, ok(t, "subvolume", "list", "-d", "--json", image))
	half := 0
	for _, s := range ghosts {
		if s.HalfDropped {
			half++
			fails(t, 1, []string{"its drop has begun"}, "subvolume", "undelete", image, fmt.Sprint(s.ID))
			continue
		}
		ok(t, "subvolume", "undelete", image, fmt.Sprint(s.ID))
	}
	if left := parse[[]subvolumeJSON](t, ok(t, "subvolume", "list", "-d", "--json", image)); half == 0 || len(left) != half || len(ghosts) == half {
		t.Errorf("%d ghosts, %d half dropped, %d left", len(ghosts), half, len(left))
	}
	ok(t, "check", "--data", image)
	testenv.Check(t, image)
	ok(t, "subvolume", "delete", "-q", "--ghosts", image)
	ok(t, "check", "--data", image)
	testenv.Check(t, image)
}
