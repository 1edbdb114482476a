package compress

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
	"github.com/gobtrfs/gobtrfs/internal/volume"
)

const (
	seed   = 7919
	sector = 4096
)

var algos = []uint8{Zlib, LZO, Zstd}

// sample returns n bytes of a given kind: how well they compress differs.
func sample(kind string, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	p := make([]byte, n)
	words := strings.Fields("tree leaf node extent key item chunk stripe the a of and snapshot\n reference 0 1 2 3")
	switch kind {
	case "zero":
	case "random":
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
	case "text":
		for i := 0; i < n; {
			i += copy(p[i:], words[rng.IntN(len(words))]+" ")
		}
	case "mixed": // stretches of everything, and far repeats
		for i := 0; i < n; {
			run := min(1+rng.IntN(3000), n-i)
			switch rng.IntN(4) {
			case 0:
				for j := range run {
					p[i+j] = byte(rng.Uint32())
				}
			case 1:
				for j := range run {
					p[i+j] = byte(rng.IntN(3))
				}
			case 2:
				if i > 0 {
					from := rng.IntN(i)
					for j := range run {
						p[i+j] = p[from+j]
					}
				}
			}
			i += run
		}
	}
	return p
}

var kinds = []string{"zero", "random", "text", "mixed"}

func TestRoundTrip(t *testing.T) {
	scratch := make([]byte, 0, MaxExtent)
	for _, algo := range algos {
		for _, kind := range kinds {
			for _, n := range []int{1, 2, 19, 300, 4095, 4096, 4097, 8192, 37856, 65536, 131071, 131072} {
				src := sample(kind, n)
				out, ok := Encode(algo, 0, scratch, src, sector)
				if !ok {
					if kind == "zero" && n > 60 {
						t.Errorf("%s: %d zeros do not compress", Name(algo), n)
					}
					continue
				}
				if !encodePays(len(out), n) {
					t.Errorf("%s of %d %s: %d bytes do not pay", Name(algo), n, kind, len(out))
				}
				payload, inline := out, n <= sector
				if !inline {
					payload = out[:roundUp(len(out), sector)]
				}
				checkDecode(t, algo, payload, src, inline)
			}
		}
	}
}

func encodePays(out, n int) bool {
	if n <= sector {
		return out < n
	}
	return roundUp(out, sector)+sector <= roundUp(n, sector)
}

// checkDecode decodes to a whole number of sectors, into memory full of other bytes.
func checkDecode(t *testing.T, algo uint8, payload, want []byte, inline bool) {
	t.Helper()
	ram := len(want)
	if !inline {
		ram = roundUp(ram, sector)
	}
	got := bytes.Repeat([]byte{0xee}, ram+64)
	if err := Decode(algo, got[:ram:ram], payload, sector, inline); err != nil {
		t.Fatalf("%s, %d bytes: %v", Name(algo), len(want), err)
	}
	if !bytes.Equal(got[:len(want)], want) {
		t.Fatalf("%s: %d bytes came back different", Name(algo), len(want))
	}
	if !bytes.Equal(got[len(want):ram], make([]byte, ram-len(want))) {
		t.Errorf("%s: the tail of %d bytes is not zero", Name(algo), len(want))
	}
	if !bytes.Equal(got[ram:], bytes.Repeat([]byte{0xee}, 64)) {
		t.Errorf("%s wrote beyond ram_bytes", Name(algo))
	}
}

// Inline extents as the kernel wrote them.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		algo uint8
		hex  string
		want string
	}{
		{Zlib, "785e4a4c4ae64a1cc5a361309a0646d3c0681a184d03a36960340d8ca681d134309a0606751a00000000ffff0300f95e7ace",
			strings.Repeat("abc\n", 750)},
		{LZO, "3d00000035000000056162630a6162630a20000000000000000000000000000000d21c0000026162630a6162630a6162630a6162630a6162630a110000",
			strings.Repeat("abc\n", 1024)},
		{Zstd, "28b52ffd60b80a5d0000206162630a0100b1db7744", strings.Repeat("abc\n", 750)},
	} {
		payload, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		checkDecode(t, c.algo, payload, []byte(c.want), true)
		var corrupt *ondisk.CorruptError
		if err := Decode(c.algo, make([]byte, len(c.want)-1), payload, sector, true); !errors.As(err, &corrupt) {
			t.Errorf("%s: longer than ram_bytes, but %v", Name(c.algo), err)
		}
	}
}

