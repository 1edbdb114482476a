package check_test

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/check"
	"github.com/gobtrfs/gobtrfs/internal/checksum"
	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// TestAgainstProgs damages single bits of items, and reports where btrfs check
// sees an error and we do not. It looks for rules that are missing; what we see and
// it does not is logged. GOBTRFS_ROUNDS=n makes it run.
func TestAgainstProgs(t *testing.T) {
	rounds := testenv.Rounds(0)
	if rounds == 0 {
		t.Skip("set GOBTRFS_ROUNDS")
	}
	testenv.NeedProgs(t)
	seed := testenv.Seed(t, 3)
	rnd := rand.New(rand.NewPCG(uint64(seed), 2))
	for _, name := range []string{"mixed", "half-drop", "no-skinny", "holes-items", "full-backrefs", "snap30", "balance-interrupted", "fst-bitmaps"} {
		image := testenv.Image(t, name)
		d, err := device.OpenFile(image, device.Options{})
		if err != nil {
			t.Fatal(err)
		}
		v, err := openDevice(t, d)
		if err != nil {
			t.Fatal(err)
		}
		blocks := blocksOf(t, v)
		for round := range rounds {
			at := blocks[rnd.IntN(len(blocks))]
			b := make(ondisk.Block, v.Nodesize())
			if err := v.IO().Read(context.Background(), at, 0, b); err != nil {
				t.Fatal(err)
			}
			good := append(ondisk.Block(nil), b...)
			where := flip(rnd, b)
			checksum.Sum(v.CsumType(), b[:v.CsumType().Size()], b[32:])
			if err := v.IO().Write(context.Background(), at, b); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("btrfs", "check", "--readonly", image).CombinedOutput()
			theirs := err == nil
			ours, first := false, "can not be opened"
			if w, err := openDevice(t, d); err == nil {
				r, err := check.Check(context.Background(), w, check.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if ours, first = r.OK(), ""; !ours {
					first = r.Findings[0].String()
				}
			}
			switch {
			case ours && !theirs:
				t.Errorf("%s, round %d, block %d, %s: not seen by us: %s", name, round, at, where, tail(string(out)))
			case theirs && !ours && os.Getenv("GOBTRFS_VERBOSE") != "":
				t.Logf("%s, round %d, block %d, %s: only seen by us: %s", name, round, at, where, first)
			}
			if err := v.IO().Write(context.Background(), at, good); err != nil {
				t.Fatal(err)
			}
		}
		d.Close()
	}
}

// flip changes one bit of an item, or of a key or pointer, and tells of it.
func flip(rnd *rand.Rand, b ondisk.Block) string {
	n := b.NrItems()
	if n == 0 {
		return "nothing"
	}
	i := rnd.IntN(n)
	bit := byte(1) << rnd.IntN(8)
	if b.Level() > 0 {
		off := ondisk.HeaderSize + i*ondisk.KeyPtrSize + rnd.IntN(ondisk.KeyPtrSize)
		b[off] ^= bit
		return "a pointer"
	}
	was := b.Key(i).String()
	if body := b.Item(i); len(body) > 0 && rnd.IntN(5) > 0 {
		k := rnd.IntN(len(body))
		body[k] ^= bit
		return was + " byte " + string(rune('0'+k/100)) + string(rune('0'+k/10%10)) + string(rune('0'+k%10))
	}
	off := ondisk.HeaderSize + i*ondisk.ItemSize + rnd.IntN(17)
	b[off] ^= bit
	return was + " key, now " + b.Key(i).String()
}

func tail(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	var out []string
	for _, l := range lines {
		if !strings.HasPrefix(l, "[") && !strings.Contains(l, "bytes") && !strings.Contains(l, "Opening") && !strings.Contains(l, "UUID") {
			out = append(out, l)
		}
	}
	if len(out) > 4 {
		out = out[:4]
	}
	return strings.Join(out, " | ")
}
