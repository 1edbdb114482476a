package check_test

import (
	"context"
	"os"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
)

// BenchmarkCheck checks the volume that GOBTRFS_VOLUME names.
func BenchmarkCheck(b *testing.B) {
	image := os.Getenv("GOBTRFS_VOLUME")
	if image == "" {
		b.Skip("GOBTRFS_VOLUME is not set")
	}
	for b.Loop() {
		v, err := open(b, image)
		if err != nil {
			b.Fatal(err)
		}
		r, err := check.Check(context.Background(), v, check.Options{})
		if err != nil || !r.OK() {
			b.Fatal(err, r)
		}
		s := v.Store().Stats()
		b.ReportMetric(float64(s.Misses), "blocks/op")
	}
}
