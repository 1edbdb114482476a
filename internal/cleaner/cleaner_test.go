package cleaner_test

import (
	"context"
	"testing"
	"time"

	"github.com/gobtrfs/gobtrfs/internal/cleaner"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/transaction"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

// open opens images for writing.
func open(t testing.TB, images []string) (*volume.Volume, *transaction.Manager) {
	t.Helper()
	return openWith(t, images, 0)
}

// openWith opens images for writing; so many bytes of tree blocks may be dirty.
func openWith(t testing.TB, images []string, dirty int64) (*volume.Volume, *transaction.Manager) {
	t.Helper()
	ctx := context.Background()
	devs := make([]device.Device, len(images))
	for i, p := range images {
		d, err := device.OpenFile(p, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		devs[i] = d
	}
	v, err := volume.Open(ctx, devs, volume.Options{SuperCopy: -1, BackupRoot: -1})
	if err != nil {
		t.Fatal(err)
	}
	// Times get onto the volume, and tests compare bytes.
	m, err := transaction.Open(ctx, v, transaction.Options{DirtyBytes: dirty, Now: func() time.Time { return time.Unix(1700000000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return v, m
}

func closeAll(t testing.TB, v *volume.Volume, m *transaction.Manager) {
	t.Helper()
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// What the kernel left half dropped is finished, with any budget.
func TestFinishesWhatTheKernelBegan(t *testing.T) {
	for _, name := range []string{"half-drop", "half-drop-shared", "half-drop-many", "half-drop-quota"} {
		for _, budget := range []int{0, 3} {
			t.Run(name, func(t *testing.T) {
				images := testenv.Images(t, name)
				v, m := open(t, images)
				n, err := cleaner.Pending(context.Background(), m)
				if err != nil || n == 0 {
					t.Fatalf("%d dead trees, %v", n, err)
				}
				r, err := cleaner.Run(context.Background(), m, cleaner.Options{Budget: budget})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%+v", r)
				if r.RootsDone != n {
					t.Errorf("%d of %d trees done", r.RootsDone, n)
				}
				closeAll(t, v, m)
				testenv.Check(t, images...)
			})
		}
	}
}
