package treecheck

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// few are the images that the short run looks at.
var few = []string{"default", "node-64k", "collisions", "received", "half-drop", "space-cache-v1"}

// unfit tells why a volume's blocks need not pass: damaged on purpose, blocks
// that are the parity of others, features beyond us, an empty leaf of an
// unfinished mkfs.
func unfit(name string) bool {
	for _, w := range []string{"bad-", "raid5", "raid6", "exp-", "old-roots"} {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// TestRealBlocks: every block that Linux and mkfs wrote into the volumes of the
// corpus passes, stale ones too. Blocks are found by their fsid and checksum.
// GOBTRFS_ROUNDS=all looks at all volumes.
func TestRealBlocks(t *testing.T) {
	names := few
	if os.Getenv("GOBTRFS_ROUNDS") == "all" {
		names = nil
		all, _ := filepath.Glob("../../testdata/corpus/images/*.img.zst")
		for _, n := range all {
			names = append(names, strings.TrimSuffix(filepath.Base(n), ".img.zst"))
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if unfit(name) {
				t.Skip("not meant to pass")
			}
			n, errs := 0, 0
			scan(t, "../../testdata/corpus/images/"+name+".img.zst", func(b ondisk.Block, c Context) {
				n++
				if err := Check(b, c); err != nil {
					if errs++; errs < 4 {
						t.Error(err)
					}
				}
			})
			if errs > 0 || n == 0 {
				t.Errorf("%d of %d blocks refused", errs, n)
			}
		})
	}
}

// scan shows all tree blocks in a packed image, reading it as a stream.
func scan(t testing.TB, name string, see func(ondisk.Block, Context)) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(1<<27), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	const step = 1 << 20
	buf := make([]byte, step+1<<16)
	zero := make([]byte, step)
	var sb *ondisk.Superblock
	var c Context
	for have := 0; ; {
		n, _ := io.ReadFull(z, buf[have:]) // short at the end
		have += n
		if sb == nil {
			if have < 65536+4096 {
				return
			}
			var serr error
			if sb, serr = ondisk.DecodeSuper(buf[65536 : 65536+4096]); serr != nil {
				t.Fatal(serr)
			}
			c = Context{
				Nodesize: sb.Nodesize, Sectorsize: sb.Sectorsize, SuperGeneration: sb.Generation + 1, Incompat: sb.Incompat,
				CsumSize: checksum.Type(sb.CsumType).Size(), Write: true, // mkfs leaves stale blocks that were never marked
			}
		}
		last := have < len(buf)
		for off := 0; off < step && off+int(c.Nodesize) <= have; off += 4096 {
			if bytes.Equal(buf[off:off+4096], zero[:4096]) {
				continue
			}
			b := ondisk.Block(buf[off : off+int(c.Nodesize)])
			if string(buf[off+64:off+72]) == ondisk.SuperMagic || b.FSID() != sb.TreeUUID() || !checksum.Verify(checksum.Type(sb.CsumType), b[:32], b[32:]) {
				continue
			}
			see(b, c)
		}
		if last {
			return
		}
		have = copy(buf, buf[step:have])
	}
}
