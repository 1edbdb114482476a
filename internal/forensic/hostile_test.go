package forensic_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/forensic"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// counter counts what is read of a device, and refuses changes.
type counter struct {
	*device.Mem
	mu     sync.Mutex
	large  map[int64]int // long reads, by offset
	bytes  int64         // of these
	writes int
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 64<<10 {
		c.mu.Lock()
		c.large[off]++
		c.bytes += int64(len(p))
		c.mu.Unlock()
	}
	return c.Mem.ReadAt(p, off)
}

func (c *counter) WriteAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return 0, device.ErrReadOnly
}

// TestReadsOnce: the search reads each byte of each device once, and nothing is written.
func TestReadsOnce(t *testing.T) {
	devs := grown(t)
	wiped(chunkTree, rootRoot)(t, devs)
	var counters []*counter
	var dd []btrfs.Device
	for _, d := range devs {
		c := &counter{Mem: d, large: map[int64]int{}}
		counters, dd = append(counters, c), append(dd, c)
	}
	var last, total uint64
	_, rep := contents(t, dd, btrfs.Options{Forensic: &btrfs.ForensicOptions{Progress: func(done, all uint64) {
		if done < last {
			t.Errorf("progress goes back from %d to %d", last, done)
		}
		last, total = done, all
	}}})
	sum := uint64(0)
	for i, c := range counters {
		sum += uint64(c.Size())
		if c.bytes != c.Size() {
			t.Errorf("device %d: %d bytes of %d were read", i, c.bytes, c.Size())
		}
		for off, n := range c.large {
			if n != 1 {
				t.Errorf("device %d: read %d times at %d", i, n, off)
			}
		}
		if c.writes > 0 {
			t.Errorf("device %d: %d writes", i, c.writes)
		}
	}
	if rep.Read != sum || last != sum || total != sum {
		t.Errorf("told %d, progress %d of %d, there are %d bytes", rep.Read, last, total, sum)
	}
}

