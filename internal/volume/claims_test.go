package volume

import (
	"context"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestClaims: what the kernel wrote keeps every claim, and something else keeps none.
func TestClaims(t *testing.T) {
	for _, name := range []string{"prof-raid5", "prof-raid6", "prof-raid56-mixed", "mixed"} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			var devs []device.Device
			for _, p := range testenv.ReadImages(t, name) {
				d, err := device.OpenFile(p, device.Options{ReadOnly: true})
				if err != nil {
					t.Fatal(err)
				}
				devs = append(devs, d)
			}
			v, err := Open(ctx, devs, Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			n := 0
			for _, c := range v.Chunks().All() {
				list, err := v.Claims(ctx, c.Logical, int(min(c.Length, 64<<20)))
				if err != nil {
					t.Fatal(err)
				}
				for _, cl := range list {
					p := make([]byte, cl.Len)
					if err := v.IO().Read(ctx, cl.At, 0, p); err != nil {
						t.Fatal(err)
					}
					if !cl.Good(p) {
						t.Errorf("%d bytes at %d break their claim", cl.Len, cl.At)
					}
					p[len(p)/2] ^= 1
					if cl.Good(p) {
						t.Errorf("%d bytes at %d may be anything", cl.Len, cl.At)
					}
				}
				n += len(list)
			}
			if n < 10 {
				t.Errorf("only %d claims", n)
			}
		})
	}
}
