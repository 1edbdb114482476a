package chunk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/device"
	"github.com/gobtrfs/gobtrfs/internal/device/faultdev"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

const sector = 4096

// rest is an array of parity whose rows are in use, but for a hole that the test writes to: every sector outside of the hole has a claim.
type rest struct {
	*array
	hole  [2]int // sectors
	asked int
}

func newRest(t *testing.T, profile uint64, n int, rng *rand.Rand) *rest {
	r := &rest{array: newArray(t, profile, n, 2)}
	for i := range r.want {
		r.want[i] = byte(rng.Uint32())
	}
	if err := r.io.Write(context.Background(), start, r.want); err != nil {
		t.Fatal(err)
	}
	r.hole[0] = rng.IntN(len(r.want)/sector - 24)
	r.hole[1] = r.hole[0] + 1 + rng.IntN(24)
	r.io.SetClaims(r.claims)
	return r
}

func (r *rest) claims(_ context.Context, at ondisk.Bytenr, n int) (list []Claim, _ error) {
	r.asked++
	for s := int(at-start) / sector; s < (int(at-start)+n)/sector; s++ {
		if s < r.hole[0] || s >= r.hole[1] {
			list = append(list, Claim{At: start + ondisk.Bytenr(s*sector), Len: sector, Good: func(p []byte) bool { return bytes.Equal(p, r.want[s*sector:][:sector]) }})
		}
	}
	return list, nil
}

// fill writes the hole.
func (r *rest) fill(rng *rand.Rand) error {
	p := r.want[r.hole[0]*sector : r.hole[1]*sector]
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return r.io.Write(context.Background(), start+ondisk.Bytenr(r.hole[0]*sector), p)
}

// garble makes garbage of a sector of a device's stripe.
func (r *rest) garble(t *testing.T, stripe, sec int, rng *rand.Rand) {
	t.Helper()
	p := make([]byte, sector)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	s := r.chunk.Stripes[stripe]
	if _, err := r.devs[s.DevID].WriteAt(p, int64(s.Offset)+int64(sec*sector)); err != nil {
		t.Fatal(err)
	}
}

// TestLyingNeighbours: bits of as many units as there are parities are garbage when something beside them is written. Whatever it
// was, all is there afterwards, and stays there when devices are lost: no parity was made of garbage.
func TestLyingNeighbours(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 11))
	for round := range 60 {
		for _, c := range profiles {
			most := map[uint64]int{ondisk.BlockGroupRAID5: 1, ondisk.BlockGroupRAID6: 2}[c.profile]
			if most == 0 {
				continue
			}
			r := newRest(t, c.profile, c.n, rng)
			bad := rng.Perm(c.n)[:most]
			perStripe := int(r.chunk.DevExtentLen()) / sector
			for range 1 + rng.IntN(20) {
				r.garble(t, bad[rng.IntN(most)], rng.IntN(perStripe), rng)
			}
			if err := r.fill(rng); err != nil {
				t.Fatalf("%s, round %d: %v", c.name, round, err)
			}
			r.checkRest(t, c.name, bad)
		}
	}
}

// checkRest reads every sector in every way that does without the devices that were bad, where the write went; elsewhere they are as bad as before.
func (r *rest) checkRest(t *testing.T, name string, bad []int) {
	t.Helper()
	var lost []ondisk.DevID
	for _, b := range bad {
		lost = append(lost, r.chunk.Stripes[b].DevID)
	}
	got, err := readable(r.without(lost...), len(r.want))
	if err != nil || !bytes.Equal(got, r.want) {
		t.Fatalf("%s: without the devices that were garbled it reads something else (%v)", name, err)
	}
	for s := r.hole[0]; s < r.hole[1]; s++ { // columns that were written: right on every device
		unit := s * sector / ondisk.StripeLen
		d := r.chunk.dataStripes()
		row, so := uint64(unit/d), s*sector%ondisk.StripeLen
		units, errs := r.io.readUnits(r.chunk, row, so, sector)
		if errors.Join(errs...) != nil || !fits(d, units) {
			t.Fatalf("%s: the parity of sector %d does not fit", name, s)
		}
		for k := range d {
			if at := (int(row)*d+k)*ondisk.StripeLen + so; !bytes.Equal(units[k], r.want[at:][:sector]) {
				t.Fatalf("%s: beside sector %d unit %d is wrong", name, s, k)
			}
		}
	}
}

