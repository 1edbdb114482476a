package mkfs_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/mkfs"
)

// BenchmarkGoTree makes a volume from the Go toolchain's own tree.
func BenchmarkGoTree(b *testing.B) {
	for _, algo := range []string{"no", "zstd:1", "lzo"} {
		b.Run(algo, func(b *testing.B) {
			for b.Loop() {
				r, err := mkfs.Make(context.Background(), []device.Device{device.NewMem(4 << 30)}, mkfs.Options{RootDir: runtime.GOROOT(), Compression: algo})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(r.FileBytes))
				b.ReportMetric(float64(r.Files), "files")
			}
		})
	}
}