func TestLevels(t *testing.T) {
	src := sample("text", MaxExtent)
	for _, algo := range algos {
		for level := -16; level <= 16; level++ {
			out, ok := Encode(algo, level, nil, src, sector)
			if !ok {
				t.Fatalf("%s level %d gives nothing", Name(algo), level)
			}
			checkDecode(t, algo, out[:roundUp(len(out), sector)], src, false)
		}
	}
}

// A frame of several blocks without a content size, as other writers may make, and sectors of other sizes.
func TestLZOSectorSizes(t *testing.T) {
	for _, size := range []int{4096, 16384, 65536} {
		for _, kind := range kinds {
			src := sample(kind, MaxExtent)
			out, ok := Encode(LZO, 0, nil, src, size)
			if !ok {
				continue
			}
			got := make([]byte, len(src))
			if err := Decode(LZO, got, out[:roundUp(len(out), size)], size, false); err != nil || !bytes.Equal(got, src) {
				t.Errorf("%s, sectors of %d: %v", kind, size, err)
			}
		}
	}
}

// The paddings of an LZO payload occur only at some lengths, so make all of them occur.
func TestLZOPadding(t *testing.T) {
	seen := map[int]bool{}
	for k := sector - 150; k < sector; k++ { // so many bytes that do not compress end near the end of the payload's sector
		src := make([]byte, 5*sector)
		copy(src[sector-k:], sample("random", k))
		out, ok := Encode(LZO, 0, nil, src, sector)
		if !ok {
			continue
		}
		for at := lzoField; at < len(out); {
			at += lzoField + int(le32(out[at:]))
			seen[lzoPad(at, sector)] = true
			at += lzoPad(at, sector)
		}
		checkDecode(t, LZO, out[:roundUp(len(out), sector)], src, false)
	}
	if !seen[1] || !seen[2] || !seen[3] {
		t.Errorf("seed %d: paddings seen: %v", seed, seen)
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// LZO1X streams written by hand, one for each instruction.
func TestLZO1XInstructions(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 2000) // 32000 bytes to look back into
	longStream := func(tail string) string {
		run := lzoRun([]byte{0}, len(long)-18)
		return string(run) + long + tail
	}
	const end = "\x11\x00\x00"
	for _, c := range []struct{ name, stream, want string }{
		{"first literals", "\x16hello" + end, "hello"},
		{"three first literals, match of 2", "\x14abc" + "\x08\x00" + end, "abcab"[:3] + "ab"},
		{"literal run", "\x02hello" + end, "hello"},
		{"match of 3 after a run", longStream("\x03\x00x\x11\x00\x00"[:2] + "xyz" + end), long + long[32000-2049:][:3] + "xyz"},
		{"01LDDDSS", "\x15abcd" + "\x4d\x00z" + end, "abcdabc"[:4] + "abc"[:3] + "z"},
		{"1LLDDDSS over itself", "\x12a" + "\xe0\x00" + end, "aaaaaaaaa"},
		{"001LLLLL", "\x15abcd" + "\x23\x0c\x00" + end, "abcdabcda"},
		{"001LLLLL with a run", "\x12a" + "\x20\x01\x00\x00" + end, "a" + strings.Repeat("a", 34)},
		{"0001HLLL", longStream("\x12\x05\x00Z" + end), long + long[32000-16385:][:4] + "Z"},
	} {
		got := make([]byte, len(c.want))
		n, err := decodeLZO1X(got, []byte(c.stream))
		if err != nil || n != len(c.want) || string(got) != c.want {
			t.Errorf("%s: %v, %d bytes, end %.20q, want %.20q", c.name, err, n, got[max(0, n-20):], c.want[max(0, len(c.want)-20):])
		}
	}
	for name, stream := range map[string]string{
		"empty":            "",
		"no end":           "\x16hello",
		"bytes after end":  "\x16hello" + end + "x",
		"literals missing": "\x20hello", "match too far": "\x12a" + "\x4d\x00z" + end, "run without end": "\x00\x00\x00",
	} {
		if n, err := decodeLZO1X(make([]byte, 100), []byte(stream)); err == nil {
			t.Errorf("%s: decoded %d bytes", name, n)
		}
	}
}

// Damaged payloads must come back as errors or as bytes, never as a panic or a write outside.
func TestDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, algo := range algos {
		good, ok := Encode(algo, 0, nil, sample("mixed", 20000), sector)
		if !ok {
			t.Fatal(Name(algo))
		}
		for range 2000 {
			bad := bytes.Clone(good[:len(good)-rng.IntN(3)*rng.IntN(len(good))/2])
			for range 1 + rng.IntN(3) {
				bad[rng.IntN(len(bad))] = byte(rng.Uint32())
			}
			decodeAnything(t, algo, bad, 1+rng.IntN(24576))
		}
	}
	var corrupt *ondisk.CorruptError
	if err := Decode(9, make([]byte, 10), []byte{1}, sector, false); !errors.As(err, &corrupt) {
		t.Error("unknown algorithm:", err)
	}
}

