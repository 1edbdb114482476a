package dump_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/btree"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/dump"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/roots"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

func open(t *testing.T, name string) (*volume.Volume, string) {
	t.Helper()
	image := testenv.ReadImages(t, name)[0]
	d, err := device.OpenFile(image, device.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	v, err := volume.Open(context.Background(), []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v, image
}

// lines gives what of the lines can be compared: no times of day, which are of the machine's zone, and no names, which we escape
// otherwise; sorted because btrfs-progs go through a tree level by level.
func lines(text string) []string {
	zone := regexp.MustCompile(` \(\d+-\d\d-\d\d \d\d:\d\d:\d\d\)`)
	names := regexp.MustCompile(`^(\t\t(name:|data|index \d+ .*name:|root (back)?ref key dirid \d+ sequence \d+ name)) .*`)
	var out []string
	for l := range strings.SplitSeq(text, "\n") {
		l = names.ReplaceAllString(l, "$1")
		l = strings.ReplaceAll(l, "0x1000000000000(DEAD)", "0x1000000000000(none)") // we say more
		l = strings.TrimRight(zone.ReplaceAllString(l, ""), " ")
		if strings.HasPrefix(l, "\xff") {
			continue // the rest of a name with a line break
		}
		if l != "" && !strings.HasPrefix(l, "btrfs-progs") && !strings.HasPrefix(l, "superblock: ") {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

// compare finds lines that one has and the other has not.
func compare(t *testing.T, ours, theirs []string) {
	t.Helper()
	count := map[string]int{}
	for _, l := range ours {
		count[l]++
	}
	for _, l := range theirs {
		count[l]--
	}
	bad := 0
	for l, n := range count {
		if n != 0 && bad < 20 {
			bad++
			t.Errorf("%+d %q", n, l)
		}
	}
	if len(ours) < 50 {
		t.Errorf("only %d lines", len(ours))
	}
}

// TestTreeAsProgs: every line is one of btrfs-progs, and the other way round.
func TestTreeAsProgs(t *testing.T) {
	testenv.NeedProgs(t)
	for _, name := range []string{"subvolumes", "quota", "comp-zstd", "no-skinny", "log-tree", "space-cache-v1", "fst-bitmaps", "half-drop"} {
		t.Run(name, func(t *testing.T) {
			v, image := open(t, name)
			var ours bytes.Buffer
			if err := dump.Tree(context.Background(), &ours, v, 0, dump.Options{}); err != nil {
				t.Fatal(err)
			}
			theirs, err := exec.Command("btrfs", "inspect-internal", "dump-tree", image).Output()
			if err != nil {
				t.Fatal(err)
			}
			compare(t, lines(ours.String()), lines(string(theirs)))
		})
	}
}

func TestSuperAsProgs(t *testing.T) {
	testenv.NeedProgs(t)
	for _, name := range []string{"subvolumes", "metadata-uuid", "csum-sha256"} {
		t.Run(name, func(t *testing.T) {
			v, image := open(t, name)
			var ours bytes.Buffer
			if err := dump.Super(&ours, v.Super()); err != nil {
				t.Fatal(err)
			}
			theirs, err := exec.Command("btrfs", "inspect-internal", "dump-super", "-f", image).Output()
			if err != nil {
				t.Fatal(err)
			}
			text := regexp.MustCompile(`(?m)^csum\t.*\n| \(deprecated\)`).ReplaceAllString(string(theirs), "")
			tabs := regexp.MustCompile(`(?m)^([a-z_.]+)[\t ]+`)
			compare(t, lines(tabs.ReplaceAllString(ours.String(), "$1 ")), lines(strings.ReplaceAll(tabs.ReplaceAllString(text, "$1 "), strings.Repeat("-", 57), "")))
		})
	}
}

// TestOneTree: one tree, one block, and what is not there.
func TestOneTree(t *testing.T) {
	ctx := context.Background()
	v, _ := open(t, "subvolumes")
	show := func(id ondisk.TreeID, opt dump.Options) string {
		var b bytes.Buffer
		if err := dump.Tree(ctx, &b, v, id, opt); err != nil {
			t.Error(err)
		}
		return b.String()
	}
	one := show(256, dump.Options{})
	if !strings.HasPrefix(one, "file tree key (256 ROOT_ITEM 0)") || strings.Contains(one, "owner FS_TREE") {
		t.Errorf("subvolume 256: %.200s", one)
	}
	tree, err := v.Tree(ctx, 256)
	if err != nil {
		t.Fatal(err)
	}
	block := show(0, dump.Options{Block: tree.Root().Bytenr})
	if _, rest, _ := strings.Cut(one, "\n"); rest != block {
		t.Errorf("its root block: %.200s", block)
	}
	if quiet := show(256, dump.Options{Quiet: true}); strings.Contains(quiet, "atime") || !strings.Contains(quiet, "item 0 key") {
		t.Errorf("quiet: %.200s", quiet)
	}
	if err := dump.Tree(ctx, io.Discard, v, 9999, dump.Options{}); !errors.Is(err, btree.ErrNotFound) {
		t.Errorf("tree 9999: %v", err)
	}
	if err := dump.Tree(ctx, io.Discard, v, 0, dump.Options{Block: 1 << 50}); err == nil {
		t.Error("a block outside all chunks was shown")
	}
}

// TestHalfDropped: blocks that a half-dropped tree no longer holds may be anything; that is told, but is no error. Of a block
// that it still holds, it is.
func TestHalfDropped(t *testing.T) {
	ctx := context.Background()
	v, _ := open(t, "half-drop")
	gone, held := aroundCut(t, v)
	for at, lost := range map[ondisk.Bytenr]bool{gone: false, held: true} {
		bad, err := device.OpenFile(testenv.Image(t, "half-drop"), device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := v.Chunks().Find(at)
		for _, s := range c.Stripes {
			if _, err := bad.WriteAt(make([]byte, v.Nodesize()), int64(s.Offset+uint64(at-c.Logical))); err != nil {
				t.Fatal(err)
			}
		}
		w, err := volume.Open(ctx, []device.Device{bad}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		err = dump.Tree(ctx, &text, w, 0, dump.Options{Quiet: true})
		if told := strings.Contains(text.String(), "was dropped, and holds something else"); (err != nil) != lost || told == lost {
			t.Errorf("block %d: told %v, error %v", at, told, err)
		}
		w.Close()
	}
}

// aroundCut gives blocks below the root of a half-dropped tree, one before its cut and one behind.
func aroundCut(t *testing.T, v *volume.Volume) (gone, held ondisk.Bytenr) {
	ctx := context.Background()
	err := roots.All(ctx, v.RootTree(), func(k ondisk.Key, item ondisk.RootItem) error {
		cut, ok := item.Dropped()
		if !ok {
			return nil
		}
		b, err := v.Store().Read(ctx, v.TreeAt(ondisk.TreeID(k.Objectid), item).Promise())
		if err != nil {
			return err
		}
		slot, _ := cut.Slot(b.Data())
		gone, _ = b.Data().Ptr(slot - 1)
		held, _ = b.Data().Ptr(slot + 1)
		return nil
	})
	if err != nil || gone == 0 || held == 0 {
		t.Fatalf("no half-dropped tree: %v", err)
	}
	return gone, held
}

// TestDamaged: a volume with lost blocks is shown as far as it goes, and the loss is told.
func TestDamaged(t *testing.T) {
	v, _ := open(t, "bad-meta-both")
	var b bytes.Buffer
	if err := dump.Tree(context.Background(), &b, v, 0, dump.Options{}); err == nil || !strings.Contains(b.String(), "cannot be read") {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(b.String(), "data reloc tree") {
		t.Error("the dump ended early")
	}
}