// TestNothing: a device without any block of a volume is refused, by type.
func TestNothing(t *testing.T) {
	for name, fill := range map[string]func(p []byte, rng *rand.Rand){
		"zeros": func([]byte, *rand.Rand) {},
		"noise": func(p []byte, rng *rand.Rand) {
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
		},
		"headers": func(p []byte, rng *rand.Rand) {
			for off := 0; off+4096 <= len(p); off += 4096 {
				b := ondisk.Block(p[off : off+4096])
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				b.SetFlags(ondisk.HeaderFlagsNew | ondisk.FlagWritten)
				b.SetBytenr(ondisk.Bytenr(off))
				b.SetNrItems(3)
				b.SetLevel(uint8(off/4096) % 8)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := make([]byte, 8<<20)
			fill(p, rand.New(rand.NewPCG(3, 4)))
			d := device.NewMem(int64(len(p)))
			_, err := d.WriteAt(p, 0)
			must(t, err)
			if _, err := btrfs.OpenDevices(ctx, []btrfs.Device{d}, btrfs.Options{Forensic: &btrfs.ForensicOptions{}}); !errors.Is(err, forensic.ErrNothing) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCancel: a search can be given up.
func TestCancel(t *testing.T) {
	devs := grown(t)
	stop, cancel := context.WithCancel(ctx)
	opt := btrfs.Options{Forensic: &btrfs.ForensicOptions{Progress: func(done, _ uint64) {
		if done > 10<<20 {
			cancel()
		}
	}}}
	if _, err := btrfs.OpenDevices(stop, given(devs), opt); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestBounded: no more blocks are remembered than memory is given for, however many there are, and that is told.
func TestBounded(t *testing.T) {
	devs := grown(t)
	_, rep := contents(t, given(devs), btrfs.Options{Forensic: &btrfs.ForensicOptions{Memory: 64 << 10}})
	if rep.Blocks > 256 {
		t.Errorf("%d blocks were remembered", rep.Blocks)
	}
	if !strings.Contains(strings.Join(rep.Losses, "\n"), "no room in memory") {
		t.Errorf("not told: %q", rep.Losses)
	}
}

// copies writes copies of the blocks that match all over a range of the device.
func copies(t testing.TB, d *device.Mem, from, to int64, match func(b ondisk.Block) bool) {
	t.Helper()
	var one ondisk.Block
	wipe(t, []*device.Mem{d}, func(sb *ondisk.Superblock, b ondisk.Block) bool {
		if one == nil && match(b) {
			one = append(ondisk.Block{}, b[:sb.Nodesize]...)
		}
		return false
	})
	if one == nil {
		t.Fatal("no such block")
	}
	for off := from; off+int64(len(one)) <= to; off += int64(len(one)) {
		_, err := d.WriteAt(one, off)
		must(t, err)
	}
}

// TestForeign: blocks of the volume that lie where none belongs, as in an image of it that it holds, are none of its blocks.
func TestForeign(t *testing.T) {
	devs := grown(t)
	want, _ := contents(t, given(clones(devs)), btrfs.Options{})
	copies(t, devs[0], 80<<20, 90<<20, func(b ondisk.Block) bool { return b.Owner() == ondisk.FSTree && b.Level() > 0 })
	wiped(chunkRoot)(t, devs)
	got, rep := contents(t, given(devs), btrfs.Options{Forensic: &btrfs.ForensicOptions{}})
	same(t, got, want)
	if len(rep.Losses) > 0 {
		t.Errorf("lost: %q", rep.Losses)
	}
}

// TestMutated: whatever tree blocks hold behind right checksums, a search ends, and so does reading what it finds.
func TestMutated(t *testing.T) {
	devs := grown(t)
	for round := range testenv.Rounds(25) {
		rng := rand.New(rand.NewPCG(uint64(round), 5))
		bad := clones(devs)
		n := 0
		mutate(t, bad[round%2], rng, &n)
		if round%2 == 0 {
			wipe(t, bad, rootRoot)
		}
		if round%3 == 0 {
			wipe(t, bad, chunkTree)
		}
		if n == 0 {
			t.Fatal("nothing was changed")
		}
		v, err := btrfs.OpenDevices(ctx, given(bad), btrfs.Options{ReadOnly: true, NoReplay: true, Forensic: &btrfs.ForensicOptions{}})
		var corrupt *ondisk.CorruptError
		if err != nil {
			if !errors.As(err, &corrupt) && !errors.Is(err, forensic.ErrNothing) {
				t.Errorf("round %d: %v", round, err)
			}
			continue
		}
		list(v.Top(), ".", map[string]string{})
		must(t, v.Close())
	}
}

// mutate changes some tree blocks and makes their checksums right.
func mutate(t testing.TB, d *device.Mem, rng *rand.Rand, n *int) {
	t.Helper()
	buf := make([]byte, 1<<20)
	sb := super(t, d, 0)
	for off := int64(1 << 20); off < d.Size(); off += int64(len(buf)) {
		_, err := d.ReadAt(buf, off)
		must(t, err)
		for i := 0; i < len(buf); i += 4096 {
			b := ondisk.Block(buf[i : i+4096])
			if b.FSID() != sb.TreeUUID() || string(b[64:72]) == ondisk.SuperMagic || rng.IntN(4) > 0 {
				continue
			}
			for range 1 + rng.IntN(4) {
				at := 48 + rng.IntN(200)
				switch rng.IntN(4) {
				case 0:
					b[at] = byte(rng.Uint32())
				case 1:
					b[at] ^= 1 << rng.IntN(8)
				case 2: // a pointer or key like that of another block
					copy(b[101+33*rng.IntN(8):], b[101+33*rng.IntN(8):][:33])
				case 3:
					b[48+rng.IntN(4000)] ^= byte(1 << rng.IntN(8))
				}
			}
			csum := checksum.Type(sb.CsumType)
			clear(b[:32])
			checksum.Sum(csum, b[:csum.Size()], b[32:])
			_, err := d.WriteAt(b, off+int64(i))
			must(t, err)
			*n++
		}
	}
}