// decodeAnything decodes with and without slack: both must say the same, and write nothing but what they may.
func decodeAnything(t *testing.T, algo uint8, payload []byte, ram int) {
	const mark, behind = 0xee, 3 * Slack
	exact, roomy := bytes.Repeat([]byte{mark}, ram+behind), bytes.Repeat([]byte{mark}, ram+behind)
	err := Decode(algo, exact[:ram:ram], payload, sector, true)
	err2 := Decode(algo, roomy[:ram], payload, sector, true)
	var corrupt *ondisk.CorruptError
	if err != nil && !errors.As(err, &corrupt) || err2 != nil && !errors.As(err2, &corrupt) {
		t.Fatalf("%s: %v, %v is no CorruptError", Name(algo), err, err2)
	}
	if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(exact[:ram], roomy[:ram]) {
		t.Fatalf("%s: slack makes a difference: %v, %v", Name(algo), err, err2)
	}
	if !bytes.Equal(exact[ram:], bytes.Repeat([]byte{mark}, behind)) {
		t.Fatalf("%s wrote beyond ram_bytes", Name(algo))
	}
	if !bytes.Equal(roomy[ram+Slack:], bytes.Repeat([]byte{mark}, behind-Slack)) {
		t.Fatalf("%s wrote beyond its slack", Name(algo))
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"": "none 0", "no": "none 0", "none": "none 0", "zlib": "zlib 0", "zlib:9": "zlib 9", "lzo": "lzo 0", "zstd": "zstd 0",
		"zstd:15": "zstd 15", "zstd:-3": "zstd -3",
	} {
		if algo, level, err := Parse(in); err != nil || fmt.Sprint(Name(algo), " ", level) != want {
			t.Errorf("Parse(%q) = %s %d, %v", in, Name(algo), level, err)
		}
	}
	for _, in := range []string{"gzip", "zlib:10", "zlib:-1", "zstd:16", "lzo:1", "zstd:", "zstd:x"} {
		if algo, level, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %s %d", in, Name(algo), level)
		}
	}
}

