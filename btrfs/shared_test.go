package btrfs_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// What is written through one File is seen through others, by Stat, by
// snapshots, and is kept by Commit and Close of the volume, before the File is
// closed.
func TestWrittenBytesAreSeenEverywhere(t *testing.T) {
	ctx := context.Background()
	image := testenv.Image(t, "empty")
	v, err := btrfs.Open(ctx, image, btrfs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := v.Top()
	a, err := s.Create("file")
	must(err)
	b, err := s.OpenFile("file", os.O_RDWR, 0)
	must(err)
	r, err := s.Open("file")
	must(err)
	want := []byte("hello, world")
	_, err = a.WriteAt(want[:5], 0)
	must(err)
	_, err = b.WriteAt(want[5:], 5)
	must(err)
	if fi, err := s.Stat("file"); err != nil || fi.Size() != int64(len(want)) {
		t.Errorf("Stat: %v, %v", fi, err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("another File reads %q, %v", got, err)
	}
	_, err = a.WriteAt([]byte("HELLO"), 0)
	must(err)
	gone, err := s.Create("gone")
	must(err)
	_, err = gone.Write(want)
	must(err)
	must(s.Remove("gone"))
	snap, err := v.Snapshot(ctx, "", "snap", true)
	must(err)
	if got, err := snap.ReadFile("file"); err != nil || string(got) != "HELLO, world" {
		t.Errorf("the snapshot has %q, %v", got, err)
	}
	if _, err := gone.Seek(0, io.SeekStart); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(gone); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a file without a name reads %q, %v", got, err)
	}
	_, err = b.WriteAt([]byte("!"), int64(len(want)))
	must(err)
	must(gone.Close())
	must(v.Close()) // with two Files open
	v, err = btrfs.Open(ctx, image, btrfs.Options{ReadOnly: true})
	must(err)
	if got, err := v.Top().ReadFile("file"); err != nil || string(got) != "HELLO, world!" {
		t.Errorf("after Close the file has %q, %v", got, err)
	}
	must(v.Close())
	testenv.Check(t, image)
}
