package btrfs_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
)

// TestCreateThroughLinks: O_CREATE makes what a dangling symbolic link names, wherever
// that is, and leaves the link as it is; O_EXCL makes nothing where a link is.
func TestCreateThroughLinks(t *testing.T) {
	v := onMemory(t, 128<<20, btrfs.MakeOptions{})
	s := v.Top()
	must(t, s.MkdirAll("a/b", 0o755))
	_, err := v.CreateSubvolume(ctx, "/sub")
	must(t, err)
	for _, c := range []struct {
		link, target, made string // made: what is there afterwards
		err                error
	}{
		{"plain", "made-1", "made-1", nil},
		{"a/up", "../made-2", "made-2", nil},
		{"a/b/absolute", "/a/made-3", "a/made-3", nil},
		{"a/chain", "b/next", "a/b/made-4", nil},
		{"other", "sub/made-5", "sub/made-5", nil},
		{"nowhere", "no/dir/file", "", fs.ErrNotExist},
		{"slash", "dir/", "", btrfs.ErrIsDir},
		{"self", "self", "", btrfs.ErrLoop},
		{"under", "plain/file", "", btrfs.ErrNotDir},
	} {
		must(t, s.Symlink(c.target, c.link))
		if c.link == "a/chain" {
			must(t, s.Symlink("made-4", "a/b/next"))
		}
		_, err := s.OpenFile(c.link, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if c.link != "self" && c.link != "under" && !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: with O_EXCL: %v", c.link, err)
		}
		if c.made != "" {
			if _, err := s.Lstat(c.made); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: O_EXCL made something: %v", c.link, err)
			}
		}
		err = s.WriteFile(c.link, []byte(c.link), 0o600)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, want %v", c.link, err, c.err)
		}
		if got, err := s.ReadLink(c.link); err != nil || got != c.target {
			t.Errorf("%s: the link is now %q, %v", c.link, got, err)
		}
		if c.made == "" {
			continue
		}
		if got, err := s.ReadFile(c.made); err != nil || string(got) != c.link {
			t.Errorf("%s: %s holds %q, %v", c.link, c.made, got, err)
		}
	}
	must(t, v.Commit(ctx))
	if rep, err := v.Check(ctx, btrfs.CheckOptions{Data: true}); err != nil || !rep.OK() {
		t.Errorf("check: %v %+v", err, rep)
	}
}
