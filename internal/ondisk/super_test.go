package ondisk

import (
	"bytes"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestSuperOfCorpus: reading and writing back the superblock of real volumes
// gives the same bytes. Not compared: the checksum, and what is left over behind
// the system chunk array.
func TestSuperOfCorpus(t *testing.T) {
	for _, base := range []string{"default", "default-old", "csum-sha256", "prof-raid10.d2", "metadata-uuid", "seed", "mixed", "names"} {
		name := filepath.Join("../../testdata/corpus/images", base+".img.zst")
		b := superOf(t, name)
		clear(b[superArray+le.Uint32(b[160:]) : superBackups])
		s, err := DecodeSuper(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := make([]byte, SuperSize)
		if err := s.Encode(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		copy(got, b[:32])
		for i := range got {
			if got[i] != b[i] {
				t.Errorf("%s: byte %d: got %x, want %x", filepath.Base(name), i, got[i], b[i])
				break
			}
		}
	}
}

func superOf(t testing.TB, name string) []byte {
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
	if _, err := io.CopyN(io.Discard, z, int64(SuperOffset(0))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, SuperSize)
	if _, err := io.ReadFull(z, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "·", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGoldenExtent: extent items of a real volume (worked example, step 3).
func TestGoldenExtent(t *testing.T) {
	b := unhex(t, "0200000000000000 0700000000000000 0100000000000000 b2 0001000000000000 0101000000000000 0000000000000000 01000000 b8 0090d10100000000 01000000")
	e, err := DecodeExtent(Key{13631488, TypeExtentItem, 8192}, b)
	if err != nil {
		t.Fatal(err)
	}
	if e.ExtentItem.Refs != 2 || e.Generation != 7 || e.Flags != ExtentFlagData || len(e.Refs) != 2 {
		t.Fatalf("got %+v", e)
	}
	if r := e.Refs[0]; r.Type != TypeExtentDataRef || r.Root != 256 || r.Objectid != 257 || r.Offset != 0 || r.Count != 1 {
		t.Errorf("first reference: %+v", r)
	}
	if r := e.Refs[1]; r.Type != TypeSharedDataRef || r.Parent != 30511104 || r.Count != 1 {
		t.Errorf("second reference: %+v", r)
	}
	if got := e.Append(nil); !bytes.Equal(got, b) {
		t.Errorf("written back: %x, want %x", got, b)
	}
}