// realExtents gives f some compressed extents that Linux wrote, a few of each algorithm.
func realExtents(f *testing.F, add func(algo uint8, payload []byte, ram uint16)) {
	ctx := f.Context()
	for _, name := range []string{"comp-zlib", "comp-lzo", "comp-zstd", "comp-mixed"} {
		d, err := device.OpenFile(testenv.ReadImages(f, name)[0], device.Options{ReadOnly: true})
		if err != nil {
			f.Fatal(err)
		}
		v, err := volume.Open(ctx, []device.Device{d}, volume.Options{ReadOnly: true, SuperCopy: -1, BackupRoot: -1})
		if err != nil {
			f.Fatal(err)
		}
		defer v.Close()
		tree, err := v.Tree(ctx, ondisk.FSTree)
		if err != nil {
			f.Fatal(err)
		}
		n := 0
		c, err := tree.Seek(ctx, ondisk.Key{})
		for ; err == nil && c.Valid() && n < 6; err = c.Next(ctx) {
			if c.Key().Type != ondisk.TypeExtentData {
				continue
			}
			e, err := ondisk.DecodeFileExtent(c.Data())
			if err != nil || e.Compression == ondisk.CompressNone || e.RAMBytes > math.MaxUint16 {
				continue
			}
			payload := e.Inline
			if e.Type != ondisk.ExtentInline {
				payload = make([]byte, e.DiskNumBytes)
				if err := v.IO().Read(ctx, e.DiskBytenr, 0, payload); err != nil {
					f.Fatal(err)
				}
			}
			add(e.Compression, payload, uint16(e.RAMBytes))
			n++
		}
		if err != nil || n == 0 {
			f.Fatalf("%s: %d extents, %v", name, n, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	realExtents(f, func(algo uint8, payload []byte, ram uint16) { f.Add(algo, payload, ram) })
	for _, algo := range algos {
		for _, kind := range kinds {
			if out, ok := Encode(algo, 0, nil, sample(kind, 5000), sector); ok {
				f.Add(algo, out, uint16(8192))
			}
		}
	}
	f.Fuzz(func(t *testing.T, algo uint8, payload []byte, ram uint16) {
		decodeAnything(t, algo%5, payload, int(ram))
	})
}

func FuzzRoundTrip(f *testing.F) {
	for _, kind := range kinds {
		f.Add(uint8(2), sample(kind, 5000))
	}
	f.Fuzz(func(t *testing.T, algo uint8, src []byte) {
		out, ok := Encode(algo%4, 1, nil, src, sector)
		if !ok {
			return
		}
		inline := len(src) <= sector
		if !inline {
			out = out[:roundUp(len(out), sector)]
		}
		checkDecode(t, algo%4, out, src, inline)
	})
}

func Benchmark(b *testing.B) {
	src := sample("text", MaxExtent)
	for _, algo := range algos {
		out, _ := Encode(algo, 0, nil, src, sector)
		payload := out[:roundUp(len(out), sector)]
		b.Run(Name(algo)+"/encode", func(b *testing.B) {
			b.SetBytes(MaxExtent)
			b.ReportAllocs()
			dst := make([]byte, 0, MaxExtent)
			for b.Loop() {
				Encode(algo, 0, dst, src, sector)
			}
			b.ReportMetric(float64(len(out))/float64(len(src)), "ratio")
		})
		b.Run(Name(algo)+"/decode", func(b *testing.B) {
			b.SetBytes(MaxExtent)
			b.ReportAllocs()
			dst := make([]byte, MaxExtent)
			for b.Loop() {
				if err := Decode(algo, dst, payload, sector, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSlack: room behind dst changes nothing in dst, nothing is written beyond it
// or Slack, and what is longer than dst is refused though it would fit.
func TestSlack(t *testing.T) {
	for _, algo := range algos {
		for _, kind := range []string{"zero", "text", "mixed"} {
			want := sample(kind, 100_000)
			out, ok := Encode(algo, 0, nil, want, sector)
			if !ok {
				t.Fatal("does not pay")
			}
			payload := out[:roundUp(len(out), sector)]
			for _, room := range []int{0, 1, Slack - 1, Slack, Slack + 1, 1000} {
				const mark = 0xa5
				b := bytes.Repeat([]byte{mark}, len(want)+room+8)
				dst := b[: len(want) : len(want)+room]
				if err := Decode(algo, dst, payload, sector, false); err != nil || !bytes.Equal(dst, want) {
					t.Errorf("%s, %s, %d behind it: %v", Name(algo), kind, room, err)
				}
				for i, c := range b[len(want)+min(room, Slack):] {
					if c != mark {
						t.Errorf("%s, %s, %d behind it: byte %d beyond is written", Name(algo), kind, room, i)
					}
				}
				short := b[: len(want)-3 : len(want)+room]
				if Decode(algo, short, payload, sector, false) == nil {
					t.Errorf("%s, %s: more than ram_bytes is taken", Name(algo), kind)
				}
			}
		}
	}
}