// TestBeyondRepair: where more units are garbage than parity can rebuild, nothing is written, so that no chance is lost that there may be.
func TestBeyondRepair(t *testing.T) {
	for _, profile := range []uint64{ondisk.BlockGroupRAID5, ondisk.BlockGroupRAID6} {
		rng := rand.New(rand.NewPCG(seed, 12))
		r := newRest(t, profile, 5, rng)
		r.hole = [2]int{0, 1}
		units := []int{1, 2, 3}[:r.chunk.parity()+1]
		for _, k := range units {
			r.garble(t, k, 0, rng)
		}
		before := r.dump(t)
		err := r.fill(rng)
		var corrupt *ondisk.CorruptError
		if !errors.As(err, &corrupt) || corrupt.Bytenr != start+ondisk.StripeLen {
			t.Errorf("%v", err)
		}
		if !bytes.Equal(r.dump(t), before) {
			t.Error("something was written")
		}
		r.hole = [2]int{1, 2} // another column: the damage is none of its business
		if err := r.fill(rng); err != nil {
			t.Error(err)
		}
	}
}

func (r *rest) dump(t *testing.T) (all []byte) {
	t.Helper()
	for _, s := range r.chunk.Stripes {
		p := make([]byte, r.chunk.DevExtentLen())
		if _, err := r.devs[s.DevID].ReadAt(p, int64(s.Offset)); err != nil {
			t.Fatal(err)
		}
		all = append(all, p...)
	}
	return all
}

// TestRowCosts: as long as the parity fits nobody is asked for claims, and each device is read once; where it does not, once more, and
// what was wrong is written before the row, with a flush between.
func TestRowCosts(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 13))
	r := newRest(t, ondisk.BlockGroupRAID6, 5, rng)
	r.hole = [2]int{3, 6}
	devs := map[ondisk.DevID]device.Device{}
	count := func(op faultdev.Op) (n int) {
		for _, d := range devs {
			n += d.(*faultdev.Dev).Calls(op)
		}
		return n
	}
	costs := func(asked, reads, writes, flushes int) {
		t.Helper()
		for id, d := range r.devs {
			devs[id] = faultdev.New(d)
		}
		r.io = NewIO(r.m, devs)
		r.io.SetClaims(r.claims)
		r.asked = 0
		if err := r.fill(rng); err != nil {
			t.Fatal(err)
		}
		got := [4]int{r.asked, count(faultdev.Read), count(faultdev.Write), count(faultdev.Flush)}
		if want := [4]int{asked, reads, writes, flushes}; got != want {
			t.Errorf("asked, reads, writes, flushes: %v, want %v", got, want)
		}
	}
	costs(0, 5, 3, 0)
	r.garble(t, 1, 4, rng)
	costs(1, 10, 4, 1)
	costs(0, 5, 3, 0) // it was mended
}

// TestRefresh: a device comes back as it was before a number of writes, and of RAID6 another one has turned to garbage meanwhile. Refresh needs no
// more than there is to make it whole; it writes to nothing else.
func TestRefresh(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 14))
	for round := range 12 {
		for _, c := range profiles {
			if c.profile&(ondisk.BlockGroupRAID5|ondisk.BlockGroupRAID6) == 0 {
				continue
			}
			r := newRest(t, c.profile, c.n, rng)
			who := rng.Perm(c.n)[:2]
			stale := r.chunk.Stripes[who[0]]
			before := make([]byte, r.chunk.DevExtentLen())
			if _, err := r.devs[stale.DevID].ReadAt(before, int64(stale.Offset)); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				r.write(t, rng)
			}
			if _, err := r.devs[stale.DevID].WriteAt(before, int64(stale.Offset)); err != nil {
				t.Fatal(err)
			}
			r.hole = [2]int{} // all is known
			if r.chunk.parity() == 2 {
				for range 10 {
					r.garble(t, who[1], rng.IntN(len(before)/sector), rng)
				}
			}
			r.refresh(t, stale.DevID)
			got, err := readable(r.without(r.chunk.Stripes[who[1]].DevID), len(r.want))
			if err != nil || !bytes.Equal(got, r.want) {
				t.Fatalf("%s, round %d: without another device it reads something else (%v)", c.name, round, err)
			}
		}
	}
}

// refresh refreshes every row; only the device may be written to.
func (r *rest) refresh(t *testing.T, id ondisk.DevID) {
	t.Helper()
	devs := map[ondisk.DevID]device.Device{}
	for k, d := range r.devs {
		if k != id {
			d = faultdev.New(d, faultdev.Rule{Op: faultdev.Write})
		}
		devs[k] = d
	}
	to := NewIO(r.m, devs)
	to.SetClaims(r.claims)
	for nr := range uint64(len(r.want)) / r.chunk.rowLen() {
		if err := to.Refresh(context.Background(), r.chunk, nr, id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefreshKeeps: what is known of RAID5 beyond any doubt only by the device that was away is neither lost nor taken for bad.
func TestRefreshKeeps(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 15))
	r := newRest(t, ondisk.BlockGroupRAID5, 3, rng)
	r.hole = [2]int{}
	id := r.chunk.Stripes[0].DevID // data of row 0, another unit of row 1
	r.garble(t, 1, 2, rng)
	before := r.dump(t)
	r.refresh(t, id)
	if !bytes.Equal(r.dump(t), before) {
		t.Error("what was right was changed")
	}
}
