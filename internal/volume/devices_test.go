package volume_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

const mib = 1 << 20

func open(devs ...device.Device) (*volume.Volume, error) {
	return volume.Open(context.Background(), devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
}

// editSuper changes the first superblock of a device, and wipes the other.
func editSuper(t *testing.T, d device.Device, change func(*ondisk.Superblock)) {
	t.Helper()
	b := make([]byte, ondisk.SuperSize)
	if _, err := d.ReadAt(b, int64(ondisk.SuperOffset(0))); err != nil {
		t.Fatal(err)
	}
	sb, err := ondisk.DecodeSuper(b)
	if err != nil {
		t.Fatal(err)
	}
	change(sb)
	if err := sb.Encode(b); err != nil {
		t.Fatal(err)
	}
	checksum.Sum(checksum.Type(sb.CsumType), b, b[32:])
	for i, p := range [][]byte{b, make([]byte, len(b))} {
		if _, err := d.WriteAt(p, int64(ondisk.SuperOffset(i))); err != nil {
			t.Fatal(err)
		}
	}
}

// told wants one of the kinds of errors that callers can tell apart.
func told(err error) bool {
	var refused *volume.RefusedError
	var unsupported *volume.UnsupportedError
	var corrupt *ondisk.CorruptError
	return errors.As(err, &refused) || errors.As(err, &unsupported) || errors.As(err, &corrupt)
}

// TestDevices: devices that are missing, foreign, old, cut off or given twice.
func TestDevices(t *testing.T) {
	two := []device.Device{device.NewMem(128 * mib), device.NewMem(128 * mib)}
	if _, err := mkfs.Make(context.Background(), two, mkfs.Options{Data: "raid1"}); err != nil {
		t.Fatal(err)
	}
	clone := func(i int) *device.Mem { return two[i].(*device.Mem).Clone() }
	cut := device.NewMem(100 * mib)
	p := make([]byte, 100*mib)
	if _, err := two[1].ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := cut.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	foreign, stale, featured, flagged := clone(1), clone(1), clone(0), clone(0)
	editSuper(t, foreign, func(sb *ondisk.Superblock) { sb.Dev.UUID[0]++ })
	editSuper(t, stale, func(sb *ondisk.Superblock) { sb.Generation-- })
	editSuper(t, featured, func(sb *ondisk.Superblock) { sb.CompatRO |= 1 << 60 })
	editSuper(t, flagged, func(sb *ondisk.Superblock) { sb.Incompat |= 1 << 50 })
	other := device.NewMem(128 * mib)
	if _, err := mkfs.Make(context.Background(), []device.Device{other}, mkfs.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		devs     []device.Device
		open     string // error of Open has it; "" opens
		problem  string // the same of WriteProblem
		problems bool
	}{
		"both":          {devs: []device.Device{clone(1), clone(0)}},
		"one missing":   {devs: []device.Device{clone(1)}, problem: "missing", problems: true},
		"foreign":       {devs: []device.Device{clone(0), foreign}, open: "uuid"},
		"stale":         {devs: []device.Device{clone(0), stale}, problem: "behind the others", problems: true},
		"cut off":       {devs: []device.Device{clone(0), cut}, problem: "cut off", problems: true},
		"twice":         {devs: []device.Device{clone(0), clone(0)}, open: "twice"},
		"other volume":  {devs: []device.Device{clone(0), other}, open: "different volumes"},
		"empty":         {devs: []device.Device{device.NewMem(mib)}, open: "no valid superblock"},
		"compat_ro bit": {devs: []device.Device{featured, clone(1)}, problem: "unknown-compat-ro-bit-60", problems: true},
		"incompat bit":  {devs: []device.Device{flagged, clone(1)}, open: "unknown-incompat-bit-50"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := open(c.devs...)
			if c.open != "" {
				if err == nil || !strings.Contains(err.Error(), c.open) || !told(err) {
					t.Errorf("opened with error %v, want %q", err, c.open)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tree, err := v.Tree(context.Background(), ondisk.FSTree)
			if err == nil {
				_, err = tree.RootBlock(context.Background())
			}
			if err != nil {
				t.Error(err)
			}
			if err := v.WriteProblem(); (err != nil) != c.problems || err != nil && (!strings.Contains(err.Error(), c.problem) || !told(err)) {
				t.Errorf("WriteProblem: %v", err)
			}
		})
	}
}

// TestWriteOverChunk: a volume with two chunks in one place can be read only.
func TestWriteOverChunk(t *testing.T) {
	d := device.NewMem(128 * mib)
	if _, err := mkfs.Make(context.Background(), []device.Device{d}, mkfs.Options{}); err != nil {
		t.Fatal(err)
	}
	v, err := open(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WriteProblem(); err != nil {
		t.Fatal(err)
	}
	over := *v.Chunks().All()[0]
	over.Logical = 1 << 40
	if err := v.Chunks().Insert(over); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteProblem(); err == nil || !strings.Contains(err.Error(), "over another") {
		t.Errorf("WriteProblem: %v", err)
	}
}

// TestWriteSupers: every device gets every copy, each with its own device item, and the newest counts.
func TestWriteSupers(t *testing.T) {
	ctx := context.Background()
	devs := []device.Device{device.NewMem(128 * mib), device.NewMem(32 * mib)}
	if _, err := mkfs.Make(ctx, devs, mkfs.Options{}); err != nil {
		t.Fatal(err)
	}
	v, err := open(devs...)
	if err != nil {
		t.Fatal(err)
	}
	sb := *v.Super()
	sb.Label = "changed"
	if err := v.WriteSupers(ctx, &sb); err != nil {
		t.Fatal(err)
	}
	for i, d := range devs {
		for n, want := range []bool{true, i == 0} {
			b := make([]byte, ondisk.SuperSize)
			if _, err := d.ReadAt(b, int64(ondisk.SuperOffset(n))); err != nil {
				continue // beyond the end
			}
			got, err := ondisk.DecodeSuper(b)
			if (err == nil) != want {
				t.Errorf("device %d copy %d: %v", i+1, n, err)
				continue
			}
			if want && (got.Label != "changed" || got.Dev.DevID != ondisk.DevID(i+1) || got.Bytenr != ondisk.SuperOffset(n) || !checksum.Verify(0, b, b[32:])) {
				t.Errorf("device %d copy %d: %q of device %d at %d", i+1, n, got.Label, got.Dev.DevID, got.Bytenr)
			}
		}
	}
	editSuper(t, devs[0], func(sb *ondisk.Superblock) { sb.Label = "first copy" })
	if v, err = open(devs...); err != nil || v.Super().Label != "first copy" {
		t.Errorf("reopened: %v", err)
	}
}
