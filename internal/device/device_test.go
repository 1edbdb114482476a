package device_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/crashdev"
	"github.com/gobtrfs/gobtrfs/internal/device/devicetest"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, opt device.Options) device.Device {
	t.Helper()
	d, err := device.OpenFile(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	for name, open := range map[string]func(*testing.T, int64) device.Device{
		"file": func(t *testing.T, size int64) device.Device { return open(t, image(t, size), device.Options{}) },
		"mem":  func(_ *testing.T, size int64) device.Device { return device.NewMem(size) },
		"clone": func(_ *testing.T, size int64) device.Device {
			m := device.NewMem(size)
			return m.Clone()
		},
		"section": func(t *testing.T, size int64) device.Device {
			s, err := device.Section(device.NewMem(size+10000), 5000, size)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"crashdev": func(_ *testing.T, size int64) device.Device { return crashdev.New(size) },
		"faultdev": func(_ *testing.T, size int64) device.Device {
			return faultdev.New(device.NewMem(size), faultdev.Rule{Off: size + 1<<20, Len: 1})
		},
		"direct": func(t *testing.T, size int64) device.Device {
			d, err := device.OpenFile(image(t, size), device.Options{Direct: true})
			if err != nil && !testenv.CI() {
				t.Skip("no direct I/O here:", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
	} {
		t.Run(name, func(t *testing.T) { devicetest.Run(t, open) })
	}
}

func TestLock(t *testing.T) {
	path := image(t, 4096)
	r1 := open(t, path, device.Options{ReadOnly: true})
	r2 := open(t, path, device.Options{ReadOnly: true})
	if _, err := device.OpenFile(path, device.Options{}); !errors.Is(err, device.ErrInUse) {
		t.Errorf("opened for writing beside readers: %v", err)
	}
	if _, err := r1.WriteAt([]byte{1}, 0); !errors.Is(err, device.ErrReadOnly) {
		t.Errorf("wrote to a read-only device: %v", err)
	}
	r1.Close()
	r2.Close()
	w := open(t, path, device.Options{})
	for _, opt := range []device.Options{{}, {ReadOnly: true}} {
		if _, err := device.OpenFile(path, opt); !errors.Is(err, device.ErrInUse) {
			t.Errorf("opened with %+v beside a writer: %v", opt, err)
		}
	}
	w.Close()
	open(t, path, device.Options{}).Close()
}

func TestOpenRefuses(t *testing.T) {
	if _, err := device.OpenFile(filepath.Join(t.TempDir(), "none"), device.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := device.OpenFile(t.TempDir(), device.Options{ReadOnly: true}); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := device.OpenFile(os.DevNull, device.Options{ReadOnly: true}); err == nil {
		t.Error("a character device was opened")
	}
}

// A clone and its source must never see each other's writes.
func TestMemClone(t *testing.T) {
	a := device.NewMem(1 << 20)
	_, _ = a.WriteAt([]byte("before"), 100)
	b := a.Clone()
	_, _ = a.WriteAt([]byte("mine"), 100)
	_, _ = b.WriteAt([]byte("YOUR"), 100)
	_ = b.Discard(0, 1<<19)
	p := make([]byte, 6)
	if _, _ = a.ReadAt(p, 100); string(p) != "minere" {
		t.Errorf("source reads %q", p)
	}
	if _, err := device.Section(a, 1, 1<<20); !errors.Is(err, device.ErrOutOfRange) {
		t.Errorf("section over the end: %v", err)
	}
}
