package faultdev_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
)

func TestRules(t *testing.T) {
	d := faultdev.New(device.NewMem(1<<20),
		faultdev.Rule{Op: faultdev.Write, After: 2, Times: 1, Torn: true},
		faultdev.Rule{Op: faultdev.Read, Off: 4096, Len: 512, Err: fs.ErrPermission})
	p := bytes.Repeat([]byte{9}, 1024)
	for i := 1; i <= 4; i++ {
		_, err := d.WriteAt(p, int64(i)*65536)
		if failed := errors.Is(err, faultdev.ErrInjected); failed != (i == 3) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	got := make([]byte, 1024)
	if _, err := d.ReadAt(got, 3*65536); err != nil || got[511] != 9 || got[512] != 0 {
		t.Errorf("torn write left %v, %v", got[510:514], err)
	}
	for off, bad := range map[int64]bool{3071: false, 3073: true, 4607: true, 4608: false} {
		if _, err := d.ReadAt(got, off); errors.Is(err, fs.ErrPermission) != bad {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	if d.Calls(faultdev.Write) != 4 || d.Calls(faultdev.Read) != 5 || d.Calls(faultdev.Any) != 9 {
		t.Errorf("counted %d writes, %d reads", d.Calls(faultdev.Write), d.Calls(faultdev.Read))
	}
	d.Add(faultdev.Rule{Op: faultdev.Flush})
	if err := d.Flush(); !errors.Is(err, faultdev.ErrInjected) {
		t.Error("flush did not fail:", err)
	}
	d.Clear()
	if err := d.Flush(); err != nil || d.Calls(faultdev.Any) != 1 {
		t.Error("rules outlived Clear:", err)
	}
}

func TestRot(t *testing.T) {
	d := faultdev.New(device.NewMem(1 << 20))
	want := bytes.Repeat([]byte{3}, 4096)
	_, _ = d.WriteAt(want, 0)
	if err := d.Rot(1000, 10); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4096)
	_, _ = d.ReadAt(got, 0)
	if bytes.Equal(got[1000:1010], want[:10]) || !bytes.Equal(got[:1000], want[:1000]) || !bytes.Equal(got[1010:], want[1010:]) {
		t.Error("rot hit the wrong bytes")
	}
	_, _ = d.WriteAt(want[:10], 1000)
	if _, _ = d.ReadAt(got, 0); !bytes.Equal(got, want) {
		t.Error("a write did not heal the rot")
	}
}
