package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// loseLog overwrites the root of a volume's log, all copies of it.
func loseLog(t *testing.T, image string) {
	t.Helper()
	ctx := context.Background()
	d, err := device.OpenFile(image, device.Options{})
	must(t, err)
	v, err := volume.Open(ctx, []device.Device{d}, volume.Options{SuperCopy: -1, BackupRoot: -1})
	must(t, err)
	must(t, v.IO().Write(ctx, v.Super().LogRoot, make([]byte, v.Nodesize())))
	must(t, v.Close())
}

// TestLog: commands that read show what fsync promised before an unclean stop. When the log of that is lost they show
// the last commit and say so, and what would write refuses; check finds it; dumps
// show what lies on the disk.
func TestLog(t *testing.T) {
	image, scratch := testenv.Image(t, "log-tree"), testenv.Scratch(t)
	before, _ := digest(t, image)
	for _, lost := range []bool{false, true} {
		word, said, out := "replayed", "", filepath.Join(scratch, "whole")
		if lost {
			loseLog(t, image)
			before, _ = digest(t, image)
			word, said, out = "", "gobtrfs VERB: warning: "+image+": the log of the last fsyncs cannot be replayed, ", filepath.Join(scratch, "lost")
		}
		m := testenv.ReadManifest(t, "log-tree", word)
		for verb, args := range map[string][]string{
			"get": {"-q", image, "/", out}, "restore": {"-q", image, out + "-restored"}, "ls": {"-R", image}, "stat": {image, "/"},
			"subvolume list": {image}, "filesystem df": {image},
		} {
			readLog(t, verb, args, said)
		}
		for _, dir := range []string{out, out + "-restored"} {
			if n := sameFiles(t, m, dir); n < 5 {
				t.Errorf("%s: only %d files were compared", dir, n)
			}
		}
		for verb, args := range map[string][]string{"inspect dump-super": {image}, "filesystem show": {image}} {
			readLog(t, verb, args, "")
		}
		if lost {
			fails(t, 1, []string{"mkdir: ", image, "log"}, "mkdir", image, "/d")
			fails(t, 1, nil, "check", image)
		} else {
			ok(t, "check", image)
		}
		if after, _ := digest(t, image); string(after) != string(before) {
			t.Error("the image changed")
		}
	}
}

// readLog runs a command that must do its work and say no more on standard error than said, where VERB is verb.
func readLog(t *testing.T, verb string, args []string, said string) {
	t.Helper()
	r := gobtrfs(t, append(strings.Fields(verb), args...)...)
	said = strings.Replace(said, "VERB", verb, 1)
	if r.code != 0 || !strings.HasPrefix(r.err, said) || (r.err == "") != (said == "") {
		t.Errorf("%s: exit %d, %q", verb, r.code, r.err)
	}
}
